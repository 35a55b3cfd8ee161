"""Damaged and hostile images, landmarks and prepared files: left out, refused in one line, or as good as whole."""

import json
import random
import shutil

import fuzz
import numpy as np
import pytest

from datasets.faces import open_faces, read_faces
from datasets.kernels import load_kernels, motion_kernels, open_kernels

IMAGES, PREPARED, KERNELS, NOTES, LANDMARKS = 150, 250, 250, 60, 60


def test_damaged_images_are_left_out_or_read_and_never_stop_the_rest(faces_folder, tmp_path):
    rng, folder = random.Random(0), tmp_path / "faces"
    shutil.copytree(faces_folder, folder)
    whole = (folder / "00.png").read_bytes()
    suffixes = ("png", "jpg", "bmp", "ppm", "tif", "webp")
    for index in range(IMAGES):
        (folder / f"damaged-{index}.{rng.choice(suffixes)}").write_bytes(fuzz.damaged(whole, rng))
    before = fuzz.listing(tmp_path)
    faces = read_faces(str(folder), size=32, cache=tmp_path / "cache")
    assert len(faces) + len(faces.skipped) == 24 + IMAGES
    assert {path.name for path in faces_folder.iterdir()} <= set(faces.files)
    assert not any("\n" in line for line in faces.skipped)
    assert fuzz.listing(tmp_path, tmp_path / "cache") == before


def test_hostile_file_names_are_names(faces_folder, tmp_path):
    names = [f"{name}.png" for name in fuzz.NAMES if "/" not in name and "\0" not in name and len(name) < 200]
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in names:
        shutil.copy(faces_folder / "00.png", folder / name)
    before = fuzz.listing(folder)
    faces = read_faces(str(folder), size=32, cache=tmp_path / "cache")
    assert len(faces) == len([name for name in names if name != ".png"])
    assert fuzz.listing(folder) == before


def assert_refused_or_same(open_set, same, file):
    """True if it was refused: in one line that names the file."""
    try:
        found = open_set()
    except ValueError as error:
        refusal = str(error)
    else:
        same(found)
        return False
    assert f"remove {file}" in refusal
    return True


def test_damaged_prepared_faces_are_refused(faces_folder, tmp_path):
    """But for changed pixels and file names, which only the digest of all pixels would show."""
    rng = random.Random(1)
    faces = read_faces(str(faces_folder), size=8, cache=tmp_path)
    file = tmp_path / "faces" / f"{faces.digest}.arrow"
    whole = file.read_bytes()

    def same(found):
        assert found.images.shape == faces.images.shape
        assert len(found.files) == len(faces.files)

    refused = 0
    for _ in range(PREPARED):
        file.unlink()  # the old content stays mapped
        file.write_bytes(fuzz.damaged(whole, rng))
        refused += assert_refused_or_same(lambda: open_faces(faces.digest, cache=tmp_path), same, file)
    assert refused > PREPARED / 3
    other = read_faces(str(faces_folder), size=16, cache=tmp_path)
    file.unlink()
    shutil.copy(tmp_path / "faces" / f"{other.digest}.arrow", file)
    with pytest.raises(ValueError, match=f"these are the faces {other.digest}"):
        open_faces(faces.digest, cache=tmp_path)


def test_damaged_kernels_are_refused(tmp_path):
    rng = random.Random(2)
    kernels = load_kernels(sizes=(3, 5), per_size=4, seed=1, cache=tmp_path)
    folder = tmp_path / "kernels" / kernels.digest

    def same(found):
        np.testing.assert_array_equal(found.kernels, kernels.kernels)
        np.testing.assert_array_equal(found.sizes, kernels.sizes)

    refused = 0
    for _ in range(KERNELS):
        file = folder / rng.choice(["kernels.npy", "sizes.npy"])
        whole = file.read_bytes()
        file.unlink()
        file.write_bytes(fuzz.damaged(whole, rng))
        refused += assert_refused_or_same(lambda: open_kernels(kernels.digest, cache=tmp_path), same, folder)
        file.unlink()
        file.write_bytes(whole)
    assert refused > KERNELS * 0.8


def test_a_damaged_note_of_what_is_in_the_cache_is_as_good_as_none(faces_folder, tmp_path):
    rng = random.Random(3)
    digest = read_faces(str(faces_folder), size=8, cache=tmp_path).digest
    drawn = load_kernels(sizes=(3,), per_size=2, seed=1, cache=tmp_path).digest
    (faces_note,), (kernels_note,) = (list((tmp_path / name).glob("*.json")) for name in ("faces", "kernels"))
    notes = {faces_note: faces_note.read_bytes(), kernels_note: kernels_note.read_bytes()}
    for index in range(NOTES):
        for note, whole in notes.items():
            junk = json.dumps(rng.choice(fuzz.JUNK[:12])).encode()
            note.write_bytes(junk if index % 2 else fuzz.damaged(whole, rng))
        assert read_faces(str(faces_folder), size=8, cache=tmp_path).digest == digest
        assert load_kernels(sizes=(3,), per_size=2, seed=1, cache=tmp_path).digest == drawn
    assert motion_kernels(sizes=(3,), per_size=2, seed=1).digest == drawn


def test_hostile_landmarks_leave_their_image_out(faces_folder, tmp_path):
    rng, folder = random.Random(4), tmp_path / "faces"
    (folder / "annotation").mkdir(parents=True)
    shutil.copy(faces_folder / "00.png", folder / "whole.png")
    points = [(rng.uniform(20, 108), rng.uniform(20, 108)) for _ in range(194)]
    lines = [f"{x} , {y}" for x, y in points]
    (folder / "annotation" / "whole.txt").write_text("\n".join(["whole", *lines]))
    for index in range(LANDMARKS):
        shutil.copy(faces_folder / "00.png", folder / f"{index}.png")
        spoilt = list(lines)
        for _ in range(1 + 60 * (index % 2)):
            junk = rng.choice(["nan,1", "inf,inf", "-inf,0", "1e300,1e300", "1e9,-1e9", "1", "", "a,b", "1,2,3"])
            spoilt[rng.randrange(194)] = junk
        (folder / "annotation" / f"{index}.txt").write_text("\n".join([str(index), *spoilt]))
    faces = read_faces(str(folder), size=8, cache=tmp_path / "cache")
    assert faces.files == ("whole.png",)
    assert len(faces.skipped) == LANDMARKS

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from skimage.transform import SimilarityTransform

from datasets.alignment import CANONICAL
from datasets.faces import face_set, open_faces, read_faces, store_faces

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def picture(seed, width=128, height=128):
    """Smooth random RGB picture, (height, width, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "faces"


def test_celeba_is_cut_not_resampled(root, cache):
    arrays = [picture(seed, 178, 218) for seed in range(3)]
    for number, array in enumerate(arrays):
        save(root / "img_align_celeba" / f"00000{number}.png", array)
    (root / "identity_CelebA.txt").write_text("000000.png 7\n000001.png 12\n000002.png 7\n")
    faces = read_faces(str(root), size=128, cache=cache)
    np.testing.assert_array_equal(faces.images, [array[71:199, 26:154] for array in arrays])
    assert faces.identities == ("celeba/7", "celeba/12", "celeba/7")
    assert faces.name == "faces"
    assert "non-commercial" in faces.licence
    inside = read_faces(str(root / "img_align_celeba"), size=128, cache=cache, name="CelebA")
    assert (inside.digest, inside.name) == (faces.digest, "CelebA")


def test_celeba_without_identities_and_with_a_wrong_size(root, cache):
    save(root / "img_align_celeba" / "1.png", picture(0, 178, 218))
    save(root / "img_align_celeba" / "2.png", picture(0, 218, 178))
    faces = read_faces(str(root), size=64, cache=cache)
    assert faces.identities is None
    assert faces.skipped == ("2.png: an aligned CelebA image is 178x218, this one is 218x178",)


def test_celeba_image_without_an_identity_is_an_error(root, cache):
    save(root / "img_align_celeba" / "1.png", picture(0, 178, 218))
    (root / "identity_CelebA.txt").write_text("2.png 5\n")
    with pytest.raises(ValueError, match=r"1 are missing, the first is 1\.png"):
        read_faces(str(root), size=64, cache=cache)


def place(aligned, scale, degrees, shift):
    """A photo into which an aligned face is drawn larger and turned, and the map from aligned to photo points."""
    transform = SimilarityTransform(scale=scale, rotation=np.deg2rad(degrees), translation=shift)
    a, b, c, d, e, f = transform.inverse.params[:2].ravel()
    # From pixel centres (transform) to pixel corners (Pillow).
    inverse = (a, b, c + 0.5 - 0.5 * (a + b), d, e, f + 0.5 - 0.5 * (d + e))
    image = Image.fromarray(aligned).transform((700, 600), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    return np.asarray(image), transform


def helen_landmarks(points):
    """194 landmarks whose eye centres and mouth corners are `points` (4, 2)."""
    landmarks = np.full((194, 2), -1.0)
    circle = 3 * np.stack([np.cos(np.arange(20) * np.pi / 10), np.sin(np.arange(20) * np.pi / 10)], axis=1)
    landmarks[114:134] = points[1] + circle
    landmarks[134:154] = points[0] + circle
    landmarks[58:86] = np.linspace(points[3], points[2], 28)
    return landmarks


def test_helen_faces_are_turned_and_scaled_back(root, cache):
    aligned = picture(5)
    for number, (scale, degrees, shift) in enumerate(
        [(2.3, 12, (200, 90)), (3.4, -20, (120, 160)), (0.8, 5, (90, 70))]
    ):
        photo, transform = place(aligned, scale, degrees, shift)
        save(root / f"helen_{number}" / f"photo{number}.png", photo)
        landmarks = helen_landmarks(transform(CANONICAL))
        lines = [f"photo{number}"] + [f"{x:.4f} , {y:.4f}" for x, y in landmarks]
        (root / "annotation").mkdir(exist_ok=True)
        (root / "annotation" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    save(root / "helen_0" / "stray.png", aligned)
    faces = read_faces(str(root), size=128, cache=cache)
    assert faces.files == ("helen_0/photo0.png", "helen_1/photo1.png", "helen_2/photo2.png")
    assert faces.skipped == ("helen_0/stray.png: no file of annotation/ names this image",)
    inner = np.s_[:, 4:-4, 4:-4]  # beyond the face, the photos are black
    error = np.abs(faces.images[inner].astype(float) - aligned[inner[1:]])
    assert error.max() <= 4
    assert error.mean() < 1.1  # a shift of 0.3 pixel makes it 1.7


@pytest.mark.parametrize("folder", ["04000/talking", "expression/04000"])
def test_pie_subjects_are_identities_and_whole_frames_are_refused(root, cache, folder):
    save(root / folder / "27_01.ppm", picture(1))
    save(root / folder / "27_02.ppm", picture(2, 640, 486))
    save(root / "expression" / "04002" / "27_01.ppm", picture(3))
    faces = read_faces(str(root), size=64, cache=cache)
    assert sorted(faces.identities) == ["pie/04000", "pie/04002"]
    assert [text.split(": ")[1] for text in faces.skipped] == ["a whole 640x486 CMU PIE frame; cut the face out first"]


def test_crops_are_kept_or_centre_cropped_and_resized(root, cache):
    exact, wide = picture(1), picture(2, 256, 128).copy()
    wide[:, :64] = wide[:, 192:] = 0
    save(root / "a.png", exact)
    save(root / "b.png", wide)
    faces = read_faces(str(root), size=128, cache=cache)
    np.testing.assert_array_equal(faces.images[0], exact)
    np.testing.assert_array_equal(faces.images[1], wide[:, 64:192])
    assert faces.identities is None


def test_folders_of_crops_are_identities(root, cache):
    for number, person in enumerate(["ann", "ann", "bob"]):
        save(root / person / f"{number}.jpg", picture(number))
    (root / "manifest.csv").write_text("not,an,image\n")
    faces = read_faces(str(root), size=64, cache=cache)
    assert faces.identities == ("ann", "ann", "bob")
    assert faces.skipped == ()


def test_one_folder_or_mixed_depths_are_no_identities(root, cache):
    save(root / "all" / "1.png", picture(1))
    assert read_faces(str(root), size=64, cache=cache).identities is None
    save(root / "2.png", picture(2))
    save(root / "more" / "3.png", picture(3))
    assert read_faces(str(root), size=64, cache=cache).identities is None


def test_sizes_below_128_are_averaged(root, cache):
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[::2] = 200
    save(root / "a.png", stripes)
    faces = read_faces(str(root), size=64, cache=cache)
    assert faces.images.shape == (1, 64, 64, 3)
    assert np.abs(faces.images[0, 8:-8].astype(int) - 100).max() <= 2


@pytest.mark.parametrize("size", [0, 7, 129])
def test_impossible_sizes(root, cache, size):
    with pytest.raises(ValueError, match=f"between 8 and 128.*not {size}"):
        read_faces(str(root), size=size, cache=cache)


def test_bad_images_are_named_and_left_out(root, cache):
    save(root / "good.jpg", picture(1), quality=95)
    content = (root / "good.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.png").write_text("hello")
    save(root / "orientation.png", picture(4), exif=b"Exif\0\0neither big nor little")
    save(root / "deep.png", np.full((128, 128), 60_000, np.uint16))
    save(root / "grey.png", picture(2)[..., 0])
    save(root / "alpha.png", np.dstack([picture(3), np.full((128, 128), 255, np.uint8)]))
    faces = read_faces(str(root), size=128, cache=cache)
    assert faces.files == ("alpha.png", "good.jpg", "grey.png")
    np.testing.assert_array_equal(faces.images[2], picture(2)[..., [0, 0, 0]])
    reasons = dict(text.split(": ", 1) for text in faces.skipped)
    assert list(reasons) == ["deep.png", "empty.png", "orientation.png", "text.png", "truncated.jpg"]
    assert "truncated" in reasons["truncated.jpg"]
    assert "8 bits" in reasons["deep.png"]
    assert "\n" not in "".join(faces.skipped)
    again = read_faces(str(root), size=128, cache=cache)
    assert again.skipped == faces.skipped
    assert open_faces(faces.digest, cache=cache).skipped == ()


def test_nothing_readable(root, cache):
    with pytest.raises(FileNotFoundError, match=r"no folder of faces at .*faces.*celeba-sample"):
        read_faces(str(root), size=64, cache=cache)
    root.mkdir()
    with pytest.raises(ValueError, match=r"no image in .*\.jpg"):
        read_faces(str(root), size=64, cache=cache)
    (root / "a.png").write_text("hello")
    with pytest.raises(ValueError, match=r"none of the 1 images in .* can be read; a\.png: cannot identify"):
        read_faces(str(root), size=64, cache=cache)


def test_a_phone_photo_is_turned_upright(root, cache):
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    save(root / "a.png", picture(1)[::-1, ::-1], exif=exif)
    np.testing.assert_array_equal(read_faces(str(root), size=128, cache=cache).images[0], picture(1))


def test_an_unchanged_folder_is_not_read_again_and_a_changed_one_is(root, cache):
    save(root / "a.png", picture(1))
    first = read_faces(str(root), size=64, cache=cache)
    written = sorted((path.name, path.stat().st_mtime_ns) for path in (cache / "faces").iterdir())
    assert read_faces(str(root), size=64, cache=cache).digest == first.digest
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (cache / "faces").iterdir()) == written
    save(root / "b.png", picture(2))
    assert len(read_faces(str(root), size=64, cache=cache)) == 2
    for path in (cache / "faces").glob("*.arrow"):
        path.unlink()
    assert len(read_faces(str(root), size=64, cache=cache)) == 2


def test_the_digest_is_of_the_content(root, cache, tmp_path):
    for number in range(3):
        save(root / f"{number}.png", picture(number))
    faces = read_faces(str(root), size=64, cache=cache)
    shutil.copytree(root, tmp_path / "copy")
    for number in range(3):
        (tmp_path / "copy" / f"{number}.png").rename(tmp_path / "copy" / f"face{number}.png")
    assert read_faces(str(tmp_path / "copy"), size=64, cache=cache).digest == faces.digest
    others = [
        read_faces(str(root), size=32, cache=cache),
        face_set(name="", images=np.array(faces.images), identities=["a", "b", "c"]),
        face_set(name="", images=np.array(faces.images), identities=["ab", "", "c"]),
        faces.take([0, 2, 1], name=""),
        faces.take([0, 1], name=""),
    ]
    assert len({faces.digest, *(other.digest for other in others)}) == 6


def test_the_stored_set_is_one_read_only_map(root, cache):
    for number in range(5):
        save(root / "ab"[number % 2] / f"{number}.png", picture(number))
    faces = read_faces(str(root), size=64, cache=cache)
    path = cache / "faces" / f"{faces.digest}.arrow"
    assert pa.ipc.open_file(path).schema.metadata[b"digest"] == faces.digest.encode()
    assert not faces.images.flags.writeable
    assert not faces.images.flags.owndata
    before = pa.total_allocated_bytes()
    opened = [open_faces(faces.digest, cache=cache) for _ in range(20)]
    assert pa.total_allocated_bytes() - before < faces.images.nbytes  # twenty copies would be twenty times as much
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert path.name in mapped.read_text()
    np.testing.assert_array_equal(opened[0].images, faces.images)
    assert opened[0].identities == faces.identities
    assert opened[0].files == faces.files


def test_take_and_store(cache):
    images = np.stack([picture(seed, 16, 16) for seed in range(4)])
    faces = face_set(name="all", images=images, identities=list("abca"), licence="free")
    part = store_faces(faces.take([3, 1], name="part"), cache=cache)
    np.testing.assert_array_equal(part.images, images[[3, 1]])
    assert (part.name, part.identities, part.files, part.licence) == ("part", ("a", "b"), ("3", "1"), "free")
    with pytest.raises(FileNotFoundError, match="no prepared faces"):
        open_faces("0" * 16, cache=cache)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the development faces")
def test_development_faces(cache):
    faces = read_faces(str(SHARED / "celeba_id"), size=64, cache=cache)
    assert (len(faces), len(set(faces.identities)), faces.skipped) == (1808, 208, ())

import numpy as np
import pytest
from PIL import Image

from datasets.faces import face_set, read_faces
from datasets.splits import split_faces, without_overlap


def faces_of(identities, *, first=0, name="faces"):
    """One distinct 8x8 image per identity given; image i is filled with noise of seed first + i."""
    images = [
        np.random.default_rng(first + i).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in range(len(identities))
    ]
    known = None if identities[0] is None else identities
    return face_set(
        name=name,
        images=np.stack(images),
        identities=known,
        files=[str(first + i) for i in range(len(identities))],
    )


PEOPLE = faces_of([f"p{i % 30}" for i in range(150)])
UNKNOWN = faces_of([None] * 60)


@pytest.mark.parametrize("faces", [PEOPLE, UNKNOWN], ids=["people", "unknown"])
@pytest.mark.parametrize("seed", range(5))
def test_parts_have_their_counts_and_share_nothing(faces, seed):
    parts = split_faces(faces, counts={"validation": 7, "test": 13}, seed=seed)
    assert {name: len(part) for name, part in parts.items() if name != "train"} == {
        "validation": 7,
        "test": 13,
    }
    files = [set(part.files) for part in parts.values()]
    assert sum(map(len, files)) == len(set.union(*files))
    if faces.identities is None:
        assert len(set.union(*files)) == len(faces)
    else:
        people = [set(part.identities) for part in parts.values()]
        assert sum(map(len, people)) == len(set.union(*people)) == 30
        # 7 = 5 + 2 and 13 = 5 + 5 + 3: three and two faces of a divided person are in no part.
        assert len(faces) - len(set.union(*files)) == 3 + 2


def test_a_split_is_the_same_whatever_the_order_of_the_files():
    shuffled = PEOPLE.take(np.random.default_rng(0).permutation(150), name="other")
    here = split_faces(PEOPLE, counts={"test": 12}, seed=3)
    there = split_faces(shuffled, counts={"test": 12}, seed=3)
    assert [part.digest for part in here.values()] == [part.digest for part in there.values()]


def test_the_seed_decides():
    digests = {split_faces(PEOPLE, counts={"test": 12}, seed=seed)["test"].digest for seed in range(4)}
    assert len(digests) == 4


def test_a_later_part_does_not_change_an_earlier_one():
    alone = split_faces(PEOPLE, counts={"validation": 7}, seed=1)["validation"]
    assert split_faces(PEOPLE, counts={"validation": 7, "test": 40}, seed=1)["validation"].digest == alone.digest


def test_copies_of_a_picture_stay_together():
    twice = UNKNOWN.take([*range(60), *range(60)], name="twice")
    parts = split_faces(twice, counts={"test": 20})
    pixels = [{image.tobytes() for image in part.images} for part in parts.values()]
    assert not pixels[0] & pixels[1]


def test_every_face_can_be_held_out():
    parts = split_faces(UNKNOWN, counts={"test": 60})
    assert (len(parts["test"]), len(parts["train"])) == (60, 0)


def test_too_few_faces_are_counted_in_the_error():
    with pytest.raises(ValueError, match=r"60 faces of 60 people.*too few to hold out \{'a': 50, 'b': 11\}"):
        split_faces(UNKNOWN, counts={"a": 50, "b": 11})


@pytest.mark.parametrize("counts", [{"test": 0}, {"train": 5}])
def test_impossible_parts(counts):
    with pytest.raises(ValueError, match=r"counts of at least 1 and names other than 'train', not"):
        split_faces(UNKNOWN, counts=counts)


def test_training_faces_seen_in_a_test_set_are_dropped():
    test = UNKNOWN.take([4, 9], name="test")
    train, dropped = without_overlap(UNKNOWN, [test, faces_of([None] * 3, first=1000)])
    assert dropped == 2
    assert train.files == tuple(str(i) for i in range(60) if i not in (4, 9))


def test_people_seen_in_a_test_set_are_dropped_where_their_names_mean_the_same_everywhere():
    celeba = faces_of([f"celeba/{i % 30}" for i in range(150)])
    train, dropped = without_overlap(celeba, [faces_of(["celeba/3", "celeba/99"], first=500)])
    assert dropped == 5
    assert "celeba/3" not in train.identities
    for other in ("pie/3", "3", None):
        assert without_overlap(celeba, [faces_of([other] * 2, first=500)]) == (celeba, 0)
    assert without_overlap(UNKNOWN, [faces_of(["celeba/3"], first=700)]) == (UNKNOWN, 0)


def test_equal_subfolder_names_of_two_folders_are_not_the_same_people(tmp_path):
    sets = []
    for number, folder in enumerate(("here", "there")):
        noise = faces_of(["001", "001", "002"], first=10 * number)
        for index, (image, person) in enumerate(zip(noise.images, noise.identities, strict=True)):
            path = tmp_path / folder / person / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((128, 128)).save(path)
        sets.append(read_faces(str(tmp_path / folder), size=64, cache=tmp_path / "cache"))
    here, there = sets
    assert here.identities == there.identities == ("001", "001", "002")
    assert without_overlap(here, [there]) == (here, 0)
    assert without_overlap(here, [there, here.take([1], name="one")])[1] == 1  # its pixels

"""From the names and folders a user gives to data by digest: what is trained on, what is tested on."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import assets
from datasets.digests import images_digest
from datasets.faces import SOURCES, FaceSet, read_faces, store_faces
from datasets.kernels import KernelSet, load_kernels
from datasets.layouts import detect
from datasets.splits import split_faces, without_overlap
from sweeps.deblurring.config import DataConfig, DeblurTest, TrainingData
from sweeps.deblurring.protocol import PROTOCOL, VALIDATION_IMAGES
from sweeps.estimate import ImageCounts
from sweeps.naming import got
from sweeps.stages import digest

CELEBA_SAMPLE = "celeba-sample"
DEFAULT_TEST = "CelebA"
TRAINING_KERNELS, VALIDATION_KERNELS, TEST_KERNELS = 1, 2, 3
"""Seeds of the three sets of kernels."""
VALIDATION_KERNELS_PER_SIZE = 10
TEST_NOISE = 4
"""Seed of the test images' noise."""


@dataclass(frozen=True, kw_only=True)
class DeblurData:
    """Prepared data. `names` maps a role ("train celeba-sample") to a digest; `notes` are for captions and people, as
    are `licences`, the terms of the faces."""

    training: TrainingData
    tests: tuple[DeblurTest, ...]
    names: dict[str, str]
    notes: tuple[str, ...]
    licences: tuple[str, ...] = ()


def files_of(data: DeblurData, backbone: str | None, cache: Path) -> dict[str, Path]:
    """The files below `cache` that training and evaluation read, by their path below it."""
    training = data.training
    faces = {training.faces, training.validation_faces, *(test.faces for test in data.tests)}
    kernels = {training.kernels, training.validation_kernels, *(test.kernels for test in data.tests)}
    paths = [
        *(cache / "faces" / f"{digest}.arrow" for digest in sorted(faces)),
        *(path for digest in sorted(kernels) for path in sorted((cache / "kernels" / digest).iterdir())),
        *([assets.fetch(backbone, cache)] if backbone else []),
    ]
    return {str(path.relative_to(cache)): path for path in paths}


def planned_data(config: DataConfig, tests: Mapping[str, str]) -> DeblurData:
    """Stands for data that were not looked at: for a plan, which writes nothing."""
    training = TrainingData(faces="", validation_faces="", kernels="", validation_kernels="", noise=config.noise)
    planned = tuple(
        DeblurTest(name=name, faces="", kernels="", noise=config.noise, seed=TEST_NOISE, fingerprint="")
        for name in tests or {DEFAULT_TEST: ""}
    )
    return DeblurData(training=training, tests=planned, names={}, notes=())


def image_counts(config: DataConfig, *, tests: int, validate_every: int) -> ImageCounts:
    """What a stage restores to be validated and evaluated, with `tests` full test sets; small folders have fewer."""
    per_test = config.test_faces * len(config.kernel_sizes) * config.test_kernels_per_size
    return ImageCounts(validate_every=validate_every, validation_images=VALIDATION_IMAGES, test_images=tests * per_test)


def check_sources(train: str, tests: Mapping[str, str]) -> None:
    """Refuse what can be seen to be wrong without reading an image.

    Raises:
        ValueError: a name that can't be a column's.
        FileNotFoundError: a folder that does not exist.
    """
    for name in tests:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}", name):
            raise ValueError(
                f"a test set's name must be 1 to 40 letters, digits, spaces, '_' or '-', got {name[:60]!r}"
            )
    for option, source in [("--train-faces", train), *(("--test-faces", each) for each in tests.values())]:
        if source not in SOURCES and not (source and os.path.isdir(os.path.expanduser(source))):
            raise FileNotFoundError(f"{option} must be a folder or one of {', '.join(SOURCES)}; {got(source, SOURCES)}")


def count_faces(config: DataConfig, train: str, tests: Mapping[str, str]) -> dict[str, int]:
    """Number of image files in each folder that is named; registered names are not counted.

    Raises:
        ValueError: none in one of them, too few to train on, or a folder that is not laid out as it seems to be.
    """
    folders = [source for source in dict.fromkeys([train, *tests.values()]) if source not in SOURCES]
    counts = {folder: len(detect(Path(folder).expanduser())[1]) for folder in folders}
    for folder, count in counts.items():
        if not count:
            raise ValueError(f"a folder of faces must hold images, got none in {folder}")
    if train in counts:
        _require_enough(config, train, counts[train])
    return counts


def _require_enough(config: DataConfig, train: str, count: int) -> None:
    """Refuse a folder of training faces that leaves none to train on.

    Raises:
        ValueError: too few.
    """
    held_out = config.validation_faces + config.test_faces
    if count <= held_out:
        raise ValueError(
            f"--train-faces must hold more than the {held_out} faces that are held out "
            f"(--set data.test_faces and data.validation_faces change that), got {count}: {train}"
        )


def prepare_data(
    config: DataConfig, *, train: str, tests: Mapping[str, str], cache: Path, tell: Callable[[str], None]
) -> DeblurData:
    """Read, split and store faces and kernels.

    Args:
        config: sizes and counts.
        train: a registered name or a folder of faces.
        tests: column name -> folder or registered name; empty: faces held out of the CelebA sample.
        cache: prepared sets are kept here.
        tell: called with a line for each thing a person should know (skipped images, dropped faces).

    Raises:
        ValueError: a source without readable faces, or with too few.
        OSError: a folder that does not exist, an asset that can't be had.
    """
    train = _one_spelling(train)
    columns = {name: _one_spelling(source) for name, source in (tests or {DEFAULT_TEST: CELEBA_SAMPLE}).items()}
    sources = {train, *columns.values()}
    sets = {source: _read(source, config.image_size, cache, tell) for source in sorted(sources)}
    _require_enough(config, train, len(sets[train]))
    # The test part is held out even where no column shows it: a column added later must not change the training.
    parts = split_faces(sets[train], counts={"validation": config.validation_faces, "test": config.test_faces})
    test_faces = {
        name: parts["test"] if source == train else _choose(sets[source], config.test_faces)
        for name, source in columns.items()
    }
    parts["train"], dropped = without_overlap(parts["train"], [*test_faces.values(), parts["validation"]])
    if dropped:
        tell(f"{dropped} training faces also stand in a test set: left out of training")
    if not len(parts["train"]):
        raise ValueError(f"--train-faces must hold faces that stand in no test set, got none: {train}")
    return _by_digest(config, sets, train, parts, test_faces, cache)


def _by_digest(
    config: DataConfig,
    sets: Mapping[str, FaceSet],
    train: str,
    parts: Mapping[str, FaceSet],
    test_faces: Mapping[str, FaceSet],
    cache: Path,
) -> DeblurData:
    faces = {name: store_faces(part, cache=cache) for name, part in parts.items()}
    kernels = {
        seed: load_kernels(sizes=config.kernel_sizes, per_size=per_size, seed=seed, cache=cache)
        for seed, per_size in (
            (TRAINING_KERNELS, config.kernels_per_size),
            (VALIDATION_KERNELS, VALIDATION_KERNELS_PER_SIZE),
            (TEST_KERNELS, config.test_kernels_per_size),
        )
    }
    training = TrainingData(
        faces=faces["train"].digest,
        validation_faces=faces["validation"].digest,
        kernels=kernels[TRAINING_KERNELS].digest,
        validation_kernels=kernels[VALIDATION_KERNELS].digest,
        noise=config.noise,
    )
    tests = tuple(
        _test(name, store_faces(each, cache=cache), kernels[TEST_KERNELS], config.noise)
        for name, each in test_faces.items()
    )
    names = {
        f"train {sets[train].name}": training.faces,
        "kernels": training.kernels,
        **{f"test {test.name}": test.faces for test in tests},
    }
    counted = ", ".join(
        f"{test.name}: {len(test_faces[test.name].images)} faces × {len(kernels[TEST_KERNELS].kernels)} kernels"
        for test in tests
    )
    note = f"Trained on {len(faces['train'].images)} faces of {sets[train].name}. Test images: {counted}."
    licences = tuple(sorted({face_set.licence for face_set in sets.values() if face_set.licence}))
    return DeblurData(training=training, tests=tests, names=names, notes=(note,), licences=licences)


def _one_spelling(source: str) -> str:
    """A folder's real path, so that two spellings of one folder are one set."""
    return source if source in SOURCES else str(Path(source).expanduser().resolve())


def _read(source: str, size: int, cache: Path, tell: Callable[[str], None]) -> FaceSet:
    faces = read_faces(source, size=size, cache=cache)
    if faces.skipped:
        tell(f"{source}: {len(faces.skipped)} of {len(faces.skipped) + len(faces.images)} images skipped")
        for line in faces.skipped:
            tell(f"  {line}")
    return faces


def _choose(faces: FaceSet, count: int) -> FaceSet:
    """At most `count` faces of a set that is only tested on."""
    return faces if len(faces.images) <= count else split_faces(faces, counts={"test": count})["test"]


def _test(name: str, faces: FaceSet, kernels: KernelSet, noise: float) -> DeblurTest:
    images = images_digest(faces, kernels, noise=noise, seed=TEST_NOISE)
    return DeblurTest(
        name=name,
        faces=faces.digest,
        kernels=kernels.digest,
        noise=noise,
        seed=TEST_NOISE,
        fingerprint=digest({"images": images, **PROTOCOL}),
    )

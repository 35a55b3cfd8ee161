"""Layouts: how a folder of faces is laid out on disk, and how its photos become aligned faces."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from datasets.alignment import ALIGNED, face_points, warp
from datasets.assets import CELEBA_LICENCE
from datasets.photos import SUFFIXES, as_text, decode_photo

CELEBA_SIZE = (178, 218)
CELEBA_CUT = (26, 71, 154, 199)
PIE_FRAME = (640, 486)
HELEN_POINTS = 194


@dataclass(frozen=True, kw_only=True)
class Photo:
    """An image file: `file` is its path within the folder, `annotation` the file of its landmarks."""

    path: Path
    file: str
    identity: str | None = None
    annotation: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`find` lists a folder's photos, or returns None for another layout; `align` reads a photo, 128x128.

    An identity that means the same person in every folder has a slash ("celeba/2880"); the name of a subfolder
    has none. `align` raises ValueError for a photo that can't be read or doesn't fit the layout.
    """

    find: Callable[[Path], list[Photo] | None]
    align: Callable[[Photo], Image.Image]
    licence: str


def _each_under(root: Path) -> Iterator[Photo]:
    for path in root.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield Photo(path=path, file=as_text(path.relative_to(root)))


def _photos_under(root: Path) -> list[Photo]:
    return sorted(_each_under(root), key=_file)


def _file(photo: Photo) -> str:
    return photo.file


def _find_celeba(root: Path) -> list[Photo] | None:
    root = root.parent if root.name == "img_align_celeba" else root
    if not (root / "img_align_celeba").is_dir():
        return None
    photos = _photos_under(root / "img_align_celeba")
    table = root / "identity_CelebA.txt"
    if not table.is_file():
        return photos
    lines = [line.split() for line in table.read_text().splitlines() if line.strip()]
    identities = {line[0]: line[-1] for line in lines}
    missing = [photo.file for photo in photos if photo.file not in identities]
    if missing:
        raise ValueError(
            f"{table} must name the identity of every image of img_align_celeba: {len(missing)} are missing, "
            f"the first is {missing[0]}"
        )
    return [replace(photo, identity=f"celeba/{identities[photo.file]}") for photo in photos]


def _align_celeba(photo: Photo) -> Image.Image:
    image = decode_photo(photo.path, upright=False)
    if image.size != CELEBA_SIZE:
        raise ValueError(f"an aligned CelebA image is 178x218, this one is {image.width}x{image.height}")
    return image.crop(CELEBA_CUT)


def _find_helen(root: Path) -> list[Photo] | None:
    annotations = sorted((root / "annotation").glob("*.txt"))
    if not annotations:
        return None
    by_stem = {}
    for path in annotations:
        with path.open() as file:
            by_stem[file.readline().strip()] = path
    return [replace(photo, annotation=by_stem.get(photo.path.stem)) for photo in _photos_under(root)]


def _align_helen(photo: Photo) -> Image.Image:
    if photo.annotation is None:
        raise ValueError("no file of annotation/ names this image")
    lines = photo.annotation.read_text().splitlines()[1:]
    points = np.array([line.split(",") for line in lines if line.strip()], dtype=np.float64)
    if points.shape != (HELEN_POINTS, 2):
        raise ValueError(f"a Helen annotation has 194 points, {photo.annotation.name} has {len(points)}")
    # Its landmarks are on the pixels as they are stored.
    image = decode_photo(photo.path, upright=False)
    if not (np.abs(points) <= 2 * max(image.size)).all():
        raise ValueError(f"{photo.annotation.name} has landmarks far outside the image, or that are no numbers")
    return warp(image, face_points(points))


def _find_pie(root: Path) -> list[Photo] | None:
    photos = []
    for photo in _each_under(root):
        subject = _pie_subject(photo)
        if subject is None:  # another layout's first file ends this
            return None
        photos.append(replace(photo, identity=f"pie/{subject}"))
    return sorted(photos, key=_file) or None


def _pie_subject(photo: Photo) -> str | None:
    return next((part for part in Path(photo.file).parts[:-1] if re.fullmatch(r"04\d{3}", part)), None)


def _align_pie(photo: Photo) -> Image.Image:
    image = decode_photo(photo.path, upright=True)
    if image.size == PIE_FRAME:
        raise ValueError("a whole 640x486 CMU PIE frame; cut the face out first")
    return _centre(image)


def _find_crops(root: Path) -> list[Photo] | None:
    photos = _photos_under(root)
    folders = {photo.file.split("/")[0] for photo in photos if "/" in photo.file}
    if len(folders) < 2 or any("/" not in photo.file for photo in photos):
        return photos
    return [replace(photo, identity=photo.file.split("/")[0]) for photo in photos]


def _align_crop(photo: Photo) -> Image.Image:
    return _centre(decode_photo(photo.path, upright=True))


def _centre(image: Image.Image) -> Image.Image:
    return ImageOps.fit(image, (ALIGNED, ALIGNED), Image.Resampling.LANCZOS)


LAYOUTS = {
    "celeba": Layout(find=_find_celeba, align=_align_celeba, licence=CELEBA_LICENCE),
    "helen": Layout(
        find=_find_helen,
        align=_align_helen,
        licence="Helen's images are Flickr photos that stay their owners'; the set is for research use.",
    ),
    "pie": Layout(find=_find_pie, align=_align_pie, licence="CMU PIE is licensed by Carnegie Mellon for research use."),
    "crops": Layout(find=_find_crops, align=_align_crop, licence="The terms of the folder's owner apply."),
}


def detect(root: Path) -> tuple[str, list[Photo]]:
    """Name of the first of LAYOUTS that fits a folder, and the folder's photos, sorted.

    Raises ValueError for a CelebA folder whose table of identities lacks some of its images.
    """
    for name, layout in LAYOUTS.items():
        photos = layout.find(root)
        if photos is not None:
            return name, photos
    raise AssertionError("every folder is at least a folder of crops")

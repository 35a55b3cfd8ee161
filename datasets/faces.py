"""Aligned faces: read from a folder once, then shared by all processes as one memory-mapped file."""

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from datasets.assets import CELEBA_LICENCE, atomic, fetch

ALIGNED = 128
# Image-left eye, image-right eye, image-left and image-right mouth corner of an aligned face, in pixels of
# 128x128: the medians over the published outputs of Shen et al., made symmetric about the middle column.
CANONICAL = np.array([[43.5, 40.5], [84.5, 40.5], [46.0, 84.0], [82.0, 84.0]])
CELEBA_SIZE = (178, 218)
CELEBA_CUT = (26, 71, 154, 199)
PIE_FRAME = (640, 486)
HELEN_POINTS = 194
# Names that stand for a pinned asset in place of a folder.
SOURCES = ("celeba-sample",)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
# A new number makes every cached set be read again: it stands for how images are listed, aligned and
# resampled.
READING = 1

Images = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceSet:
    """Aligned faces.

    images: (N, S, S, 3) uint8 RGB, read-only. identities: one text per image, or None where unknown; texts of
    different datasets never agree by chance ("celeba/2880"). files: where each image came from. digest: of
    the images, identities and size, not of names and paths. skipped: one text per file that could not be
    read, with the reason.
    """

    name: str
    images: Images
    identities: tuple[str, ...] | None
    files: tuple[str, ...]
    digest: str
    licence: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64], *, name: str) -> "FaceSet":
        """The faces at `indices`, in that order, copied into memory."""
        return face_set(
            name=name,
            images=self.images[np.asarray(indices, dtype=np.int64)],
            identities=None if self.identities is None else [self.identities[i] for i in indices],
            files=[self.files[i] for i in indices],
            licence=self.licence,
        )


def face_set(
    *,
    name: str,
    images: Images,
    identities: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    licence: str = "",
) -> FaceSet:
    """A FaceSet of images (N, S, S, 3) uint8 held in memory, which become read-only."""
    images.flags.writeable = False
    identities = None if identities is None else tuple(identities)
    digest = sha256(json.dumps([images.shape, identities]).encode())
    digest.update(np.ascontiguousarray(images).data)
    return FaceSet(
        name=name,
        images=images,
        identities=identities,
        files=tuple(files) if files is not None else tuple(str(i) for i in range(len(images))),
        digest=digest.hexdigest()[:16],
        licence=licence,
    )


# Layouts: how a folder of faces is laid out on disk.


@dataclass(frozen=True, kw_only=True)
class _Photo:
    path: Path
    file: str
    identity: str | None = None
    annotation: Path | None = None


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """`find` lists a folder's photos, or returns None for another layout; `align` makes a photo 128x128."""

    find: Callable[[Path], list[_Photo] | None]
    align: Callable[[Image.Image, _Photo], Image.Image]
    licence: str


def _photos_under(root: Path) -> list[_Photo]:
    paths = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    photos = (_Photo(path=path, file=path.relative_to(root).as_posix()) for path in paths)
    return sorted(photos, key=lambda photo: photo.file)


def _find_celeba(root: Path) -> list[_Photo] | None:
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


def _align_celeba(image: Image.Image, photo: _Photo) -> Image.Image:
    if image.size != CELEBA_SIZE:
        raise ValueError(f"an aligned CelebA image is 178x218, this one is {image.width}x{image.height}")
    return image.crop(CELEBA_CUT)


def _find_helen(root: Path) -> list[_Photo] | None:
    annotations = sorted((root / "annotation").glob("*.txt"))
    if not annotations:
        return None
    by_stem = {}
    for path in annotations:
        with path.open() as file:
            by_stem[file.readline().strip()] = path
    return [replace(photo, annotation=by_stem.get(photo.path.stem)) for photo in _photos_under(root)]


def _align_helen(image: Image.Image, photo: _Photo) -> Image.Image:
    if photo.annotation is None:
        raise ValueError("no file of annotation/ names this image")
    lines = photo.annotation.read_text().splitlines()[1:]
    points = np.array([line.split(",") for line in lines if line.strip()], dtype=np.float64)
    if points.shape != (HELEN_POINTS, 2):
        raise ValueError(f"a Helen annotation has 194 points, {photo.annotation.name} has {len(points)}")
    return warp(image, face_points(points))


def _find_pie(root: Path) -> list[_Photo] | None:
    photos = []
    for photo in _photos_under(root):
        subjects = [part for part in Path(photo.file).parts[:-1] if re.fullmatch(r"04\d{3}", part)]
        if not subjects:
            return None
        photos.append(replace(photo, identity=f"pie/{subjects[0]}"))
    return photos or None


def _align_pie(image: Image.Image, photo: _Photo) -> Image.Image:
    if image.size == PIE_FRAME:
        raise ValueError("a whole 640x486 CMU PIE frame; cut the face out first")
    return _align_crop(image, photo)


def _find_crops(root: Path) -> list[_Photo] | None:
    photos = _photos_under(root)
    folders = {photo.file.split("/")[0] for photo in photos if "/" in photo.file}
    if len(folders) < 2 or any("/" not in photo.file for photo in photos):
        return photos
    return [replace(photo, identity=photo.file.split("/")[0]) for photo in photos]


def _align_crop(image: Image.Image, photo: _Photo) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    return ImageOps.fit(image, (ALIGNED, ALIGNED), Image.Resampling.LANCZOS)


LAYOUTS = {
    "celeba": _Layout(find=_find_celeba, align=_align_celeba, licence=CELEBA_LICENCE),
    "helen": _Layout(
        find=_find_helen,
        align=_align_helen,
        licence="Helen's images are Flickr photos that stay their owners'; the set is for research use.",
    ),
    "pie": _Layout(
        find=_find_pie, align=_align_pie, licence="CMU PIE is licensed by Carnegie Mellon for research use."
    ),
    "crops": _Layout(find=_find_crops, align=_align_crop, licence="The terms of the folder's owner apply."),
}


# Alignment by landmarks.


def face_points(landmarks: Points) -> Points:
    """Eye centres and mouth corners (4, 2), in CANONICAL's order, of Helen's 194 landmarks (194, 2).

    Helen's points 114-133 and 134-153 outline the eyes, 58-85 the outer lips. Left and right are the image's.
    """
    eyes = np.stack([landmarks[114:134].mean(axis=0), landmarks[134:154].mean(axis=0)])
    eyes = eyes[np.argsort(eyes[:, 0])]
    lips = landmarks[58:86]
    along = lips @ (eyes[1] - eyes[0])
    return np.concatenate([eyes, lips[[along.argmin(), along.argmax()]]])


def similarity(source: Points, target: Points) -> tuple[complex, complex]:
    """Least-squares (a, b) such that a * source + b is nearest to target, points (P, 2) taken as complex.

    a is scale and rotation, b the shift. Source: Umeyama 1991, in the plane.
    """
    z, w = source @ [1, 1j], target @ [1, 1j]
    dz, dw = z - z.mean(), w - w.mean()
    a = complex(np.vdot(dz, dw) / np.vdot(dz, dz))
    return a, complex(w.mean() - a * z.mean())


def warp(image: Image.Image, points: Points) -> Image.Image:
    """The face whose eye centres and mouth corners are `points` (4, 2), as an aligned 128x128 image.

    Sampled at the photo's own resolution and averaged down, so that large photos don't alias; what lies
    beyond the photo's border repeats the border.
    """
    # Pillow's transforms count from a pixel's corner, landmarks from its centre.
    a, b = similarity(CANONICAL + 0.5, points + 0.5)
    factor = max(1, int(np.ceil(abs(a))))
    corners = a * (ALIGNED * np.array([0, 1, 1j, 1 + 1j])) + b
    left, top = int(corners.real.min()) - 2, int(corners.imag.min()) - 2
    x = np.arange(left, int(corners.real.max()) + 3).clip(0, image.width - 1)
    y = np.arange(top, int(corners.imag.max()) + 3).clip(0, image.height - 1)
    window = Image.fromarray(np.asarray(image)[y[:, None], x])
    a, b = a / factor, b - complex(left, top)
    inverse = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
    size = (ALIGNED * factor, ALIGNED * factor)
    sampled = window.transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    return sampled.reduce(factor)


# Reading.


def read_faces(source: str, *, size: int, cache: Path, name: str | None = None) -> FaceSet:
    """Faces of a folder, or of a registered source ("celeba-sample"), aligned and resized to `size`.

    The prepared set is kept in `cache`; an unchanged folder is not decoded again. Files that can't be read
    are left out and named in `skipped`. Raises FileNotFoundError for a missing folder, ValueError if it holds
    no readable image, and AssetError where a registered source can't be fetched.
    """
    if not 8 <= size <= ALIGNED:
        raise ValueError(f"size must be between 8 and 128 (faces are aligned at 128x128), not {size}")
    root = fetch(source, cache) if source in SOURCES else Path(source).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder of faces at {source!r}: give a folder or a registered source ({', '.join(SOURCES)})"
        )
    layout, photos = _detect(root)
    if not photos:
        raise ValueError(f"no image in {source!r}: it must hold files ending in {', '.join(sorted(SUFFIXES))}")
    index = cache / "faces" / f"{_listing(layout, photos, size)}.json"
    entry = json.loads(index.read_text()) if index.exists() else None
    if entry and _arrow_path(entry["digest"], cache).exists():
        faces = open_faces(entry["digest"], cache=cache)
    else:
        faces, skipped = _read(LAYOUTS[layout], photos, size, cache)
        entry = {"digest": faces.digest, "skipped": skipped}
        with atomic(index) as path:
            path.write_text(json.dumps(entry))
    name = name or (source if source in SOURCES else root.resolve().name)
    return replace(faces, name=name, licence=LAYOUTS[layout].licence, skipped=tuple(entry["skipped"]))


def _detect(root: Path) -> tuple[str, list[_Photo]]:
    for name, layout in LAYOUTS.items():
        photos = layout.find(root)
        if photos is not None:
            return name, photos
    raise AssertionError("every folder is at least a folder of crops")


def _listing(layout: str, photos: list[_Photo], size: int) -> str:
    def stamp(path: Path) -> tuple[str, int, int]:
        stat = path.stat()
        return str(path.resolve()), stat.st_size, stat.st_mtime_ns

    files = [
        (stamp(photo.path), photo.identity, stamp(photo.annotation) if photo.annotation else None) for photo in photos
    ]
    return sha256(json.dumps([READING, layout, size, files]).encode()).hexdigest()[:16]


def _read(layout: _Layout, photos: list[_Photo], size: int, cache: Path) -> tuple[FaceSet, list[str]]:
    folder = cache / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    read: list[_Photo] = []
    skipped = []
    # On disk and not in memory: the whole of CelebA is 10 GB.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        images = np.memmap(scratch, np.uint8, "w+", shape=(len(photos), size, size, 3))
        for photo in photos:
            try:
                image = layout.align(_decode(photo.path), photo)
            except ValueError as error:
                skipped.append(f"{photo.file}: {error}")
            else:
                images[len(read)] = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
                read.append(photo)
        if not read:
            raise ValueError(f"none of {len(photos)} images can be read; {skipped[0]}")
        identities = [photo.identity for photo in read if photo.identity is not None]
        faces = face_set(
            name="",
            images=images[: len(read)],
            identities=identities or None,
            files=[photo.file for photo in read],
            licence=layout.licence,
        )
        return store_faces(faces, cache=cache), skipped


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"8 bits per channel are needed, this image is of mode {image.mode}")
            return image.convert("RGB")
    except Exception as error:  # a decoder fed with a broken file raises almost anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


# The cache.


def store_faces(faces: FaceSet, *, cache: Path) -> FaceSet:
    """Write a set to `cache`/faces/<digest>.arrow, unless it is there, and return it re-opened."""
    path = _arrow_path(faces.digest, cache)
    if not path.exists():
        count, size = len(faces), faces.images.shape[1]
        width = pa.binary(size * size * 3)
        data = pa.py_buffer(np.ascontiguousarray(faces.images))
        columns = {
            "image": pa.Array.from_buffers(width, count, [None, data]),
            "identity": pa.array(faces.identities or [None] * count, pa.string()),
            "file": pa.array(faces.files, pa.string()),
        }
        metadata = {"name": faces.name, "size": str(size), "licence": faces.licence, "digest": faces.digest}
        batch = pa.record_batch(columns, metadata=metadata)
        with (
            atomic(path) as written,
            pa.OSFile(str(written), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema) as file,
        ):
            file.write_batch(batch)
    return open_faces(faces.digest, cache=cache)


def open_faces(digest: str, *, cache: Path) -> FaceSet:
    """A stored set; its images are a read-only view on the mapped file, one copy for all processes.

    Raises FileNotFoundError if `cache` has no such set.
    """
    path = _arrow_path(digest, cache)
    if not path.exists():
        raise FileNotFoundError(f"no prepared faces at {path}: read_faces writes them")
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    metadata = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
    size = int(metadata["size"])
    images = np.frombuffer(batch.column("image").buffers()[1], np.uint8, count=batch.num_rows * size * size * 3)
    identities = batch.column("identity")
    return FaceSet(
        name=metadata["name"],
        images=images.reshape(-1, size, size, 3),
        identities=None if identities.null_count else tuple(identities.to_pylist()),
        files=tuple(batch.column("file").to_pylist()),
        digest=digest,
        licence=metadata["licence"],
    )


def _arrow_path(digest: str, cache: Path) -> Path:
    return cache / "faces" / f"{digest}.arrow"

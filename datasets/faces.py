"""Aligned faces: read from a folder once, then shared by all processes as one memory-mapped file."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from datasets.alignment import ALIGNED
from datasets.assets import atomic, fetch
from datasets.layouts import LAYOUTS, Layout, Photo, detect
from datasets.photos import SUFFIXES, as_text

# Names that stand for a pinned asset in place of a folder.
SOURCES = ("celeba-sample",)
# A new number makes every cached set be read again: it stands for how images are listed, aligned and
# resampled.
READING = 1

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceSet:
    """Aligned faces.

    images: (N, S, S, 3) uint8 RGB, read-only. identities: one text per image, or None where unknown; a text
    with a slash ("celeba/2880") is the same person in every set, one without ("001", a subfolder's name) only
    within its own set. files: where each image came from. digest: of the images, identities and size, not of
    names and paths. skipped: one text per file that could not be read, with the reason.
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
    layout, photos = detect(root)
    if not photos:
        raise ValueError(f"no image in {source!r}: it must hold files ending in {', '.join(sorted(SUFFIXES))}")
    index = cache / "faces" / f"{_listing(layout, photos, size)}.json"
    digest, skipped = _noted(index)
    if digest and _arrow_path(digest, cache).exists():
        faces = open_faces(digest, cache=cache)
    else:
        faces, skipped = _read(LAYOUTS[layout], photos, size, cache)
        with atomic(index) as path:
            path.write_text(json.dumps({"digest": faces.digest, "skipped": skipped}))
    name = name or (source if source in SOURCES else as_text(Path(root.resolve().name)))
    return replace(faces, name=name, licence=LAYOUTS[layout].licence, skipped=tuple(skipped))


def _noted(index: Path) -> tuple[str, list[str]]:
    """Digest and skipped files of an earlier reading; an empty digest where there is no whole note of one."""
    try:
        entry = json.loads(index.read_text())
        return str(entry["digest"]), [str(line) for line in entry["skipped"]]
    except Exception:  # a damaged note is as good as none: the folder is read again
        return "", []


def _listing(layout: str, photos: list[Photo], size: int) -> str:
    def stamp(path: Path) -> tuple[str, int, int]:
        stat = path.stat()
        return str(path.resolve()), stat.st_size, stat.st_mtime_ns

    files = [
        (stamp(photo.path), photo.identity, stamp(photo.annotation) if photo.annotation else None) for photo in photos
    ]
    return sha256(json.dumps([READING, layout, size, files]).encode()).hexdigest()[:16]


def _read(layout: Layout, photos: list[Photo], size: int, cache: Path) -> tuple[FaceSet, list[str]]:
    folder = cache / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    read: list[Photo] = []
    skipped = []
    # On disk and not in memory: the whole of CelebA is 10 GB.
    with tempfile.TemporaryFile(dir=folder) as scratch:
        images = np.memmap(scratch, np.uint8, "w+", shape=(len(photos), size, size, 3))
        for photo in photos:
            try:
                image = layout.align(photo)
            except ValueError as error:
                skipped.append(f"{photo.file}: {error}")
            else:
                images[len(read)] = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
                read.append(photo)
        if not read:
            folder = photos[0].path.parent
            raise ValueError(f"none of the {len(photos)} images in {folder} can be read; {skipped[0]}")
        identities = [photo.identity for photo in read if photo.identity is not None]
        faces = face_set(
            name="",
            images=images[: len(read)],
            identities=identities or None,
            files=[photo.file for photo in read],
            licence=layout.licence,
        )
        return store_faces(faces, cache=cache), skipped


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

    Raises FileNotFoundError if `cache` has no such set, ValueError if its file is damaged (pixels are not compared
    with the digest: reading all of them would take as long as many steps of training).
    """
    path = _arrow_path(digest, cache)
    if not path.exists():
        raise FileNotFoundError(f"no prepared faces at {path}: read_faces writes them")
    try:
        return _read_arrow(path, digest)
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(
            f"prepared faces must be whole: remove {path}, and they are prepared again ({error})"
        ) from error


def _read_arrow(path: Path, digest: str) -> FaceSet:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    batch.validate(full=True)  # texts with damaged offsets would be read beyond the file's end
    metadata = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
    if metadata["digest"] != digest:
        raise ValueError(f"these are the faces {metadata['digest']}")
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

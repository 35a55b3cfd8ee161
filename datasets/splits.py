"""Held-out faces: parts that share no person and no picture, whatever the order of the files."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np

from datasets.faces import FaceSet


def split_faces(faces: FaceSet, *, counts: Mapping[str, int], seed: int = 0) -> dict[str, FaceSet]:
    """Held-out parts of exactly `counts` faces each, and "train" with the rest.

    Identities (where unknown: pictures) are shuffled by `seed` and go whole to one part, in the order of
    `counts`. An identity that would overfill its part gives the part what it needs, and its other faces are
    left out of every part. Raises ValueError for a count below 1 or too few faces.
    """
    if "train" in counts or min(counts.values(), default=1) < 1:
        raise ValueError(f"parts need counts of at least 1 and names other than 'train', not {dict(counts)}")
    groups: dict[str, list[int]] = {}
    for index, pixels in sorted(enumerate(_pixel_digests(faces)), key=lambda item: item[1]):
        groups.setdefault(pixels if faces.identities is None else faces.identities[index], []).append(index)
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = iter([list(groups.values())[i] for i in order])
    parts = {}
    for name, count in counts.items():
        taken: list[int] = []
        while len(taken) < count:
            group = next(shuffled, None)
            if group is None:
                raise ValueError(
                    f"{faces.name} has {len(faces)} faces of {len(groups)} people (or distinct pictures): "
                    f"too few to hold out {dict(counts)}"
                )
            taken += group
        parts[name] = taken[:count]
    parts["train"] = [index for group in shuffled for index in group]
    return {name: faces.take(indices, name=f"{faces.name}/{name}") for name, indices in parts.items()}


def without_overlap(train: FaceSet, held_out: Sequence[FaceSet]) -> tuple[FaceSet, int]:
    """`train` without the faces whose pixels or identity are in a held-out set.

    Returns the remaining faces and how many were dropped. Only identities that mean the same in every set
    ("celeba/2880") are compared: two folders may both have a "001". Pixels are compared exactly and at the
    sets' own size: a re-compressed copy of a picture is another picture.
    """
    pixels = {digest for faces in held_out for digest in _pixel_digests(faces)}
    people = {identity for faces in held_out for identity in faces.identities or () if "/" in identity}
    identities = train.identities or (None,) * len(train)
    kept = [
        index
        for index, (digest, identity) in enumerate(zip(_pixel_digests(train), identities, strict=True))
        if digest not in pixels and identity not in people
    ]
    if len(kept) == len(train):
        return train, 0
    return train.take(kept, name=train.name), len(train) - len(kept)


def _pixel_digests(faces: FaceSet) -> list[str]:
    return [sha256(np.ascontiguousarray(image).data).hexdigest() for image in faces.images]

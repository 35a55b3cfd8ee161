"""What the fixed test images follow from: every face blurred with every kernel (`datasets.blur` makes them)."""

from hashlib import sha256

from datasets.faces import FaceSet
from datasets.kernels import KernelSet


def images_digest(faces: FaceSet, kernels: KernelSet, *, noise: float, seed: int) -> str:
    """16 hexadecimal digits of the SHA-256 of everything the images follow from."""
    content = f"{faces.digest} {kernels.digest} {noise!r} {seed}"
    return sha256(content.encode()).hexdigest()[:16]

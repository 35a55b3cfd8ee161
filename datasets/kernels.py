"""Motion-blur kernels: random camera trajectories, rasterised."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.assets import atomic

STEPS = 500
REFERENCE_STEPS = 2000
PATH_LENGTH = 60.0
# Kernels that are rasterised at once: more of them leave the cache, and take twice as long.
AT_ONCE = 64
# A new number makes every cached set be drawn again: it stands for how kernels are drawn.
DRAWING = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelSet:
    """Blur kernels.

    kernels: (N, K, K) float32, read-only, non-negative, each with sum 1, centred in the largest kernel's K x
    K box. sizes: (N,) int64, the side of each kernel's own box. digest: of the kernels and sizes.
    """

    kernels: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.int64]
    digest: str

    def __len__(self) -> int:
        return len(self.kernels)


def motion_kernels(*, sizes: Sequence[int], per_size: int, seed: int) -> KernelSet:
    """`per_size` kernels for each of the odd `sizes`, in their order; the same ones for the same seed.

    Each trajectory is scaled so that its longer side takes U(0.6, 0.95) of the kernel's size, and centred by
    its bounding box. Raises ValueError for even sizes, sizes below 3 and `per_size` below 1.
    """
    _check(sizes, per_size)
    rng = np.random.default_rng(seed)
    box = max(sizes)
    kernels = np.zeros((len(sizes), per_size, box, box), np.float32)
    for block, size in zip(kernels, sizes, strict=True):
        paths = trajectories(per_size, rng=rng).T
        extents = rng.uniform(0.6, 0.95, per_size) * size
        margin = (box - size) // 2
        inner = block[:, margin : margin + size, margin : margin + size]
        for start in range(0, per_size, AT_ONCE):
            some = slice(start, start + AT_ONCE)
            inner[some] = _rasterise(paths[:, some], extents[some], size)
    return _kernel_set(kernels.reshape(-1, box, box), np.repeat(np.asarray(sizes, np.int64), per_size))


def trajectories(count: int, *, rng: np.random.Generator, steps: int = STEPS) -> npt.NDArray[np.complex128]:
    """`count` camera trajectories in the plane, (count, steps) complex positions, each of length 60.

    A particle of constant speed that is pulled back to its start, shaken at random, and now and then jerked
    back. Source: Boracchi and Foi, "Modeling the performance of image restoration from motion blur", 2012,
    with anxiety U(0, 0.004): the published face-deblurring kernels have path/extent of about 2, the usual
    anxiety U(0, 0.1) gives 14.
    """
    speed = PATH_LENGTH / (steps - 1)
    # The model's constants are per step of 2,000; in longer steps drift and jerks grow with the step, shaking with
    # its square root, and the shape of the trajectory stays.
    stride = REFERENCE_STEPS / steps
    inertia, gauss, shake = rng.uniform(0, [[0.7], [10.0], [0.2]], (3, count))
    anxiety = rng.uniform(0, 0.004, count)
    jerking, shaking, drift = stride * shake * anxiety, stride**0.5 * gauss, stride * inertia
    velocity = speed * np.exp(2j * np.pi * rng.random(count))
    position = np.zeros(count, np.complex128)
    normal = np.empty(count, np.complex128)
    path = np.empty((steps, count), np.complex128)
    for step in range(steps):
        path[step] = position
        (jerked,) = np.nonzero(rng.random(count) < jerking)
        # All draw an angle, so that jerks do not change the draws that follow; few are jerked.
        angle = np.pi + rng.random(count)[jerked] - 0.5
        velocity[jerked] += 2 * velocity[jerked] * np.exp(1j * angle)
        normal.real, normal.imag = rng.standard_normal((2, count))
        pull = shaking * normal - drift * position
        velocity += anxiety * pull * speed
        velocity *= speed / np.abs(velocity)
        position += velocity
    return path.T


def _rasterise(
    paths: npt.NDArray[np.complex128], extents: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float64]:
    """Share of time at each pixel, (N, size, size), of `paths` (T, N) scaled to cover `extents` (N,)."""
    steps, count = paths.shape
    points = np.stack([paths.imag, paths.real])
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    # In place: fresh memory takes longer than the arithmetic.
    points -= (low + high) / 2
    # A point covers a pixel, so points that span extent - 1 cover extent pixels, and no weight falls outside
    # the box.
    points *= (extents - 1) / (high - low).max(axis=0)
    points += (size - 1) / 2
    corners = points.astype(np.int64)  # no coordinate is negative
    points -= corners
    (row, column), (dy, dx) = corners, points
    pixel = ((np.arange(count) * size + row) * size + column).ravel()
    total = np.zeros(count * size * size)
    up, left = 1 - dy, 1 - dx
    for offset, weight in ((0, up * left), (1, up * dx), (size, dy * left), (size + 1, dy * dx)):
        at_corner = np.bincount(pixel, weight.ravel(), minlength=total.size)
        total[offset:] += at_corner[: total.size - offset]
    kernels: npt.NDArray[np.float64] = total.reshape(-1, size, size) / steps
    return kernels


def load_kernels(*, sizes: Sequence[int], per_size: int, seed: int, cache: Path) -> KernelSet:
    """What `motion_kernels` draws, drawn once, kept in `cache` and mapped read-only into every process."""
    _check(sizes, per_size)
    request = sha256(json.dumps([DRAWING, list(sizes), per_size, seed]).encode()).hexdigest()[:16]
    index = cache / "kernels" / f"{request}.json"
    digest = _noted(index)
    if not digest or not _path(digest, cache).exists():
        drawn = motion_kernels(sizes=sizes, per_size=per_size, seed=seed)
        with atomic(_path(drawn.digest, cache)) as folder:
            folder.mkdir()
            np.save(folder / "kernels.npy", drawn.kernels)
            np.save(folder / "sizes.npy", drawn.sizes)
        with atomic(index) as path:
            path.write_text(json.dumps(drawn.digest))
        digest = drawn.digest
    return open_kernels(digest, cache=cache)


def _noted(index: Path) -> str:
    """The digest that an earlier drawing had; empty where there is no whole note of one."""
    try:
        return str(json.loads(index.read_text()))
    except Exception:  # a damaged note is as good as none: the kernels are drawn again
        return ""


def open_kernels(digest: str, *, cache: Path) -> KernelSet:
    """A stored set, its kernels mapped read-only.

    Raises FileNotFoundError if `cache` has no such set, ValueError if it is not what its digest says.
    """
    folder = _path(digest, cache)
    if not folder.exists():
        raise FileNotFoundError(f"no kernels at {folder}: load_kernels writes them")
    try:
        kernels = np.load(folder / "kernels.npy", mmap_mode="r")
        found = _kernel_set(kernels, np.load(folder / "sizes.npy"))
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(f"kernels must be whole: remove {folder}, and they are drawn again ({error})") from error
    shape = (len(found.sizes), max(found.sizes), max(found.sizes))
    if (found.digest, kernels.dtype, kernels.shape) != (digest, np.dtype(np.float32), shape):
        raise ValueError(f"kernels must be whole: remove {folder}, and they are drawn again")
    return found


def _path(digest: str, cache: Path) -> Path:
    return cache / "kernels" / digest


def _kernel_set(kernels: npt.NDArray[np.float32], sizes: npt.NDArray[np.int64]) -> KernelSet:
    kernels.flags.writeable = False
    digest = sha256(kernels.data)
    digest.update(sizes.data)
    return KernelSet(kernels=kernels, sizes=sizes, digest=digest.hexdigest()[:16])


def _check(sizes: Sequence[int], per_size: int) -> None:
    if not sizes or any(size < 3 or size % 2 == 0 for size in sizes):
        raise ValueError(f"kernel sizes must be odd and at least 3, not {list(sizes)}")
    if per_size < 1:
        raise ValueError(f"there must be at least 1 kernel per size, not {per_size}")

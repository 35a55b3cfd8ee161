"""What a user would write with NumPy, SciPy and scikit-image for one kernel or image; and what takes the rates.

An image is (H, W, C) or (C, H, W) as its function says, with white at 1.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal
from skimage.metrics import structural_similarity
from torch import Tensor

from benchmarks.comparison import Comparison, Way, side_by_side, timed
from datasets.kernels import PATH_LENGTH, REFERENCE_STEPS, STEPS

Floats = npt.NDArray[np.floating]
Values = Tensor | Sequence[Floats] | Sequence[float]
"""One an image, batched or in a list."""
Made = TypeVar("Made")

SIGMA, RADIUS = 1.5, 5
C1, C2 = 0.01**2, 0.03**2
SHORTEST = 0.25
"""Seconds that a timing takes at least: the first call after another library's finds its memory taken away."""


def motion_kernel(size: int, *, rng: np.random.Generator) -> Floats:
    """One kernel of `datasets.kernels.motion_kernels`, (size, size)."""
    path = trajectory(rng)
    return rasterised(path, extent=rng.uniform(0.6, 0.95) * size, size=size)


def trajectory(rng: np.random.Generator) -> npt.NDArray[np.complex128]:
    """One camera trajectory, (STEPS,) complex positions: the model of `datasets.kernels.trajectories`, step by step.

    In NumPy's numbers, as such code mostly is. In Python's own, with `cmath`, it would take .6 of the time.
    """
    speed = PATH_LENGTH / (STEPS - 1)
    stride = REFERENCE_STEPS / STEPS
    inertia, gauss, shake = rng.uniform(0, 0.7), rng.uniform(0, 10), rng.uniform(0, 0.2)
    anxiety = rng.uniform(0, 0.004)
    velocity = speed * np.exp(2j * np.pi * rng.random())
    position = 0
    path = np.empty(STEPS, np.complex128)
    for step in range(STEPS):
        path[step] = position
        jerk = 0
        if rng.random() < stride * shake * anxiety:
            jerk = 2 * velocity * np.exp(1j * (np.pi + rng.random() - 0.5))
        normal = rng.standard_normal() + 1j * rng.standard_normal()
        pull = stride**0.5 * gauss * normal - stride * inertia * position
        velocity += jerk + anxiety * pull * speed
        velocity *= speed / np.abs(velocity)
        position += velocity
    return path


def rasterised(path: npt.NDArray[np.complex128], *, extent: float, size: int) -> Floats:
    """The share of time that a path (T,), scaled to cover `extent` pixels, spends at each pixel, (size, size)."""
    points = np.stack([path.imag, path.real])
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    points = (points - (low + high) / 2) * (extent - 1) / (high - low).max() + (size - 1) / 2
    corner = np.floor(points).astype(int)
    (row, column), (dy, dx) = corner, points - corner
    kernel = np.zeros((size, size))
    np.add.at(kernel, (row, column), (1 - dy) * (1 - dx))
    np.add.at(kernel, (row, column + 1), (1 - dy) * dx)
    np.add.at(kernel, (row + 1, column), dy * (1 - dx))
    np.add.at(kernel, (row + 1, column + 1), dy * dx)
    return kernel / len(path)


def convolved(image: Floats, kernel: Floats) -> Floats:
    """An image (C, H, W) blurred channel by channel; SciPy passes over a kernel's zeros."""
    return np.stack([ndimage.convolve(channel, kernel, mode="nearest") for channel in image])


def fft_convolved(image: Floats, kernel: Floats) -> Floats:
    """The same for an odd side of the kernel, by FFT."""
    margin = len(kernel) // 2
    padded = np.pad(image, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    blurred: Floats = signal.fftconvolve(padded, kernel[None], mode="valid", axes=(1, 2))
    return blurred


def ssim2d(restored: Floats, sharp: Floats) -> float:
    """SSIM of images (H, W, C) by scikit-image, which leaves out a border of RADIUS pixels."""
    return float(
        structural_similarity(
            restored,
            sharp,
            gaussian_weights=True,
            sigma=SIGMA,
            use_sample_covariance=False,
            channel_axis=2,
            data_range=1,
        )
    )


def ssim3d(restored: Floats, sharp: Floats) -> float:
    """SSIM of images (H, W, C) as volumes, as MATLAB's `ssim` has it, over all voxels."""

    def smooth(volume: Floats) -> Floats:
        for axis in range(3):
            volume = ndimage.gaussian_filter1d(volume, SIGMA, axis=axis, radius=RADIUS, mode="nearest")
        return volume

    mean_x, mean_y = smooth(restored), smooth(sharp)
    variance_x, variance_y = smooth(restored**2) - mean_x**2, smooth(sharp**2) - mean_y**2
    covariance = smooth(restored * sharp) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return float((luminance * (2 * covariance + C2) / (variance_x + variance_y + C2)).mean())


def each(function: Callable[..., Made], pairs: Sequence[tuple[Floats, Floats]]) -> list[Made]:
    """What a function makes of each pair, one after the other."""
    return [function(*pair) for pair in pairs]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is timed and how much it makes; the least ratio of our rate to it, None where there is no limit."""

    action: Callable[[], object]
    count: int
    least: float | None = None


def compared(
    what: str, ours: Work, theirs: Mapping[str, Work], *, unit: str, repeats: int, folder: Path
) -> list[Comparison]:
    """Our rate against each of theirs, all side by side; `unit` is what is counted.

    Each is called once for warmth, and in each timing as often as takes SHORTEST seconds.
    """
    works = {"ours": ours, **theirs}
    calls = {}
    for name, work in works.items():
        work.action()
        calls[name] = math.ceil(SHORTEST / timed(work.action))

    def way(name: str) -> Way:
        return lambda _: partial(_repeat, works[name].action, calls[name])

    seconds = side_by_side({name: way(name) for name in works}, repeats=repeats, folder=folder)
    rates = {name: tuple(work.count * calls[name] / taken for taken in seconds[name]) for name, work in works.items()}
    return [
        Comparison(
            name=f"{what}, against {name}",
            ours=rates["ours"],
            theirs=rates[name],
            unit=f"{unit}/s",
            least=work.least,
        )
        for name, work in theirs.items()
    ]


def _repeat(action: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        action()


def require_equal(what: str, ours: Values, theirs: Values, *, tolerance: float) -> None:
    """
    Raises:
        AssertionError: the two ways do not the same; their rates would say nothing.
    """
    difference = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
    if not difference <= tolerance:
        raise AssertionError(f"{what}: the values must be equal to {tolerance:g}, and differ by {difference:.3g}")

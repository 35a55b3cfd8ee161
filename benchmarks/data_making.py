"""Blur kernels and blurred images, made by the batch, beside the loops over kernels and images that a user would write.

All on one core, which is what NumPy and SciPy use.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import usual_ways
from benchmarks.comparison import Comparison
from benchmarks.usual_ways import Floats, Work, compared, each, require_equal
from datasets.blur import blur
from datasets.kernels import motion_kernels

SIZES = range(13, 28, 2)
PER_SIZE, LOOPED_PER_SIZE = 2500, 40
"""Of each size, the kernels that are drawn together and those that are drawn one by one."""
IMAGES, SIDE = 64, 128
KERNELS_LEAST, BLUR_LEAST = 30.0, 10.0
"""Times the rate of the loop in NumPy, and of SciPy's convolution."""
TOLERANCE = 1e-5
"""Of a blurred image, with white at 1."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Kernels and images per second, on one core.

    Raises:
        AssertionError: SciPy's images differ from ours.
    """
    torch.set_num_threads(1)  # as NumPy's loop and SciPy have
    return [
        *_kernels(repeats=repeats, folder=folder / "kernels"),
        *_images(repeats=repeats, folder=folder / "images"),
    ]


def _kernels(*, repeats: int, folder: Path) -> list[Comparison]:
    def loop() -> list[Floats]:
        rng = np.random.default_rng(0)
        return [usual_ways.motion_kernel(size, rng=rng) for size in SIZES for _ in range(LOOPED_PER_SIZE)]

    ours = partial(motion_kernels, sizes=SIZES, per_size=PER_SIZE, seed=0)
    count = len(SIZES) * PER_SIZE
    return compared(
        f"{count:,} motion kernels",
        Work(action=ours, count=count),
        {"a loop over kernels and steps": Work(action=loop, count=len(SIZES) * LOOPED_PER_SIZE, least=KERNELS_LEAST)},
        unit="kernels",
        repeats=repeats,
        folder=folder,
    )


def _images(*, repeats: int, folder: Path) -> list[Comparison]:
    # As many of each size: SciPy's convolve passes over a kernel's zeros, and takes longer for large ones.
    kernels = motion_kernels(sizes=SIZES, per_size=IMAGES // len(SIZES), seed=0).kernels
    images = np.random.default_rng(0).random((IMAGES, 3, SIDE, SIDE), np.float32)
    pairs = list(zip(images, kernels, strict=True))
    ours = partial(blur, torch.from_numpy(images), torch.tensor(kernels))
    theirs = {
        "SciPy's convolve, one by one": Work(
            action=partial(each, usual_ways.convolved, pairs), count=IMAGES, least=BLUR_LEAST
        ),
        "SciPy's fftconvolve, one by one": Work(action=partial(each, usual_ways.fft_convolved, pairs), count=IMAGES),
    }
    for function in (usual_ways.convolved, usual_ways.fft_convolved):
        require_equal(f"blur and {function.__name__}", ours(), each(function, pairs), tolerance=TOLERANCE)
    return compared(
        f"{IMAGES} images of {SIDE}x{SIDE} blurred",
        Work(action=ours, count=IMAGES),
        theirs,
        unit="images",
        repeats=repeats,
        folder=folder,
    )

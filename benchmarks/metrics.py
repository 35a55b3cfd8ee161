"""Quality metrics of a batch, beside scikit-image and SciPy image by image, and beside kornia and torchmetrics.

On one core, which is what scikit-image and SciPy use; SSIM also on all that the process may use.

Before the clock starts, the values of each image are found equal. The libraries' SSIM differs from ours at the border
only: theirs reflects the image there, and scikit-image leaves the outermost 5 pixels, the window's radius, out of its
mean; ours repeats the border and counts every pixel. So their values are taken of images padded by 5 repeated pixels,
without the outermost 5 pixels of their map: the windows that are left, one for each pixel, are ours. The clock is on
their ordinary calls, of the images as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from benchmarks import usual_ways
from benchmarks.comparison import Comparison
from benchmarks.usual_ways import RADIUS, SIGMA, Floats, Values, Work, compared, each, require_equal
from model_zoo import quality

Metric = Callable[[Tensor, Tensor], Tensor]
Pair = tuple[Tensor, Tensor]
"""Restored and sharp images, each (B, 3, H, W) float32 in [0, 1]."""
Library = tuple[Work, Values]
"""Another way to a metric: what is timed, and values (B,) that must be ours."""

PAIRS, SIDE = 64, 128
SKIMAGE = "scikit-image, one by one"
LEAST = 5.0
"""Times the rate of scikit-image's SSIM."""
TOLERANCE = 1e-4
"""Of PSNR in dB."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Images per second of both kinds of SSIM and of PSNR.

    Raises:
        AssertionError: the values of two ways differ.
    """
    pair = image_pairs()
    ssims = _ssims(pair)
    work, values = ssims[SKIMAGE]
    limited = {SKIMAGE: (replace(work, least=LEAST), values)}
    ours = partial(quality.ssim2d, *pair)
    on_all_cores = _against("SSIM on all cores", ours, limited, repeats=repeats, folder=folder / "all cores")
    torch.set_num_threads(1)
    metrics: dict[str, tuple[Metric, dict[str, Library]]] = {
        "SSIM": (quality.ssim2d, ssims),
        "SSIM of volumes": (quality.ssim3d, _volume_ssims(pair)),
        "PSNR": (quality.psnr, _psnrs(pair)),
    }
    on_one = (
        _against(name, partial(metric, *pair), libraries, repeats=repeats, folder=folder / name)
        for name, (metric, libraries) in metrics.items()
    )
    return [*on_all_cores, *chain.from_iterable(on_one)]


def image_pairs() -> Pair:
    """Smooth random images, and what blur and noise make of them."""
    rng = np.random.default_rng(0)
    smooth = partial(ndimage.gaussian_filter, axes=(2, 3))
    sharp = smooth(rng.random((PAIRS, 3, SIDE, SIDE), np.float32), 1.5)
    sharp = (sharp - sharp.min()) / (sharp.max() - sharp.min())
    restored = smooth(sharp, 1) + rng.normal(0, 0.02, sharp.shape).astype(np.float32)
    return torch.from_numpy(restored.clip(0, 1)), torch.from_numpy(sharp)


def one_by_one(pair: Pair) -> list[tuple[Floats, Floats]]:
    """Pairs of images (H, W, 3), as scikit-image takes them."""
    restored, sharp = (images.permute(0, 2, 3, 1).contiguous().numpy() for images in pair)
    return list(zip(restored, sharp, strict=True))


def _ssims(pair: Pair) -> dict[str, Library]:
    restored, sharp = (F.pad(images, (RADIUS,) * 4, mode="replicate") for images in pair)
    kornia_ssim = partial(kornia.metrics.ssim, window_size=2 * RADIUS + 1)
    of_torchmetrics = partial(torchmetrics_ssim, sigma=SIGMA, reduction="none", data_range=1.0)
    _, similarities = of_torchmetrics(restored, sharp, return_full_image=True)
    return {
        SKIMAGE: (
            _work(partial(each, usual_ways.ssim2d, one_by_one(pair))),
            each(usual_ways.ssim2d, one_by_one((restored, sharp))),
        ),
        "kornia": (
            _work(lambda: kornia_ssim(*pair).mean(dim=(1, 2, 3))),
            kornia_ssim(restored, sharp, padding="valid").mean(dim=(1, 2, 3)),
        ),
        "torchmetrics": (
            _work(partial(of_torchmetrics, *pair)),
            similarities[..., RADIUS:-RADIUS, RADIUS:-RADIUS].mean(dim=(1, 2, 3)),
        ),
    }


def _volume_ssims(pair: Pair) -> dict[str, Library]:
    return {"SciPy's Gaussian, one by one": _same(partial(each, usual_ways.ssim3d, one_by_one(pair)))}


def _psnrs(pair: Pair) -> dict[str, Library]:
    of_skimage = partial(peak_signal_noise_ratio, data_range=1)

    def of_kornia() -> Tensor:  # of a batch it makes one value
        return torch.stack([kornia.metrics.psnr(*images, 1.0) for images in zip(*pair, strict=True)])

    return {
        SKIMAGE: _same(partial(each, of_skimage, one_by_one(pair))),
        "kornia, one by one": _same(of_kornia),
        "torchmetrics": _same(partial(torchmetrics_psnr, *pair, data_range=1.0, reduction="none", dim=(1, 2, 3))),
    }


def _work(action: Callable[[], object]) -> Work:
    return Work(action=action, count=PAIRS)


def _same(action: Callable[[], Values]) -> Library:
    """What is timed makes the very values that must be ours."""
    return _work(action), action()


def _against(
    name: str, ours: Callable[[], Tensor], libraries: Mapping[str, Library], *, repeats: int, folder: Path
) -> list[Comparison]:
    for library, (_, values) in libraries.items():
        require_equal(f"{name}, {library}", ours(), values, tolerance=TOLERANCE)
    return compared(
        f"{name} of {PAIRS} images of {SIDE}x{SIDE}",
        _work(ours),
        {library: work for library, (work, _) in libraries.items()},
        unit="images",
        repeats=repeats,
        folder=folder,
    )

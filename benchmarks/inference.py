"""Restoring images of 128x128 pixels, one by one and 64 at a time, on all cores: as `evaluate` does, and plainly."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.rates import seconds_each
from model_zoo.generator import Generator
from sweeps.presets import PRESETS

SIDE = 128
BATCHES = (1, 64)
CASES = (("quick", 1), ("quick", 64), ("paper", 1))
"""Preset whose network restores, and batch; 64 images by the paper's network take two cores half a minute."""
TIMED = 0.5


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Seconds for an image."""
    return [_compare(preset, batch, repeats) for preset, batch in CASES]


def _compare(preset: str, batch: int, repeats: int) -> Comparison:
    fast = restorer(preset, device="cpu", channels_last=True)
    plain = restorer(preset, device="cpu", channels_last=False)
    images = torch.rand(batch, 3, SIDE, SIDE)
    fast(images)
    pairs = [
        (seconds_each(lambda: fast(images), at_least=TIMED), seconds_each(lambda: plain(images), at_least=TIMED))
        for _ in range(repeats)
    ]
    return Comparison(
        name=f"{preset} preset's network: an image of {SIDE}×{SIDE} in a batch of {batch}, against NCHW and no_grad",
        ours=tuple(ours / batch for ours, _ in pairs),
        theirs=tuple(theirs / batch for _, theirs in pairs),
    )


def restorer(preset: str, *, device: str, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """An untrained network's call, in float32."""
    generator = Generator(width=PRESETS[preset]().config.generator.width).to(device).eval()
    if not channels_last:
        return torch.no_grad()(generator)
    return torch.inference_mode()(generator.to(memory_format=torch.channels_last))

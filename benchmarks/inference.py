"""Restoring images of 128x128 pixels, one by one and 64 at a time, on all cores: as an evaluation does, and plainly."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.rates import seconds_each
from sweeps.deblurring.learner import build_generator
from sweeps.presets import PRESETS

SIDE = 128
BATCHES = (1, 64)
CASES = (("quick", 1), ("quick", 64), ("paper", 1))
"""Preset whose network restores, and batch; 64 images by the paper's network take two cores half a minute."""
TIMED = 0.25
"""Seconds for which each is done again in each repeat."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Seconds for an image."""
    return [_compare(preset, batch, repeats) for preset, batch in CASES]


def _compare(preset: str, batch: int, repeats: int) -> Comparison:
    images = torch.rand(batch, 3, SIDE, SIDE)
    restorers = [restorer(preset, device="cpu", channels_last=channels_last) for channels_last in (True, False)]
    ways = [partial(restore, images) for restore in restorers]
    seconds: list[list[float]] = [[], []]
    for restore in restorers:
        restore(images[:1])  # for warmth; 64 would take seconds, and are cold in the first repeat
    for repeat in range(repeats):
        for turn in (repeat % 2, 1 - repeat % 2):
            seconds[turn].append(seconds_each(ways[turn], at_least=TIMED) / batch)
    return Comparison(
        name=f"{preset} preset's network: an image of {SIDE}×{SIDE} in a batch of {batch}, against NCHW and no_grad",
        ours=tuple(seconds[0]),
        theirs=tuple(seconds[1]),
    )


def restorer(preset: str, *, device: str, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """The call of a preset's network, untrained and in float32."""
    generator = build_generator(PRESETS[preset]().config.generator).to(device).eval()
    if not channels_last:
        return torch.no_grad()(generator)
    return torch.inference_mode()(generator.to(memory_format=torch.channels_last))

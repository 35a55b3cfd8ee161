"""Restoring images of 128x128 pixels on all cores, one by one and 64 at a time, as an evaluation does; and plainly, one
by one."""

from collections.abc import Callable, Mapping, Sequence
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
CASES: Mapping[str, Sequence[int]] = {"quick": BATCHES, "paper": BATCHES[:1]}
"""Preset whose network restores, and batches of ours; 64 images by the paper's network take two cores half a minute."""
TIMED = 0.25
"""Seconds for which each is done again in each repeat."""


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Seconds for an image."""
    return [each for preset, batches in CASES.items() for each in _compare(preset, batches, repeats)]


def _compare(preset: str, batches: Sequence[int], repeats: int) -> list[Comparison]:
    ours, plain = (restorer(preset, device="cpu", channels_last=channels_last) for channels_last in (True, False))
    images = torch.rand(max(batches), 3, SIDE, SIDE)
    ways = [(partial(plain, images[:1]), 1), *((partial(ours, images[:batch]), batch) for batch in batches)]
    seconds: list[list[float]] = [[] for _ in ways]
    for restore in (ours, plain):
        restore(images[:1])  # for warmth; 64 would take seconds, and are cold in the first repeat
    for repeat in range(repeats):
        for turn in range(len(ways))[:: -1 if repeat % 2 else 1]:
            restore, count = ways[turn]
            seconds[turn].append(seconds_each(restore, at_least=TIMED) / count)
    theirs, *of_batches = map(tuple, seconds)
    return [
        Comparison(
            name=f"{preset} preset's network: an image of {SIDE}×{SIDE} in a batch of {batch}, "
            "against NCHW and no_grad, one by one",
            ours=of_batch,
            theirs=theirs,
        )
        for batch, of_batch in zip(batches, of_batches, strict=True)
    ]


def restorer(preset: str, *, device: str, channels_last: bool) -> Callable[[Tensor], Tensor]:
    """The call of a preset's network, untrained and in float32."""
    generator = build_generator(PRESETS[preset]().config.generator).to(device).eval()
    if not channels_last:
        return torch.no_grad()(generator)
    return torch.inference_mode()(generator.to(memory_format=torch.channels_last))

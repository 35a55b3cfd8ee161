"""Floating-point operations per second: what a machine reaches at best, and what an action reaches."""

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.comparison import timed
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution

GIGA = 1e9
CONVOLUTIONS = ((8, 64, 64, 5), (8, 128, 32, 5), (4, 256, 32, 3))
"""Images, channels in and out, side, kernel: shapes at which oneDNN was near its best on one core."""
TURNS = 5
"""One slow moment must not make another the best."""
PRODUCT = 8192
"""Side of the matrices whose product is a GPU's best."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def flops(action: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products of an action, as PyTorch counts them from their
    shapes (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter:
        action()
    return counter.get_total_flops()


def step_operations(config: TrainingStage, cache: Path, *, device: str = "cpu") -> int:
    """Floating-point operations of a stage's step, with none of its convolutions by FFT: those are not counted."""
    return flops(TrainingLearner(config, seed=1, execution=Execution(device=device, fft=False), cache=cache).step)


def seconds_each(action: Callable[[], object], *, at_least: float) -> float:
    """Mean seconds of an action that is done again until they sum up to `at_least`. On a GPU it is done as often in a
    row, as in training, and waited for at the end.

    Not their median: where a processor runs at half its speed every few milliseconds, as one does whose core is shared,
    the median of short actions would leave that out and that of long ones not.
    """
    if torch.cuda.is_available():
        count = math.ceil(at_least / timed(lambda: finish(action)))
        return timed(lambda: finish(*[action] * count)) / count
    times: list[float] = []
    while sum(times) < at_least:
        times.append(timed(action))
    return fmean(times)


def finish(*actions: Callable[[], object]) -> None:
    """Do them; on a GPU, wait until all is done."""
    for action in actions:
        action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Convolution:
    """A convolution of so many images, channels in and out, and sides of images and kernel."""

    def __init__(self, count: int, channels: int, side: int, kernel: int, *, precision: str) -> None:
        self.name = f"{count}×{channels}×{side}×{side}, {kernel}×{kernel}"
        images = _random(count, channels, side, side, precision=precision)
        weight = _random(channels, channels, kernel, kernel, precision=precision)
        self._action = torch.inference_mode()(partial(F.conv2d, images, weight, padding=kernel // 2))
        self._operations = flops(self._action)

    def rate(self, *, at_least: float) -> float:
        """GFLOP/s over so many seconds, on as many cores as PyTorch has threads."""
        return self._operations / seconds_each(self._action, at_least=at_least) / GIGA


@cache
def best_convolution(precision: str) -> Convolution:
    """The fastest of CONVOLUTIONS over TURNS of .1 s each; the same for all that asks."""
    each = [Convolution(*shape, precision=precision) for shape in CONVOLUTIONS]
    rates = [[convolution.rate(at_least=0.1) for convolution in each] for _ in range(TURNS)]
    return each[max(range(len(each)), key=lambda index: fmean(turn[index] for turn in rates))]


def _random(*shape: int, precision: str) -> Tensor:
    tensor = torch.randn(shape, dtype=DTYPES[precision])
    return tensor.contiguous(memory_format=torch.channels_last)


def best_product(precision: str, *, device: str, side: int = PRODUCT) -> float:
    """GFLOP/s of the product of two large matrices."""
    left, right = torch.randn(2, side, side, device=device, dtype=DTYPES[precision])
    seconds_each(lambda: left @ right, at_least=0.2)
    return 2 * side**3 / seconds_each(lambda: left @ right, at_least=0.5) / GIGA

"""Training steps of the quick preset on one core: against the best convolution there and, those of content, against
plain PyTorch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.made_up import config_of, made_up_stages
from benchmarks.rates import GIGA, best_convolution, seconds_each, step_operations
from benchmarks.usual_ways import convolved
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.resources import this_machine
from sweeps.stages import Stage

N = TypeVar("N", bound=torch.nn.Module)

OF_THE_BEST = 0.6
"""What a content step's rate must be of the best convolution's."""
OF_A_STEP = 0.05
"""What making the batch may take of a content step."""
FACES = 849
"""To draw batches from, as many as the default's."""
TIMED = 0.25
"""Seconds for which each action is done again in each repeat."""
ROUNDS = 3
"""Of a content step and the best convolution, in turns, in each repeat: the machine's rate changes within a second."""

PLAIN = Execution(fused=False, fft=False)


class PlainLearner(TrainingLearner):
    """The same training in the default layout, with images that SciPy blurs one by one."""

    def _place(self, network: N) -> N:
        return network.to(self._device)

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        count, faces, kernels = self._config.batch_size, self._faces.numpy(), self._kernels.numpy()
        rng = np.random.default_rng()
        sharp = faces[rng.integers(len(faces), size=count)].transpose(0, 3, 1, 2).astype(np.float32) / 255
        chosen = kernels[rng.integers(len(kernels), size=count)]
        blurred = np.stack([convolved(image, kernel) for image, kernel in zip(sharp, chosen, strict=True)])
        blurred += self._config.data.noise * rng.standard_normal(blurred.shape, np.float32)
        return torch.from_numpy(blurred), torch.from_numpy(sharp)


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Rates and shares of making the batch, for each kind of stage, and seconds of those of content.

    Each repeat measures all of them: a slow moment of the machine is in one repeat of each, and not in all of one.
    Where sweeps train in bfloat16, steps of content are measured in float32 too.
    """
    torch.set_num_threads(1)
    stages = made_up_stages(quick().config, folder, faces=FACES, device="cpu", machine=this_machine())
    measurements = [Measurement(name, config, folder) for name, config in steps_of(stages).items()]
    for _ in range(repeats):
        for each in measurements:
            each.repeat()
    return [comparison for each in measurements for comparison in each.comparisons()]


def steps_of(stages: Sequence[Stage]) -> dict[str, TrainingStage]:
    """The configs whose steps are measured, by name: the stages', and those of content in float32 too."""
    found: dict[str, TrainingStage] = {}
    for stage in stages:
        config = found[stage.name] = config_of(stage)
        if _of_content(stage.name) and config.precision != "float32":
            found[stage.name.replace("content", "float32 content")] = replace(config, precision="float32")
    return found


def _of_content(name: str) -> bool:
    return "content" in name


class Measurement:
    """A kind of stage: what each repeat found of its step, and of the best convolution around it."""

    def __init__(self, name: str, config: TrainingStage, cache: Path) -> None:
        self._name, self._content = name, _of_content(name)
        self._precision = config.precision
        self._ours = TrainingLearner(config, seed=1, execution=Execution(), cache=cache)
        self._ours.step()  # the first is not like the others
        self._operations = step_operations(config, cache)
        if self._content:
            plain = replace(config, precision="float32")
            self._plain = PlainLearner(plain, seed=1, execution=PLAIN, cache=cache)
            self._plain.step()
        self._best_convolution = best_convolution(config.precision)
        self._best: list[float] = []
        self._step: list[float] = []
        self._batch: list[float] = []
        self._usual: list[float] = []

    def repeat(self) -> None:
        """Measure once more."""
        best, step = [self._best_convolution.rate(at_least=TIMED / 2)], []
        for _ in range(ROUNDS if self._content else 1):
            step.append(seconds_each(self._ours.step, at_least=TIMED))
            best.append(self._best_convolution.rate(at_least=TIMED / 2))
        self._step.append(fmean(step))
        self._best.append(fmean(best))
        self._batch.append(seconds_each(self._ours.draw, at_least=TIMED / 10))
        if self._content:
            self._usual.append(seconds_each(self._plain.step, at_least=TIMED))

    def comparisons(self) -> Iterator[Comparison]:
        """Of all repeats."""
        yield Comparison(
            name=f"{self._name} step, against the best convolution",
            detail=f"{self._precision}, {self._best_convolution.name}",
            ours=tuple(self._operations / seconds / GIGA for seconds in self._step),
            theirs=tuple(self._best),
            unit="GFLOP/s",
            least=OF_THE_BEST if self._content else None,
        )
        if self._content:
            yield Comparison(
                name=f"{self._name} step, against plain PyTorch",
                detail="float32, NCHW, batch by SciPy",
                ours=tuple(self._step),
                theirs=tuple(self._usual),
            )
        yield Comparison(
            name=f"{self._name}, making the batch, against the step",
            ours=tuple(self._batch),
            theirs=tuple(self._step),
            limit=OF_A_STEP if self._content else None,
        )

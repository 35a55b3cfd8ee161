"""Training steps of the quick preset on one core: against the best convolution there, and against plain PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.made_up import config_of, made_up_stages
from benchmarks.rates import GIGA, best_convolution, flops, seconds_each
from benchmarks.usual_ways import convolved
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
    """Rates, shares of making the batch, and seconds against plain PyTorch, for each kind of stage."""
    torch.set_num_threads(1)
    stages = made_up_stages(quick().config, folder, faces=FACES, device="cpu", machine=this_machine())
    return [each for stage in stages for each in _compare(stage, repeats=repeats, cache=folder)]


def _compare(stage: Stage, *, repeats: int, cache: Path) -> Sequence[Comparison]:
    config = config_of(stage)
    ours = TrainingLearner(config, seed=1, execution=Execution(), cache=cache)
    plain_config = replace(config, precision="float32")
    plain = PlainLearner(plain_config, seed=1, execution=Execution(fused=False), cache=cache)
    operations = flops(ours.step)
    plain.step()
    best: list[float] = []
    step: list[float] = []
    batch: list[float] = []
    usual: list[float] = []
    shapes: list[str] = []
    for _ in range(repeats):
        rate, shape = best_convolution(config.precision)
        best.append(rate)
        shapes.append(shape)
        step.append(seconds_each(ours.step, at_least=TIMED))
        batch.append(seconds_each(ours.draw, at_least=TIMED / 10))
        usual.append(seconds_each(plain.step, at_least=TIMED))
    name = stage.name
    content = "content" in name
    return (
        Comparison(
            name=f"{name} step, against the best convolution",
            detail=f"{config.precision}, {' or '.join(sorted(set(shapes)))}",
            ours=tuple(operations / seconds / GIGA for seconds in step),
            theirs=tuple(best),
            unit="GFLOP/s",
            least=OF_THE_BEST if content else None,
        ),
        Comparison(
            name=f"{name}, making the batch, against the step",
            ours=tuple(batch),
            theirs=tuple(step),
            limit=OF_A_STEP if content else None,
        ),
        Comparison(
            name=f"{name} step, against plain PyTorch",
            detail="float32, NCHW, batch by SciPy",
            ours=tuple(step),
            theirs=tuple(usual),
        ),
    )

"""Training steps of the quick preset on one core: against the best convolution there, and against plain PyTorch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.rates import GIGA, best_convolution, flops, seconds_each
from benchmarks.usual_ways import convolved
from sweeps.deblurring.config import DeblurConfig, TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.resources import Machine, resolve_precision, this_machine
from sweeps.stages import Stage
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, tables

N = TypeVar("N", bound=torch.nn.Module)

OF_THE_BEST = 0.6
"""What a content step's rate must be of the best convolution's."""
OF_A_STEP = 0.05
"""What making the batch may take of a content step."""
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


def made_up_stages(config: DeblurConfig, cache: Path, *, device: str, machine: Machine) -> list[Stage]:
    """The trained stages of Tables 1 and 2 on made-up data, which are written to `cache`, in the precision that a sweep
    would choose."""
    cache.mkdir(parents=True, exist_ok=True)
    data = stand_in_data(config.data, {}, config.backbone, cache)
    precision = resolve_precision("auto", device, machine)
    study = tables(Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="", precision=precision))
    return [stage for stage in study.stages() if stage.steps]


def config_of(stage: Stage) -> TrainingStage:
    """The stage's config, which is a training stage's."""
    assert isinstance(stage.config, TrainingStage)
    return stage.config


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Rates, shares of making the batch, and seconds against plain PyTorch, for each kind of stage."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stages = made_up_stages(quick().config, folder, device="cpu", machine=this_machine())
        return [each for stage in stages for each in _compare(stage, repeats=repeats, cache=folder)]
    finally:
        torch.set_num_threads(threads)


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
    shape = max(set(shapes), key=shapes.count)
    return (
        Comparison(
            name=f"{name} step, against the best convolution ({shape}, {config.precision})",
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
            name=f"{name} step, against plain PyTorch (float32, NCHW, batch by SciPy)",
            ours=tuple(step),
            theirs=tuple(usual),
        ),
    )

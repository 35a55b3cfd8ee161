"""The paper's preset on a GPU: its steps, the schedule that they make, and images restored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.comparison import Comparison
from benchmarks.inference import BATCHES, SIDE, restorer
from benchmarks.rates import GIGA, PRODUCT, best_product, flops, seconds_each
from benchmarks.steps import config_of, made_up_stages
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import paper
from sweeps.resources import resolve_compiled, this_machine
from sweeps.stages import Stage

OF_THE_BEST = 0.5
"""What a step's rate should be of that of a large product of matrices."""
OF_A_STEP = 0.03
"""What making the batch may take of a step."""
HOURS = 1.0
"""What the schedule of the last row of Table 2, 200,000 iterations, should take at most."""
PUBLISHED = 0.02
"""Seconds to restore an image (the paper's Table 4)."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""Calls in which the processor waits for the GPU."""
PROFILED = 20
"""Steps."""
TIMED = 1.0
"""Seconds for which each action is done again in each repeat."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Of a stage: seconds of steps and of making their batches, GFLOP/s of steps and of the best product, one of each
    per repeat; and the waits in a step. Empty where there is no GPU."""

    step: tuple[float, ...] = ()
    batch: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    best: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Rates, shares, waits and hours; where there is no GPU, what would be measured."""
    stages = made_up_stages(paper().config, folder, device="cuda", machine=this_machine())
    present = torch.cuda.is_available()
    times = {stage.key: _time(stage, repeats, folder) if present else Times() for stage in stages}
    comparisons = [
        *(each for stage in stages for each in _of_stage(stage.name, times[stage.key])),
        _schedule(stages[-1], times),
        *(_restoring(batch, repeats if present else 0) for batch in BATCHES),
    ]
    return comparisons if present else [replace(each, missing="no GPU") for each in comparisons]


def _time(stage: Stage, repeats: int, cache: Path) -> Times:
    config = config_of(stage)
    execution = Execution(device="cuda", compiled=resolve_compiled(None, "cuda"))
    learner = TrainingLearner(config, seed=1, execution=execution, cache=cache)
    # Counted without the compiler, which hides the operations.
    plain = TrainingLearner(config, seed=1, execution=Execution(device="cuda"), cache=cache)
    operations = flops(plain.step)
    del plain
    for _ in range(3):
        learner.step()
    waits = float(_waits(learner)) / PROFILED
    step, batch, best = [], [], []
    for _ in range(repeats):
        best.append(best_product(config.precision))
        step.append(seconds_each(learner.step, at_least=TIMED))
        batch.append(seconds_each(learner.draw, at_least=TIMED / 10))
    del learner
    torch.cuda.empty_cache()
    rates = tuple(operations / seconds / GIGA for seconds in step)
    return Times(step=tuple(step), batch=tuple(batch), rate=rates, best=tuple(best), waits=(waits,) * repeats)


def _waits(learner: TrainingLearner) -> int:
    """How often the processor waits for the GPU in some steps, as a profile shows."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        for _ in range(PROFILED):
            learner.step()
    # The profile's own end waits once.
    counted = sum(each.count for each in profiled.key_averages() if each.key in WAITS)
    return max(0, counted - 1)


def _of_stage(name: str, times: Times) -> Sequence[Comparison]:
    return (
        Comparison(
            name=f"{name} step, against a product of {PRODUCT}×{PRODUCT} matrices",
            ours=times.rate,
            theirs=times.best,
            unit="GFLOP/s",
            least=OF_THE_BEST,
        ),
        Comparison(
            name=f"{name}, making the batch, against the step", ours=times.batch, theirs=times.step, limit=OF_A_STEP
        ),
        Comparison(
            name=f"{name}, waits for the GPU in a step, against steps",
            ours=times.waits,
            theirs=(1.0,) * len(times.waits),
            unit="waits",
            most=1 / PROFILED,
        ),
    )


def _schedule(last: Stage, times: Mapping[str, Times]) -> Comparison:
    repeats = zip(*(times[stage.key].step for stage in last.chain()), strict=True)
    hours = tuple(
        sum(stage.steps * seconds for stage, seconds in zip(last.chain(), each, strict=True)) / 3600 for each in repeats
    )
    return Comparison(
        name=f"{last.last_step:,} iterations of the published schedule, against an hour",
        ours=hours,
        theirs=(HOURS,) * len(hours),
        unit="h",
        limit=1.0,
    )


def _restoring(batch: int, repeats: int) -> Comparison:
    seconds: list[float] = []
    if repeats:
        restore, images = restorer("paper", device="cuda", channels_last=True), torch.rand(batch, 3, SIDE, SIDE).cuda()
        restore(images)
        seconds = [seconds_each(lambda: restore(images), at_least=TIMED) / batch for _ in range(repeats)]
    return Comparison(
        name=f"paper preset's network: an image of {SIDE}×{SIDE} in a batch of {batch}, against the published time",
        ours=tuple(seconds),
        theirs=(PUBLISHED,) * len(seconds),
        limit=1.0,
    )

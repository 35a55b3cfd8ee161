"""The paper's preset on a GPU: its steps, the schedule that they make, and images restored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.profiler import profile, supported_activities

from benchmarks.comparison import Comparison, in_one_line
from benchmarks.inference import BATCHES, SIDE, restorer
from benchmarks.made_up import config_of, made_up_stages
from benchmarks.rates import GIGA, PRODUCT, best_product, finish, seconds_each, step_operations
from sweeps.deblurring.config import TrainingStage
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import paper
from sweeps.resources import this_machine
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
"""NVIDIA's names of calls in which the processor waits for the GPU."""
PROFILED = 20
"""Steps."""
FACES = 6464
"""To draw batches from: the paper's."""
TIMED = 1.0
"""Seconds for which each action is done again in each repeat."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Of a stage, one of each per repeat, and none where there is no GPU: seconds of steps, of steps with compiled
    networks, of steps beside these and of making a batch; GFLOP/s of steps and of the best product; and the waits in a
    step, none where the profiler does not see one that is there. `uncompiled` says why nothing was compiled."""

    step: tuple[float, ...] = ()
    compiled: tuple[float, ...] = ()
    beside: tuple[float, ...] = ()
    uncompiled: str = ""
    batch: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    best: tuple[float, ...] = ()
    waits: tuple[float, ...] = ()


def compare(*, repeats: int, folder: Path) -> list[Comparison]:
    """Rates, shares, waits and hours; where there is no GPU, what would be measured."""
    present, machine = torch.cuda.is_available(), this_machine()
    stages = made_up_stages(paper().config, folder, faces=FACES if present else 2, device="cuda", machine=machine)
    times = {
        stage.key: time_steps(config_of(stage), device="cuda", repeats=repeats, cache=folder) if present else Times()
        for stage in stages
    }
    comparisons = [
        *(each for stage in stages for each in _of_stage(stage.name, times[stage.key])),
        _schedule(stages[-1], times),
        *(_restoring(batch, repeats if present else 0) for batch in BATCHES),
    ]
    return comparisons if present else [replace(each, missing="no GPU") for each in comparisons]


def time_steps(config: TrainingStage, *, device: str, repeats: int, cache: Path, side: int = PRODUCT) -> Times:
    """Times on a device, against products of matrices of so many rows; tests run it on a processor."""
    ways = [Execution(device=device, compiled=compiled) for compiled in (False, True)]
    eager, compiled = (TrainingLearner(config, seed=1, execution=way, cache=cache) for way in ways)
    operations = step_operations(config, cache, device=device)
    for _ in range(4):
        eager.step()
    step, batch, best, waits = [], [], [], []
    sees_waits = _waits(lambda: eager.step()["total"].item()) >= PROFILED
    for _ in range(repeats):
        best.append(best_product(config.precision, device=device, side=side))
        step.append(seconds_each(eager.step, at_least=TIMED))
        batch.append(seconds_each(eager.draw, at_least=TIMED / 10))
        if sees_waits:
            waits.append((_waits(eager.step) - _waits(lambda: None)) / PROFILED)
    fast, beside, reason = [], [], ""
    try:
        for _ in range(3):
            compiled.step()
        for _ in range(repeats):
            beside.append(seconds_each(eager.step, at_least=TIMED))
            fast.append(seconds_each(compiled.step, at_least=TIMED))
    except Exception as error:  # of a compiler that others wrote: it must not take the other rows along
        reason = in_one_line(error)
    return Times(
        step=tuple(step),
        compiled=tuple(fast),
        beside=tuple(beside),
        uncompiled=reason,
        batch=tuple(batch),
        rate=tuple(operations / seconds / GIGA for seconds in step),
        best=tuple(best),
        waits=tuple(waits),
    )


def _waits(action: Callable[[], object]) -> int:
    """How often the processor waits for the GPU while it does something some times, and while the profile ends."""
    finish()
    with profile(activities=supported_activities()) as profiled:
        for _ in range(PROFILED):
            action()
    return sum(each.count for each in profiled.key_averages() if each.key in WAITS)


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
            name=f"{name} step compiled, against not compiled",
            ours=times.compiled,
            theirs=times.beside,
            missing=times.uncompiled,
            failed=bool(times.uncompiled),
        ),
        Comparison(
            name=f"{name}, making the batch, against the step", ours=times.batch, theirs=times.step, limit=OF_A_STEP
        ),
        Comparison(
            name=f"{name}, waits for the GPU in a step, against one",
            ours=times.waits,
            theirs=(1.0,) * len(times.waits),
            unit="waits",
            most=1 / PROFILED,
            missing="" if times.waits else "the profiler does not see a wait that is there",
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

"""What stages cost on this machine: seconds from a few steps, bytes from their learners' states.

A learner's work must not depend on the content of its data, so that made-up data will do.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from sweeps.estimate import Cost, peak_bytes
from sweeps.learner import Config, Evaluation, Execution, Learner, Test
from sweeps.stages import Stage, digest

ENOUGH = 1.0
"""Seconds of timing after which an action is not timed again."""
REPEATS = 5
AFFORDABLE = 4.0
"""Seconds that a step may take to be timed at its full size."""

Clock = Callable[[], float]


def measure_all(
    stages: Sequence[Stage],
    *,
    test: Test,
    execution: Execution,
    threads: int,
    cache: Path,
    clock: Clock = time.perf_counter,
) -> dict[str, Cost]:
    """The cost of each stage, by its key, with so many threads; stages that do the same work are measured once."""
    torch.set_num_threads(threads)
    costs: dict[str, Cost] = {}
    for stage in stages:
        if (kind := _kind(stage)) not in costs:
            costs[kind] = measure(stage, test=test, execution=execution, cache=cache, clock=clock)
    if execution.device == "cuda":
        torch.cuda.empty_cache()  # trials need the memory
    return {stage.key: costs[_kind(stage)] for stage in stages}


def measure(stage: Stage, *, test: Test, execution: Execution, cache: Path, clock: Clock = time.perf_counter) -> Cost:
    """Time a few steps of a stage and one evaluation of `test`, with nothing else running on the machine.

    A smaller step is timed first (`Config.smaller`); where a full one would take more than `AFFORDABLE` seconds, its
    time is the smaller one's by the factor. On a processor core that was from a third too long (small networks and
    images) to a fifth too short (large ones).
    """
    learner = _learner(stage.config, stage, execution, cache)
    seconds_per_step = 0.0
    if stage.steps:
        smaller, factor = stage.config.smaller()
        seconds_per_step = factor * _time(_learner(smaller, stage, execution, cache).step, execution, clock)
        if factor != 1 and seconds_per_step <= AFFORDABLE:
            seconds_per_step = _time(learner.step, execution, clock)
    evaluations: list[Evaluation] = []
    seconds_per_test = _time(lambda: evaluations.append(learner.evaluate(test)), execution, clock)
    images = len(next(iter(evaluations[0].per_image.values())))
    checkpoint, kept = _sizes(learner)
    return Cost(
        seconds_per_step=seconds_per_step,
        seconds_per_image=seconds_per_test / images,
        checkpoint_bytes=checkpoint,
        kept_bytes=kept,
    )


def checkpoint_bytes(stages: Sequence[Stage], *, places: int, cache: Path) -> int:
    """The most bytes that a sweep's states take on disk while it runs, without timing anything.

    `places` is how many trials run at once; `cache` holds the data of the stages, or made-up ones.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for stage in stages:
        if (kind := _kind(stage)) not in sizes:
            sizes[kind] = _sizes(_learner(stage.config, stage, Execution(), cache))
    return peak_bytes([sizes[_kind(stage)] for stage in stages], places)


def _kind(stage: Stage) -> str:
    """Equal for stages that do the same work: a float is a weight or a rate, and counts as on or off."""

    def toggles(value: object) -> object:
        if isinstance(value, dict):
            return {name: toggles(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [toggles(each) for each in value]
        return bool(value) if isinstance(value, float) else value

    return digest([type(stage.config).__name__, toggles(asdict(stage.config)), bool(stage.steps)])


def _learner(config: Config, stage: Stage, execution: Execution, cache: Path) -> Learner:
    return config.learner(seed=stage.seed, execution=execution, cache=cache)


def _time(action: Callable[[], object], execution: Execution, clock: Clock) -> float:
    """Median seconds of an action. The first time is a warm-up, unless it takes so long that it has to do."""

    def once() -> float:
        start = clock()
        action()
        if execution.device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    if execution.device == "cuda" or execution.compiled:
        once()  # loads libraries or compiles, for seconds
    first = once()
    times: list[float] = []
    while first < ENOUGH and len(times) < REPEATS and sum(times) < ENOUGH:
        times.append(once())
    return median(times or [first])


def _sizes(learner: Learner) -> tuple[int, int]:
    """Bytes of a checkpoint, and of what the store keeps."""
    if learner.model is None:
        return 0, 0
    for part in learner.state.values():
        if isinstance(part, torch.optim.Optimizer):
            start_moments(part)
    checkpoint = _saved_bytes({name: part.state_dict() for name, part in learner.state.items()})
    return checkpoint, checkpoint + _saved_bytes(learner.model.state_dict())


def start_moments(optimiser: torch.optim.Optimizer) -> None:
    """Bring an optimiser's moments into being: they are part of a state, but there are none before the first step."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()


def _saved_bytes(state: object) -> int:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()

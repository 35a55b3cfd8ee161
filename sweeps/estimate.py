"""What a sweep will cost, before it is started: seconds from a few measured steps, bytes from its learners' states.

A learner's work must not depend on the content of its data, so that made-up data will do.
"""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from sweeps.learner import Config, Evaluation, Learner, Test
from sweeps.stages import Stage, digest
from sweeps.train import CHECKPOINTS_KEPT

ENOUGH = 1.0
"""Seconds of timing after which an action is not timed again."""
REPEATS = 5
AFFORDABLE = 4.0
"""Seconds that a step may take to be timed at its full size."""
MIB = 2**20

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage costs: time of a step and of an evaluated image, size of a checkpoint and of what the store keeps.

    The store keeps the final state and the network's weights. Curves, per-image metrics and strips are small, and not
    counted.
    """

    seconds_per_step: float
    seconds_per_image: float
    checkpoint_bytes: int
    kept_bytes: int


@dataclass(frozen=True, kw_only=True)
class ImageCounts:
    """How many images a stage restores outside its steps: at each validation, and in all test sets at its end."""

    validate_every: int
    validation_images: int
    test_images: int

    def of(self, stage: Stage) -> int:
        """All of a stage's; it validates every so many steps and at its end."""
        return math.ceil(stage.steps / self.validate_every) * self.validation_images + self.test_images


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """A stage, the seconds it takes and its cost."""

    stage: Stage
    seconds: float
    cost: Cost

    def __str__(self) -> str:
        if not self.stage.steps:
            return f"evaluated only, {duration(self.seconds)}"
        state = self.cost.checkpoint_bytes / MIB
        return f"{self.stage.steps:,} steps, {duration(self.seconds)}, state {state:,.1f} MiB"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A sweep: its stages, and the whole. Start-up of engine and trials is not counted."""

    stages: tuple[StageEstimate, ...]
    places: int

    @property
    def seconds(self) -> float:
        """From start to end: the longest chain, or all work spread over the places, whichever is longer."""
        own = {each.stage.key: each.seconds for each in self.stages}
        chains = [sum(own.get(stage.key, 0.0) for stage in each.stage.chain()) for each in self.stages]
        return max([*chains, sum(own.values()) / self.places], default=0.0)

    @property
    def kept_bytes(self) -> int:
        """What stays in the store."""
        return sum(each.cost.kept_bytes for each in self.stages)

    @property
    def peak_bytes(self) -> int:
        """The most that lies on disk while the sweep runs."""
        return _peak_bytes([(each.cost.checkpoint_bytes, each.cost.kept_bytes) for each in self.stages], self.places)


def estimate(stages: Sequence[Stage], costs: Mapping[str, Cost], images: ImageCounts, *, places: int) -> Estimate:
    """The cost of training and evaluating `stages`, of which only those that the store lacks should be given.

    Args:
        stages: parents before their children.
        costs: by stage key, from `measure_all`.
        images: what is validated and evaluated.
        places: trials that run at once without slowing each other down: on the CPU as many as are given cores of their
            own, but on GPUs the number of GPUs, since trials that share one share its speed.
    """
    return Estimate(
        stages=tuple(
            StageEstimate(stage=stage, seconds=_seconds(stage, costs[stage.key], images), cost=costs[stage.key])
            for stage in stages
        ),
        places=places,
    )


def _seconds(stage: Stage, cost: Cost, images: ImageCounts) -> float:
    return stage.steps * cost.seconds_per_step + images.of(stage) * cost.seconds_per_image


def measure_all(
    stages: Sequence[Stage],
    *,
    test: Test,
    device: torch.device,
    threads: int,
    cache: Path,
    clock: Clock = time.perf_counter,
) -> dict[str, Cost]:
    """The cost of each stage, by its key, with so many threads; stages that do the same work are measured once."""
    torch.set_num_threads(threads)
    costs: dict[str, Cost] = {}
    for stage in stages:
        if (kind := _kind(stage)) not in costs:
            costs[kind] = measure(stage, test=test, device=device, cache=cache, clock=clock)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # trials need the memory
    return {stage.key: costs[_kind(stage)] for stage in stages}


def measure(stage: Stage, *, test: Test, device: torch.device, cache: Path, clock: Clock = time.perf_counter) -> Cost:
    """Time a few steps of a stage and one evaluation of `test`, with nothing else running on the machine.

    A smaller step is timed first (`Config.smaller`); where a full one would take more than `AFFORDABLE` seconds, its
    time is the smaller one's by the factor. On a processor core that was from a third too long (small networks and
    images) to a fifth too short (large ones).
    """
    learner = _learner(stage.config, stage, device, cache)
    seconds_per_step = 0.0
    if stage.steps:
        smaller, factor = stage.config.smaller()
        seconds_per_step = factor * _time(_learner(smaller, stage, device, cache).step, device, clock)
        if factor != 1 and seconds_per_step <= AFFORDABLE:
            seconds_per_step = _time(learner.step, device, clock)
    evaluations: list[Evaluation] = []
    seconds_per_test = _time(lambda: evaluations.append(learner.evaluate(test)), device, clock)
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
            sizes[kind] = _sizes(_learner(stage.config, stage, torch.device("cpu"), cache))
    return _peak_bytes([sizes[_kind(stage)] for stage in stages], places)


def _peak_bytes(sizes: Sequence[tuple[int, int]], places: int) -> int:
    # The next checkpoint, and the final state on its way to the store, are written before an old one goes.
    running = sorted((checkpoint for checkpoint, _ in sizes), reverse=True)[:places]
    return sum(kept for _, kept in sizes) + (CHECKPOINTS_KEPT + 1) * sum(running)


def _kind(stage: Stage) -> str:
    """Equal for stages that do the same work: a float is a weight or a rate, and counts as on or off."""

    def toggles(value: object) -> object:
        if isinstance(value, dict):
            return {name: toggles(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [toggles(each) for each in value]
        return bool(value) if isinstance(value, float) else value

    return digest([type(stage.config).__name__, toggles(asdict(stage.config)), bool(stage.steps)])


def _learner(config: Config, stage: Stage, device: torch.device, cache: Path) -> Learner:
    return config.learner(seed=stage.seed, device=device, cache=cache)


def _time(action: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Median seconds of an action. The first time is a warm-up, unless it takes so long that it has to do."""

    def once() -> float:
        start = clock()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - start

    if device.type == "cuda":
        once()  # loads libraries, for seconds
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


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it: "40 s", "7 min", "5.2 h", "3.1 days"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"

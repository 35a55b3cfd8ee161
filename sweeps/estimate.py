"""What a sweep will cost, before it is started, from what each of its stages costs (`measure`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.job import CHECKPOINTS_KEPT
from sweeps.stages import Stage

MIB = 2**20


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
        return peak_bytes([(each.cost.checkpoint_bytes, each.cost.kept_bytes) for each in self.stages], self.places)


def estimate(stages: Sequence[Stage], costs: Mapping[str, Cost], images: ImageCounts, *, places: int) -> Estimate:
    """The cost of training and evaluating `stages`, of which only those that the store lacks should be given.

    Args:
        stages: parents before their children.
        costs: by stage key, from `measure.measure_all`.
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


def peak_bytes(sizes: Sequence[tuple[int, int]], places: int) -> int:
    """The most that lies on disk at once, from the bytes of each stage's checkpoint and of what the store keeps."""
    # The next checkpoint, and the final state on its way to the store, are written before an old one goes.
    running = sorted((checkpoint for checkpoint, _ in sizes), reverse=True)[:places]
    return sum(kept for _, kept in sizes) + (CHECKPOINTS_KEPT + 1) * sum(running)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it: "40 s", "7 min", "5.2 h", "3.1 days"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"

"""The study of Tables 1 and 2 whose stages do everything but train: they restore no image and take no step.

`idle` does so as fast as it can; `waiting` waits in its first step for longer than anybody looks on.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sweeps.deblurring.data import image_counts
from sweeps.learner import Config, Execution, Learner
from sweeps.stages import Stage, Study
from sweeps.studies import STUDIES, Inputs, tables

STEP = 3600.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A stage's config, the seconds of a step, and what its evaluation has: so many images of so many pixels a side."""

    of: Config
    images: int
    image_size: int
    step: float = 0.0

    def learner(self, *, seed: int, execution: Execution, cache: Path) -> Learner:
        """An `IdleLearner` around the stage's own."""
        from benchmarks.idle_learner import IdleLearner

        return IdleLearner(self, self.of.learner(seed=seed, execution=execution, cache=cache))

    def smaller(self) -> "tuple[Idle, float]":
        """There is none."""
        return self, 1

    def idle_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()


def idle_tables(inputs: Inputs, *, name: str = "idle", step: float = 0.0) -> Study:
    """The study `tables`, idle, its steps lasting so many seconds."""
    study, data = tables(inputs), inputs.config.data
    images = image_counts(data, tests=1, validate_every=1).test_images

    def idle(stage: Stage) -> Stage:
        config = Idle(of=stage.config, images=images, image_size=data.image_size, step=step)
        return replace(stage, config=config, parent=idle(stage.parent) if stage.parent else None)

    rows = tuple(replace(row, stages=tuple(idle(last) for last in row.stages)) for row in study.rows)
    return replace(study, name=name, rows=rows)


def register() -> None:
    """Make both known to commands."""
    STUDIES["idle"] = idle_tables
    STUDIES["waiting"] = partial(idle_tables, name="waiting", step=STEP)

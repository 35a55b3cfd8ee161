"""The study of Tables 1 and 2 whose stages do everything but train: they restore no image and take no step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sweeps.deblurring.learner import METRICS, STRIPS
from sweeps.estimate import start_moments
from sweeps.learner import Config, Evaluation, Learner, Stateful, Test
from sweeps.record import COLUMN_CONDITION, COLUMN_IMAGE
from sweeps.stages import Stage, Study
from sweeps.stand_in import image_counts
from sweeps.studies import STUDIES, Inputs, tables

LOSSES = ("total", "content", "structure", "perceptual", "adversarial", "discriminator")


@dataclass(frozen=True, kw_only=True)
class Idle:
    """A stage's config, and what its evaluation has: so many images of so many pixels a side."""

    of: Config
    images: int
    image_size: int

    def learner(self, *, seed: int, device: torch.device, cache: Path) -> "IdleLearner":
        """An `IdleLearner` around the stage's own."""
        return IdleLearner(self, self.of.learner(seed=seed, device=device, cache=cache))

    def smaller(self) -> "tuple[Idle, float]":
        """There is none."""
        return self, 1

    def idle_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()


class IdleLearner:
    """Holds the networks, optimisers, data and features of a real learner, so that its states have their size."""

    def __init__(self, config: Idle, learner: Learner) -> None:
        self.state: Mapping[str, Stateful] = learner.state
        self.model = learner.model
        self._config = config
        self._losses = {name: torch.tensor(1.0) for name in LOSSES}
        for part in learner.state.values():
            if isinstance(part, torch.optim.Optimizer):
                start_moments(part)

    def step(self) -> dict[str, torch.Tensor]:
        """As many losses as a real step can have."""
        return self._losses

    def validate(self) -> dict[str, float]:
        """What a real validation gives."""
        return {"psnr": 20.0, "gain": 0.0}

    def evaluate(self, test: Test) -> Evaluation:
        """Rows and strips of the real number and size; noise, the hardest to compress."""
        config, rng = self._config, np.random.default_rng(0)
        size = (config.image_size, 3 * config.image_size, 3)
        return Evaluation(
            per_image={
                COLUMN_IMAGE: list(range(config.images)),
                COLUMN_CONDITION: list(range(config.images)),
                **{name: rng.uniform(size=config.images).tolist() for name in METRICS},
                "kernel_size": list(range(config.images)),
            },
            metrics=METRICS,
            strips=[Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)) for _ in range(STRIPS)],
        )


def idle_tables(inputs: Inputs) -> Study:
    """The study `tables`, idle."""
    study, data = tables(inputs), inputs.config.data
    images = image_counts(data, tests=1, validate_every=1).test_images

    def idle(stage: Stage) -> Stage:
        config = Idle(of=stage.config, images=images, image_size=data.image_size)
        return replace(stage, config=config, parent=idle(stage.parent) if stage.parent else None)

    rows = tuple(replace(row, stages=tuple(idle(last) for last in row.stages)) for row in study.rows)
    return replace(study, name="idle", rows=rows)


def register() -> None:
    """Make the idle study known to commands, as `idle`."""
    STUDIES["idle"] = idle_tables

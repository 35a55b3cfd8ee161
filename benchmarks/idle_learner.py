"""What trains an idle stage: it does all but the work."""

import time
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from benchmarks.idle import Idle
from sweeps.deblurring.learner import STRIPS
from sweeps.deblurring.protocol import METRICS
from sweeps.learner import Evaluation, Learner, Stateful, Test
from sweeps.measure import start_moments
from sweeps.record import COLUMN_CONDITION, COLUMN_IMAGE

LOSSES = ("total", "content", "structure", "perceptual", "adversarial", "discriminator")


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
        time.sleep(self._config.step)
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
            strips={
                (index, index): Image.fromarray(rng.integers(256, size=size, dtype=np.uint8)) for index in range(STRIPS)
            },
        )

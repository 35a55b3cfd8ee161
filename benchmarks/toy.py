"""A stage that costs nothing: no model, eight losses a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from sweeps.learner import Evaluation, Execution, Stateful, Test

STEPS = 4
METRICS = ("total", *(f"term_{index}" for index in range(7)))


@dataclass(frozen=True, kw_only=True)
class Toy:
    """The config of a trivial stage; `number` tells it from the others."""

    number: int

    def learner(self, *, seed: int, execution: Execution, cache: Path) -> "ToyLearner":
        """A `ToyLearner`."""
        return ToyLearner(self.number)

    def smaller(self) -> "tuple[Toy, float]":
        """There is none."""
        return self, 1

    def idle_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()


class ToyLearner:
    """Does no work, and says so in eight metrics."""

    def __init__(self, number: int) -> None:
        self.state: Mapping[str, Stateful] = {}
        self.model = None
        self._number, self._steps = number, 0

    def step(self) -> dict[str, torch.Tensor]:
        """Eight numbers."""
        self._steps += 1
        return {name: torch.tensor(self._number + index / self._steps) for index, name in enumerate(METRICS)}

    def validate(self) -> dict[str, float]:
        """Nothing to add."""
        return {}

    def evaluate(self, test: Test) -> Evaluation:
        """There are no tests."""
        raise AssertionError("a toy has no tests")

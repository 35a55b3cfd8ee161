"""What a study brings: configs that build learners, and the test sets they are evaluated on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from PIL import Image

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a learner computes, which changes its results by rounding at most.

    `fused` optimisers update all parameters in one call; with `fft` convolutions go by Fourier transforms where that is
    known to be faster; `compiled` networks run as kernels that PyTorch writes for them (TorchInductor), which takes a
    C++ compiler and, at the first steps, half a minute. These do without `fft`.
    """

    device: str = "cpu"
    fused: bool = True
    fft: bool = True
    compiled: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """What is not as it is by default, in words, but for the device."""
        words = {"compiled": self.compiled, "not fused": not self.fused, "no FFT": not self.fft}
        return tuple(word for word, holds in words.items() if holds)


class Test(Protocol):
    """A test set as a study describes it: a column of the tables."""

    @property
    def name(self) -> str:
        """Column name."""

    @property
    def fingerprint(self) -> str:
        """Digest of the images and of how the numbers are computed on them."""


class Stateful(Protocol):
    """Anything a checkpoint must hold: a module, an optimiser, a random generator."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take over what `state_dict` gave."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Results on one test set: a column per metric with one value per image, and a few images to look at.

    `strips` are (degraded | restored | truth) by the image's and the condition's number.
    """

    per_image: dict[str, list[float] | list[int]]
    metrics: tuple[str, ...]
    strips: dict[tuple[int, int], Image.Image]

    def means(self) -> dict[str, float]:
        """Mean over images of each metric."""
        return {name: sum(self.per_image[name]) / len(self.per_image[name]) for name in self.metrics}


class Learner(Protocol):
    """What a study brings to the training of one stage."""

    @property
    def state(self) -> Mapping[str, Stateful]:
        """All that a checkpoint must hold. A child takes over what its parent has too, and starts the rest afresh."""

    @property
    def model(self) -> "torch.nn.Module | None":
        """The network that users load; none for an untrained row."""

    def step(self) -> "dict[str, torch.Tensor]":
        """Do one optimisation step; return its loss terms, detached, the sum as `total`."""

    def validate(self) -> dict[str, float]:
        """Metrics on held-out data."""

    def evaluate(self, test: Test) -> Evaluation:
        """Results on a test set."""


class Config(Protocol):
    """A stage's scientific config: a frozen dataclass that can build its learner."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def learner(self, *, seed: int, execution: Execution, cache: Path) -> Learner:
        """A fresh learner; data come from `cache` by digest."""

    def smaller(self) -> "tuple[Config, float]":
        """A config whose steps cost less, and how many of them cost as much as one of these: for estimates."""

    def idle_fields(self) -> frozenset[str]:
        """Dotted names of fields whose value changes nothing, given the others: there is nothing in them to search."""

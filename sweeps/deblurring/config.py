"""Typed configs of face deblurring: what `--set` reaches, and what a stage's key is made of.

Fields are checked on construction; `pydantic.ValidationError` (a ValueError) names the field, the rule and the value.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.dataclasses import dataclass

from model_zoo.options import IDENTITY_WIDTH, Backbone, Initialisation, Resample, StructureInput
from sweeps.learner import Execution, Learner

Count = Annotated[int, Field(ge=1, le=10**9)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Arguments of `model_zoo.generator.Generator`; a study's rows decide `scales` and `multi_task`."""

    scales: Annotated[int, Field(ge=1, le=3)] = 2
    multi_task: bool = True
    structure_input: StructureInput = "both"
    width: Count = 64
    blocks: Count = 6
    initialisation: Initialisation = "default"
    resample: Resample = "bicubic"

    @model_validator(mode="after")
    def _wide_enough(self) -> "GeneratorConfig":
        if self.initialisation == "identity" and self.width < IDENTITY_WIDTH:
            raise ValueError(f"must have a width of at least {IDENTITY_WIDTH} for the identity, got {self.width}")
        return self


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of Eq. 5's terms; a term of weight 0 is not computed. A study's rows decide which terms are on."""

    content: Weight = 1.0
    structure: Weight = 1.0
    perceptual: Weight = 0.0
    adversarial: Weight = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Adam (Section 4.1), for the generator and for the discriminator."""

    learning_rate: Rate = 1e-4
    beta1: Momentum = 0.9
    beta2: Momentum = 0.999
    discriminator_beta1: Momentum = 0.5


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Steps of the content stage, and those added with the perceptual and with the adversarial loss (Section 4.1)."""

    content: Count = 100_000
    perceptual: Count = 50_000
    adversarial: Count = 50_000


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Faces and kernels (Section 4.2). `image_size` in pixels; `noise` is a standard deviation in [0, 1]."""

    image_size: Literal[32, 64, 128] = 128
    kernel_sizes: tuple[Annotated[int, Field(ge=3, le=63)], ...] = (13, 15, 17, 19, 21, 23, 25, 27)
    kernels_per_size: Count = 2500
    test_kernels_per_size: Count = 10
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01
    test_faces: Count = 100
    validation_faces: Count = 50

    @field_validator("kernel_sizes")
    @classmethod
    def _odd(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or any(size % 2 == 0 for size in sizes):
            raise ValueError(f"must be odd sizes, at least one, got {list(sizes)}")
        return sizes


@dataclass(frozen=True, kw_only=True)
class DeblurConfig:
    """All that a preset fixes and `--set` changes."""

    generator: GeneratorConfig = GeneratorConfig()
    losses: LossWeights = LossWeights()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    data: DataConfig = DataConfig()
    backbone: Backbone = "vgg19"
    discriminator_width: Count = 64
    batch_size: Count = 16


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Digests of what a stage trains and validates on."""

    faces: str
    validation_faces: str
    kernels: str
    validation_kernels: str
    noise: float


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """Scientific config of a training stage. What the active losses don't need is None, so that it is in no key.

    With the precision "bfloat16" convolutions of training multiply and store in it and sum in float32; weights, losses,
    updates and all evaluation are float32 with either.
    """

    generator: GeneratorConfig
    losses: LossWeights
    optimiser: OptimiserConfig
    batch_size: Count
    precision: Precision = "float32"
    data: TrainingData
    backbone: Backbone | None = None
    backbone_digest: str | None = None
    discriminator_width: int | None = None

    def learner(self, *, seed: int, execution: Execution, cache: Path) -> Learner:
        """A `TrainingLearner` of this config."""
        from sweeps.deblurring.learner import TrainingLearner

        return TrainingLearner(self, seed=seed, execution=execution, cache=cache)

    def smaller(self) -> "tuple[TrainingStage, float]":
        """Steps of one image."""
        return replace(self, batch_size=1), self.batch_size

    def idle_fields(self) -> frozenset[str]:
        """Weights of terms that the stage does not have, and what belongs to them."""
        needs = {
            "losses.structure": self.generator.multi_task,
            "losses.perceptual": self.backbone,
            "losses.adversarial": self.discriminator_width,
            "optimiser.discriminator_beta1": self.discriminator_width,
        }
        return frozenset(field for field, need in needs.items() if not need)


@dataclass(frozen=True, kw_only=True)
class BlurredStage:
    """The evaluation-only stage of the blurred input itself: its result is what it is evaluated on."""

    tests: tuple[str, ...]
    """Fingerprints."""

    def learner(self, *, seed: int, execution: Execution, cache: Path) -> Learner:
        """A `BlurredLearner`."""
        from sweeps.deblurring.learner import BlurredLearner

        return BlurredLearner(device=execution.device, cache=cache)

    def smaller(self) -> "tuple[BlurredStage, float]":
        """There are no steps."""
        return self, 1

    def idle_fields(self) -> frozenset[str]:
        """None."""
        return frozenset()


@dataclass(frozen=True, kw_only=True)
class DeblurTest:
    """A test set: every face blurred with every kernel, by digest; `fingerprint` covers the protocol too."""

    name: str
    faces: str
    kernels: str
    noise: float
    seed: int
    fingerprint: str

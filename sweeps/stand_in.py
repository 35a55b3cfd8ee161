"""Made-up faces, kernels and weights of the right shapes: what a step costs does not depend on their content."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from datasets import assets
from datasets.faces import face_set, store_faces
from datasets.kernels import load_kernels
from model_zoo.options import Backbone
from sweeps.deblurring.config import DataConfig, DeblurTest, TrainingData
from sweeps.deblurring.data import DEFAULT_TEST, TEST_KERNELS, TEST_NOISE, TRAINING_KERNELS, DeblurData

FACES = 2


def stand_in_data(config: DataConfig, tests: Mapping[str, str], backbone: Backbone, folder: Path) -> DeblurData:
    """Write two faces, a kernel per size and random weights of the perceptual network to a cache in `folder`.

    A test set is the faces with one kernel of the largest size.
    """
    _write_weights(backbone, folder)
    pixels = np.random.default_rng(0).integers(256, size=(FACES, config.image_size, config.image_size, 3))
    faces = store_faces(face_set(name="made up", images=pixels.astype(np.uint8)), cache=folder).digest
    kernels = load_kernels(sizes=config.kernel_sizes, per_size=1, seed=TRAINING_KERNELS, cache=folder).digest
    widest = load_kernels(sizes=[max(config.kernel_sizes)], per_size=1, seed=TEST_KERNELS, cache=folder).digest
    return DeblurData(
        training=TrainingData(
            faces=faces, validation_faces=faces, kernels=kernels, validation_kernels=kernels, noise=config.noise
        ),
        tests=tuple(
            DeblurTest(name=name, faces=faces, kernels=widest, noise=config.noise, seed=TEST_NOISE, fingerprint="")
            for name in tests or {DEFAULT_TEST: ""}
        ),
        names={},
        notes=(),
    )


def _write_weights(backbone: Backbone, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(shape: torch.Size) -> Tensor:
        if len(shape) == 1:  # a bias
            return torch.zeros(shape)
        # He's scale: features that vanish or overflow would be faster or slower than real ones.
        return math.sqrt(2 / shape[1:].numel()) * torch.randn(shape, generator=generator)

    from torchvision import models  # takes longer to import than PyTorch

    with torch.device("meta"):
        layers = models.get_model(backbone).features
    asset = assets.ASSETS[backbone]
    save_file(
        {f"features.{name}": random(weight.shape) for name, weight in layers.state_dict().items()},
        asset.path(folder),
    )

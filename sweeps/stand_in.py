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


def stand_in_data(
    config: DataConfig,
    tests: Mapping[str, str],
    backbone: Backbone,
    folder: Path,
    *,
    faces: int = FACES,
    kernels_per_size: int = 1,
) -> DeblurData:
    """Write faces, kernels and random weights of the perceptual network to a cache in `folder`.

    `faces` and `kernels_per_size` are what is trained on; validation and each test set have two faces.
    """
    _write_weights(backbone, folder)
    rng, side = np.random.default_rng(0), config.image_size
    pixels = rng.integers(256, size=(max(faces, FACES), side, side, 3), dtype=np.uint8)
    parts = [face_set(name="made up", images=pixels[:count]) for count in (faces, FACES)]
    trained, held_out = (store_faces(part, cache=folder).digest for part in parts)
    kernels = load_kernels(
        sizes=config.kernel_sizes, per_size=kernels_per_size, seed=TRAINING_KERNELS, cache=folder
    ).digest
    widest = load_kernels(sizes=[max(config.kernel_sizes)], per_size=1, seed=TEST_KERNELS, cache=folder).digest
    return DeblurData(
        training=TrainingData(
            faces=trained, validation_faces=held_out, kernels=kernels, validation_kernels=kernels, noise=config.noise
        ),
        tests=tuple(
            DeblurTest(name=name, faces=held_out, kernels=widest, noise=config.noise, seed=TEST_NOISE, fingerprint="")
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
    weights = {f"features.{name}": random(weight.shape) for name, weight in layers.state_dict().items()}
    with assets.atomic(asset.path(folder)) as path:
        save_file(weights, path)

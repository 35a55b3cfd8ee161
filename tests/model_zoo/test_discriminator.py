from itertools import pairwise

import pytest
import torch
from torch import nn

from model_zoo.discriminator import Discriminator


def test_layers_at_128():
    with torch.device("meta"):
        network = Discriminator()
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    channels = [convolutions[0].in_channels] + [layer.out_channels for layer in convolutions]
    assert channels == [3, 64, 128, 256, 512, 1024, 1]
    weights = 16 * sum(a * b for a, b in pairwise(channels))
    normalised = 2 * (128 + 256 + 512 + 1024)
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == weights + normalised
    assert parameters / 1e6 == pytest.approx(11.16, abs=0.005)


@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
def test_one_logit_per_image(image_size):
    network = Discriminator(image_size=image_size, width=2)
    logits = network(torch.rand(3, 3, image_size, image_size))
    assert logits.shape == (3,)
    logits.sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_logits_are_unbounded():
    torch.manual_seed(0)
    network = Discriminator(image_size=16, width=4).eval()
    with torch.no_grad():
        logits = network(1e6 * torch.randn(64, 3, 16, 16))
    assert logits.min() < 0
    assert logits.max() > 1


def test_initial_weights():
    torch.manual_seed(0)
    network = Discriminator(image_size=32, width=64)
    convolution, normalisation = network.layers[2], network.layers[3]
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert normalisation.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert normalisation.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert normalisation.bias.abs().max() == 0


@pytest.mark.parametrize("image_size", [8, 100, 0, -16])
def test_image_size_exception(image_size):
    with pytest.raises(ValueError, match=f"power of two, at least 16, got {image_size}"):
        Discriminator(image_size=image_size)


def test_width_exception():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        Discriminator(width=0)


def test_shape_exception():
    with pytest.raises(ValueError, match=r"must be \(B, 3, 16, 16\), got \(1, 3, 32, 32\)"):
        Discriminator(image_size=16, width=2)(torch.zeros(1, 3, 32, 32))

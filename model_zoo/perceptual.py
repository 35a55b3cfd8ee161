"""VGG features for the perceptual loss."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from model_zoo.options import Backbone

# torchvision's layer list, and the index of the ReLU after conv1_2, 2_2, 3_2, 4_2 and 5_2 in it.
_BACKBONES = {"vgg16": ("D", (3, 8, 13, 20, 27)), "vgg19": ("E", (3, 8, 13, 22, 31))}
_SMALLEST_SIDE = 16  # four poolings precede conv5_2


class VGGFeatures(nn.Module):
    """Frozen VGG features after the ReLU of conv1_2, conv2_2, conv3_2, conv4_2 and conv5_2.

    backbone: "vgg16" or "vgg19". weights: torchvision's names, "features.N.weight" (out, in, 3, 3) and
    "features.N.bias" (out,); other keys, and layers after conv5_2, are not read. The weights are shared, not
    copied.
    Raises ValueError for an unknown backbone and for missing weights.
    Source: Simonyan & Zisserman 2015; the layers are those of Shen et al. 2019, Eq. 3.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        if backbone not in _BACKBONES:
            raise ValueError(f"backbone must be one of {', '.join(_BACKBONES)}, got {backbone!r}")
        from torchvision.models import vgg  # takes longer to import than PyTorch: not where there is no such loss

        config, taps = _BACKBONES[backbone]
        with torch.device("meta"):  # no memory and no random start for what is about to be replaced
            layers: nn.Sequential = vgg.make_layers(vgg.cfgs[config])[: taps[-1] + 1]
        names = list(layers.state_dict())
        missing = [f"features.{name}" for name in names if f"features.{name}" not in weights]
        if missing:
            raise ValueError(f"{backbone} needs the weights {', '.join(missing)}, which were not given")
        layers.load_state_dict({name: weights[f"features.{name}"] for name in names}, assign=True)
        # A stage ends at a tap and the next begins with a convolution or a pooling, so that the in-place
        # ReLUs never write on a returned feature.
        ends = [0, *(tap + 1 for tap in taps)]
        self.stages = nn.ModuleList(layers[start:end] for start, end in pairwise(ends))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "VGGFeatures":
        """Stay in evaluation mode, whatever the module that holds this one does."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Five features of ``images`` (B, 3, H, W) in [0, 1], H and W at least 16.

        They have 64, 128, 256, 512, 512 channels and 1, 1/2, 1/4, 1/8, 1/16 of H and W, rounded down.
        ImageNet's normalisation happens here.
        Raises ValueError for smaller images.
        """
        if min(images.shape[-2:]) < _SMALLEST_SIDE:
            raise ValueError(
                f"images must be at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE}, got {images.shape[-2]}x{images.shape[-1]}"
            )
        x = (images - self.mean) / self.std
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

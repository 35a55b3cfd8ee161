"""What the networks can be told, as types: for configs, which do without PyTorch."""

from typing import Literal

Resample = Literal["bicubic", "bilinear"]
StructureInput = Literal["both", "sum", "random", "shared"]
Initialisation = Literal["default", "identity"]
IDENTITY_WIDTH = 6
"""Channels that carry an image through the identity: three of each sign."""
Backbone = Literal["vgg16", "vgg19"]

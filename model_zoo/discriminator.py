"""The DCGAN discriminator, for any power-of-two image size."""

from torch import Tensor, nn


class Discriminator(nn.Module):
    """DCGAN discriminator: 4x4 convolutions of stride 2 down to 4x4 pixels, then one to a logit.

    Channels width, 2 width, 4 width, ...: 3-64-128-256-512-1024-1 for 128 pixels and width 64. Batch
    normalisation after every layer but the first and the last, LeakyReLU 0.2, no biases in the convolutions.
    Weights start from N(0, 0.02), those of the batch normalisation from N(1, 0.02).

    image_size: side of the square images, a power of two, at least 16. width: at least 1.
    Raises ValueError for values outside these.
    Source: Radford et al. 2016, "Unsupervised representation learning with deep convolutional generative
    adversarial networks"; Shen et al. 2019, section 3.3.3.
    """

    def __init__(self, *, image_size: int = 128, width: int = 64) -> None:
        super().__init__()
        if image_size < 16 or image_size & (image_size - 1):
            raise ValueError(f"image_size must be a power of two, at least 16, got {image_size}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.image_size = image_size
        halvings = image_size.bit_length() - 3
        channels = [3] + [width * 2**k for k in range(halvings)]
        layers: list[nn.Module] = []
        for k in range(halvings):
            layers.append(nn.Conv2d(channels[k], channels[k + 1], 4, stride=2, padding=1, bias=False))
            if k > 0:
                layers.append(nn.BatchNorm2d(channels[k + 1]))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, bias=False))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) that ``images`` (B, 3, image_size, image_size) are real, without a sigmoid.

        Raises ValueError for images of another size.
        """
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"images must be (B, 3, {self.image_size}, {self.image_size}), got {tuple(images.shape)}")
        logits: Tensor = self.layers(images)
        return logits.flatten()

"""The loss terms of Shen et al. 2019, unweighted: Eq. 2, 3 and 4. Each returns a scalar."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def l1_over_scales(outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean absolute error of each scale over its own size, summed over the scales.

    outputs, targets: (B, C, H, W) each, H and W of that scale. Serves the image (content) and the structure
    task.
    Raises ValueError for a different number of scales.
    Source: Shen et al. 2019, Eq. 2, with its sum over the channels read as a mean.
    """
    return _sum([F.l1_loss(output, target) for output, target in zip(outputs, targets, strict=True)])


def perceptual_loss(features: Callable[[Tensor], list[Tensor]], outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
    """Mean squared error of each layer's features, summed over layers and scales.

    features: images -> one tensor per layer, as ``perceptual.VGGFeatures``. outputs, targets: (B, 3, H, W) in
    [0, 1] per scale. No gradient reaches the targets.
    Raises ValueError for a different number of scales.
    Source: Shen et al. 2019, Eq. 3, with its sum over each feature map read as a mean.
    """
    terms = []
    for output, target in zip(outputs, targets, strict=True):
        with torch.no_grad():
            wanted = features(target)
        terms += [F.mse_loss(got, want) for got, want in zip(features(output), wanted, strict=True)]
    return _sum(terms)


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """-log D(restored), mean over the batch: softplus(-logit).

    fake_logits: (B,), the discriminator's on restored images.
    Source: Shen et al. 2019, Eq. 4, second line.
    """
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(sharp) - log(1 - D(restored)), each a mean over its batch.

    real_logits, fake_logits: (B,), on sharp and on (detached) restored images.
    Source: Shen et al. 2019, Eq. 4, first line, negated because it is minimised.
    """
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()

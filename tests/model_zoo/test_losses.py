import math

import pytest
import torch
import torch.nn.functional as F

from model_zoo.losses import (
    discriminator_loss,
    generator_adversarial_loss,
    l1_over_scales,
    perceptual_loss,
)


class TestL1:
    def test_each_scale_is_averaged_over_its_own_size(self):
        targets = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 8, 8)]
        outputs = [torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 8, 8), -0.25)]
        assert l1_over_scales(outputs, targets).item() == 0.75

    def test_scales_must_match(self):
        with pytest.raises(ValueError):
            l1_over_scales([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])

    def test_gradcheck(self):
        output = torch.rand(1, 3, 4, 4, dtype=torch.double, requires_grad=True)
        target = output.detach() + 0.5
        assert torch.autograd.gradcheck(lambda x: l1_over_scales([x], [target]), output)


class TestAdversarial:
    @pytest.mark.parametrize("logit", [-3.0, 0.0, 2.5])
    def test_is_minus_log_d(self, logit):
        d = 1 / (1 + math.exp(-logit))
        assert generator_adversarial_loss(torch.tensor([logit])).item() == pytest.approx(-math.log(d))
        loss = discriminator_loss(torch.tensor([logit]), torch.tensor([logit]))
        assert loss.item() == pytest.approx(-math.log(d) - math.log(1 - d))

    def test_is_a_mean_over_the_batch(self):
        real, fake = torch.randn(5), torch.randn(7)
        expected = F.binary_cross_entropy_with_logits(real, torch.ones(5))
        expected += F.binary_cross_entropy_with_logits(fake, torch.zeros(7))
        torch.testing.assert_close(discriminator_loss(real, fake), expected)
        expected = F.binary_cross_entropy_with_logits(fake, torch.ones(7))
        torch.testing.assert_close(generator_adversarial_loss(fake), expected)

    def test_sure_discriminator_gives_finite_loss_and_gradient(self):
        logits = torch.tensor([-1000.0], requires_grad=True)
        loss = generator_adversarial_loss(logits)
        loss.backward()
        assert loss.item() == 1000
        assert logits.grad.item() == -1


class TestPerceptual:
    def test_sums_mean_squares_over_layers_and_scales(self):
        def features(images):
            return [images, 2 * images[..., ::2, ::2]]

        outputs = [torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 8, 8), 0.25)]
        targets = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)]
        # per scale: e^2 of the first layer and (2 e)^2 of the second
        assert perceptual_loss(features, outputs, targets).item() == 5 * (0.25 + 0.0625)

    def test_no_gradient_reaches_the_targets(self):
        output, target = (torch.rand(1, 3, 4, 4, requires_grad=True) for _ in range(2))
        perceptual_loss(lambda images: [images.square()], [output], [target]).backward()
        assert output.grad.abs().sum() > 0
        assert target.grad is None

    def test_zero_at_the_target(self):
        image = torch.rand(1, 3, 4, 4)
        assert perceptual_loss(lambda images: [images.sin()], [image], [image.clone()]).item() == 0

import pytest
import torch
from torch import nn
from torchvision.models import vgg
from torchvision.transforms.functional import normalize

from model_zoo.losses import perceptual_loss
from model_zoo.perceptual import VGGFeatures

CONFIGS = {"vgg16": "D", "vgg19": "E"}


@pytest.fixture(scope="module", params=["vgg16", "vgg19"])
def backbone(request):
    return request.param


@pytest.fixture(scope="module")
def layers(backbone):
    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs[CONFIGS[backbone]])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    return layers


@pytest.fixture(scope="module")
def weights(layers):
    return {f"features.{name}": value for name, value in layers.state_dict().items()}


@pytest.fixture(scope="module")
def features(backbone, weights):
    return VGGFeatures(backbone=backbone, weights=weights)


def test_taps_are_the_second_convolution_of_each_block(features, layers):
    images = torch.rand(2, 3, 35, 32, generator=torch.Generator().manual_seed(1))
    x = normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected, in_block = [], 0
    with torch.no_grad():
        for layer in layers:
            x = layer(x.clone())
            if isinstance(layer, nn.MaxPool2d):
                in_block = 0
            elif isinstance(layer, nn.ReLU):
                in_block += 1
                if in_block == 2:
                    expected.append(x.clone())
    got = features(images)
    assert [tuple(f.shape[1:]) for f in got] == [
        (64, 35, 32),
        (128, 17, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    torch.testing.assert_close(got, expected)


def test_frozen_whatever_its_parent_does(features):
    parent = nn.Sequential(features).train()
    assert not features.training
    assert not any(module.training for module in features.modules())
    assert not any(p.requires_grad for p in parent.parameters())


def test_gradient_reaches_the_images_only(features):
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    target = torch.rand(1, 3, 16, 16)
    perceptual_loss(features, [images], [target]).backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None for p in features.parameters())


def test_missing_weights_are_named(backbone, weights):
    weights = {name: value for name, value in weights.items() if name != "features.7.bias"}
    with pytest.raises(ValueError, match=rf"{backbone} needs the weights features\.7\.bias, which"):
        VGGFeatures(backbone=backbone, weights=weights)


def test_other_weights_are_not_read(backbone, weights):
    VGGFeatures(backbone=backbone, weights={**weights, "classifier.0.weight": torch.zeros(1)})


def test_weights_of_the_other_backbone_are_refused(backbone, weights):
    other = "vgg19" if backbone == "vgg16" else "vgg16"
    with pytest.raises(ValueError, match=f"{other} needs the weights"):
        VGGFeatures(backbone=other, weights=weights)


def test_unknown_backbone():
    with pytest.raises(ValueError, match="backbone must be one of vgg16, vgg19, got 'resnet'"):
        VGGFeatures(backbone="resnet", weights={})


def test_small_images_are_refused(features):
    with pytest.raises(ValueError, match="at least 16x16, got 16x15"):
        features(torch.zeros(1, 3, 16, 15))

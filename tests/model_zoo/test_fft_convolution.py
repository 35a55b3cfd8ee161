import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model_zoo import fft_convolution
from model_zoo.fft_convolution import Convolution, use_fft
from model_zoo.generator import Generator

needs_nnpack = pytest.mark.skipif(
    not fft_convolution.start(), reason="PyTorch was built without NNPACK, or not for this processor"
)

SHAPES = [
    # images, channels in and out, height, width, kernel
    (2, 3, 5, 24, 24, 5),  # two tiles of 12
    (1, 2, 4, 13, 31, 5),  # tiles that reach over the edge
    (3, 1, 1, 12, 5, 11),
    (2, 32, 32, 30, 24, 5),
    (1, 32, 24, 16, 16, 5),
    (2, 6, 3, 7, 40, 11),
    (1, 2, 2, 20, 20, 15),
    (2, 3, 4, 1, 1, 5),
]


def tensors(images, channels, out, height, width, kernel, *, layout=torch.contiguous_format):
    """An input and a gradient in double precision, and a convolution by FFT in single."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, channels, height, width, generator=generator, dtype=torch.double)
    gradient = torch.randn(images, out, height, width, generator=generator, dtype=torch.double)
    torch.manual_seed(0)
    layer = Convolution(channels, out, kernel).to(memory_format=layout)
    layer.by_fft = True
    return x.contiguous(memory_format=layout), gradient.contiguous(memory_format=layout), layer


@needs_nnpack
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_a_convolution_in_double_precision(shape, layout):
    x, gradient, layer = tensors(*shape, layout=layout)
    exact = [each.detach().double().requires_grad_() for each in (x, layer.weight, layer.bias)]
    expected = F.conv2d(*exact, padding="same")
    inputs = [x.float().requires_grad_(), layer.weight, layer.bias]
    output = layer(inputs[0])
    ours = [output, *torch.autograd.grad(output, inputs, gradient.float())]
    theirs = [expected, *torch.autograd.grad(expected, exact, gradient)]
    for got, wanted in zip(ours, theirs, strict=True):
        assert got.shape == wanted.shape
        assert (got - wanted).abs().max() <= 2e-6 * (1 + wanted.abs().max())


class Counted(TorchDispatchMode):
    """Counts convolutions by FFT."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += function.overloadpacket == torch.ops.aten._nnpack_spatial_convolution
        return function(*args, **(kwargs or {}))


@needs_nnpack
@pytest.mark.parametrize(("of_x", "of_weight"), [(True, False), (False, True), (True, True)])
def test_a_gradient_that_nobody_needs_is_not_computed(of_x, of_weight):
    x, gradient, layer = tensors(*SHAPES[0])
    layer.requires_grad_(of_weight)
    x = x.float().requires_grad_(of_x)
    output = layer(x)
    with Counted() as backward:
        output.backward(gradient.float())
    assert backward.calls == of_x + of_weight
    assert (x.grad is not None) == of_x
    assert (layer.weight.grad is not None) == of_weight


@needs_nnpack
def test_second_derivatives_are_refused():
    x, _, layer = tensors(*SHAPES[0])
    x = x.float().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@needs_nnpack
def test_without_gradients_it_is_the_same_convolution():
    x, _, layer = tensors(*SHAPES[0])
    x = x.float()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=2))


@needs_nnpack
def test_other_tensors_go_as_they_would():
    """In double precision, and in low where autocast is on."""
    x, _, layer = tensors(*SHAPES[0])
    layer.double()
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=2))
    x, _, layer = tensors(*SHAPES[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x.float()).dtype == torch.bfloat16


def test_a_layer_starts_as_pytorch_s_does_and_has_its_names():
    torch.manual_seed(1)
    ours = Convolution(3, 4, 5).state_dict()
    torch.manual_seed(1)
    theirs = torch.nn.Conv2d(3, 4, 5, padding=2).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kernel_size", [3, 6, 17])
def test_other_kernels_are_refused(kernel_size):
    with pytest.raises(AssertionError):
        Convolution(2, 2, kernel_size)


@needs_nnpack
@pytest.mark.parametrize(("width", "middle", "layout"), [(16, False, torch.channels_last), (24, True, None)])
def test_which_layers_go_by_fft(width, middle, layout):
    """PyTorch counts the operations of its own convolutions only."""
    network = Generator(width=width, blocks=1, multi_task=False)
    layers = [layer for layer in network.modules() if isinstance(layer, Convolution)]
    assert not any(layer.by_fft for layer in layers)
    use_fft(network)
    assert [layer.by_fft for layer in layers] == [True] + [middle] * (len(layers) - 2) + [False]
    image = torch.rand(1, 3, 16, 16)
    counted = []
    for each in (network, Generator(width=width, blocks=1, multi_task=False)):
        with FlopCounterMode(display=False) as counter:
            each(image)
        counted.append(counter.get_total_flops())
    assert counted[0] < counted[1] * (0.1 if middle else 1)
    features = layers[0](torch.rand(2, 6, 16, 16))
    assert features.is_contiguous(memory_format=layout or torch.contiguous_format)


@needs_nnpack
@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
def test_the_rule_is_for_the_processors_where_it_was_measured(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert fft_convolution.pays_here() == (capability == "AVX2")

"""Convolutions in float32 on a processor by fast Fourier transforms, which PyTorch has (NNPACK) but does not choose.

A k x k convolution takes 2 k^2 operations for each pair of channels and each pixel; in the frequency domain a pair
costs a few, and all pairs share the transforms. So it pays with large kernels, and with many channels. NNPACK keeps the
number of threads that PyTorch has at its first convolution in a process.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_TILE = 16  # side of the largest transform in NNPACK
_LARGE_KERNEL = 11
_MANY_CHANNELS = 24  # docs/performance.md has the times on either side


class Convolution(nn.Conv2d):
    """`nn.Conv2d` with a bias, stride 1, an odd square kernel of 5 to 15 and output of the input's size.

    by_fft: whether tensors on a processor that are to be computed in float32 go by FFT, which rounds otherwise and has
    no second derivatives; `use_fft` sets it, in each process anew, as NNPACK must have been started there. A weight's
    gradient then takes at least (16 / (17 - kernel_size))^2 times the input's memory for a moment.
    """

    by_fft = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        assert kernel_size in range(5, _TILE, 2), kernel_size
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        if self.by_fft and x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            output: Tensor = _ByFFT.apply(x, self.weight, self.bias)
            if not _many(self.out_channels):  # the next layer goes not by FFT, and is faster with channels last
                output = output.contiguous(memory_format=torch.channels_last)
            return output
        return super().forward(x)


def start() -> bool:
    """Start NNPACK in this process; whether it is there, in PyTorch and for this processor."""
    return hasattr(torch, "_nnpack_spatial_convolution") and torch.backends.nnpack.is_available()


def pays_here() -> bool:
    """Whether the processor is of the kind for which `use_fft` was measured: with AVX2, and without AVX-512, which
    PyTorch's usual convolutions (oneDNN's) use and NNPACK does not."""
    return start() and torch.backends.cpu.get_cpu_capability() == "AVX2"


def use_fft(network: nn.Module) -> None:
    """Have those convolutions of a network go by FFT that are faster so."""
    assert start(), "there is no NNPACK"
    for layer in network.modules():
        if isinstance(layer, Convolution):
            many = _many(min(layer.in_channels, layer.out_channels))
            layer.by_fft = many or layer.kernel_size[0] >= _LARGE_KERNEL


def _many(channels: int) -> bool:
    return channels >= _MANY_CHANNELS


class _ByFFT(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch._nnpack_spatial_convolution(x, weight, bias, weight.shape[-1] // 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), gradient = ctx.saved_tensors, gradient.contiguous()
        of_x, of_weight, of_bias = ctx.needs_input_grad
        kernel = weight.shape[-1]
        backwards = weight.flip(2, 3).transpose(0, 1)
        return (
            torch._nnpack_spatial_convolution(gradient, backwards, None, kernel // 2) if of_x else None,
            _weight_gradient(x, gradient, kernel) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def _weight_gradient(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
    """The correlation of x with the gradient, as one convolution: both are cut into tiles, of which NNPACK takes those
    of x for images and those of the gradient for kernels, and sums over them as over channels."""
    tile = _TILE - kernel + 1
    height, width = (side + -side % tile for side in x.shape[-2:])  # of whole tiles
    margin = kernel // 2
    right, below = width - x.shape[-1], height - x.shape[-2]
    images = _tiles(F.pad(x, (margin, right + margin, margin, below + margin)), side=_TILE, step=tile)
    kernels = _tiles(F.pad(gradient, (0, right, 0, below)), side=tile, step=tile)
    return torch._nnpack_spatial_convolution(images, kernels, None, 0).transpose(0, 1)


def _tiles(x: Tensor, *, side: int, step: int) -> Tensor:
    """(B, C, H, W) -> (C, B * tiles, side, side)."""
    return x.unfold(2, side, step).unfold(3, side, step).transpose(0, 1).reshape(x.shape[1], -1, side, side)

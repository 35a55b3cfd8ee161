"""Blurred images, B = I * K + n: batches drawn for training and the fixed test sets."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.digests import images_digest
from datasets.faces import FaceSet
from datasets.kernels import KernelSet

# Numbers of the images that a CPU convolves at once, 2 RGB images of 128x128: the spectra of more leave its cache.
AT_ONCE = 2 * 3 * 128 * 128


def blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve images (B, C, H, W) with one kernel each, kernels (B, k, k) of odd k; returns (B, C, H, W).

    A true convolution (the kernel is flipped) of float images, beyond whose border the border repeats. By
    FFT: 16x3x128x128 images and 27x27 kernels take .27 of a grouped convolution's time (one core of a Zen 3).
    Raises ValueError for even k.
    """
    k = kernels.shape[-1]
    if k % 2 == 0:
        raise ValueError(f"kernels must have an odd side, not {k}")
    at_once = max(1, AT_ONCE // images.shape[1:].numel()) if images.device.type == "cpu" else len(images)
    parts = zip(images.split(at_once), kernels.split(at_once), strict=True)
    return torch.cat([_convolved(*part) for part in parts])


def _convolved(images: Tensor, kernels: Tensor) -> Tensor:
    k = kernels.shape[-1]
    height, width = (side + k - 1 for side in images.shape[-2:])
    # 160 is transformed in less time than 154, which is twice 7 times 11.
    size = [-(-side // 16) * 16 for side in (height, width)]
    margin = k // 2
    padded = F.pad(images, (margin, size[1] - width + margin, margin, size[0] - height + margin), mode="replicate")
    spectrum = _spectrum(padded, size)
    spectrum *= _spectrum(kernels, size)[:, None]
    # The product convolves with wrap-around, which reaches the first k - 1 rows and columns only.
    rows = torch.fft.ifft(spectrum, dim=-2)[..., k - 1 : height, :]
    blurred: Tensor = torch.fft.irfft(rows, n=size[1])
    return blurred[..., k - 1 : width]


def _spectrum(images: Tensor, size: Sequence[int]) -> Tensor:
    """As `rfft2`, but a kernel's rows of padding are not transformed."""
    height, width = size
    spectrum: Tensor = torch.fft.fft(torch.fft.rfft(images, n=width), n=height, dim=-2)
    return spectrum


def shared_tensor(array: npt.NDArray[np.generic]) -> Tensor:
    """A tensor over the memory of a read-only (say, memory-mapped) array, not a copy: never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def draw_batch(
    faces: Tensor, kernels: Tensor, *, batch_size: int, noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A training batch (blurred, sharp), each (B, 3, S, S) float32 on the device of `faces`.

    faces: (N, S, S, 3) uint8; kernels: (M, K, K) float32. Faces and kernels are drawn uniformly and with
    replacement from `generator`, which must be on the same device, as is the Gaussian noise of standard
    deviation `noise`, on the scale where white is 1. The blurred images are not clipped.
    """
    device = faces.device
    face = torch.randint(len(faces), (batch_size,), generator=generator, device=device)
    kernel = torch.randint(len(kernels), (batch_size,), generator=generator, device=device)
    sharp = _as_images(faces[face])
    blurred = blur(sharp, kernels[kernel])
    blurred += noise * torch.randn(blurred.shape, generator=generator, device=device)
    return blurred, sharp


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Test images: face (B,) and kernel (B,) int64 indices, blurred and sharp (B, 3, S, S) float32."""

    face: Tensor
    kernel: Tensor
    blurred: Tensor
    sharp: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class BlurredTestSet:
    """Every face blurred by every kernel, made anew each time it is read and always the same.

    noise: standard deviation on the scale where white is 1. The noise of an image is a function of (seed,
    face, kernel) alone, so neither batch size nor device changes it.
    """

    name: str
    faces: FaceSet
    kernels: KernelSet
    noise: float
    seed: int

    def __len__(self) -> int:
        return len(self.faces) * len(self.kernels)

    @property
    def digest(self) -> str:
        """Digest of everything the images follow from; the name is not part of it."""
        return images_digest(self.faces, self.kernels, noise=self.noise, seed=self.seed)

    def batches(self, batch_size: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """All images, kernel by kernel, in batches of at most `batch_size`."""
        for start in range(0, len(self), batch_size):
            index = np.arange(start, min(start + batch_size, len(self)))
            kernel, face = np.divmod(index, len(self.faces))
            sharp = _as_images(torch.from_numpy(self.faces.images[face]).to(device))
            blurred = blur(sharp, torch.from_numpy(self.kernels.kernels[kernel]).to(device))
            noise = [self._normal(f, k) for f, k in zip(face, kernel, strict=True)]
            blurred += self.noise * torch.from_numpy(np.stack(noise)).to(device)
            yield Batch(
                face=torch.from_numpy(face).to(device),
                kernel=torch.from_numpy(kernel).to(device),
                blurred=blurred,
                sharp=sharp,
            )

    def _normal(self, face: int, kernel: int) -> npt.NDArray[np.float32]:
        size = self.faces.images.shape[1]
        rng = np.random.default_rng((self.seed, face, kernel))
        return rng.standard_normal((3, size, size), dtype=np.float32)


def _as_images(faces: Tensor) -> Tensor:
    return faces.permute(0, 3, 1, 2).contiguous().float() / 255

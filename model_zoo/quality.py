"""Image quality, one value per image: PSNR, two kinds of SSIM, and PSNR up to a shift.

Images are (B, C, H, W) float, data range 1, and are taken as they are: clipping is the caller's.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA = 1.5
_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2
# Numbers of the images whose SSIM a CPU computes at once, 6 RGB images of 128x128: the moments of more leave its cache.
_AT_ONCE = 6 * 3 * 128 * 128


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all channels and the full image.

    Infinite where the two images are equal. restored, sharp: (B, C, H, W) in [0, 1]. Returns (B,).
    Raises ValueError for shapes that differ.
    """
    _check_pair(restored, sharp)
    return -10 * (restored - sharp).square_().mean(dim=(1, 2, 3)).log10()


def aligned_psnr(restored: Tensor, sharp: Tensor, *, max_shift: int) -> Tensor:
    """The best PSNR in dB over all integer shifts of ``restored`` by up to ``max_shift`` pixels each way.

    Blind deblurring determines an image up to a shift only. ``sharp`` loses a border of max_shift pixels, so
    that all shifts are compared over the same pixels; with max_shift 0 this is ``psnr``.
    restored, sharp: (B, C, H, W) in [0, 1], H and W above 2 max_shift. Returns (B,).
    Raises ValueError for shapes that differ and for a max_shift that is negative or leaves no pixel.
    """
    _check_pair(restored, sharp)
    height, width = (side - 2 * max_shift for side in sharp.shape[-2:])
    if max_shift < 0 or min(height, width) < 1:
        raise ValueError(
            f"max_shift must be at least 0 and below half of {sharp.shape[-2]}x{sharp.shape[-1]}, got {max_shift}"
        )
    core = _crop(sharp, max_shift, max_shift, height, width)
    shifts = range(2 * max_shift + 1)
    return torch.stack(
        [psnr(_crop(restored, top, left, height, width), core) for top in shifts for left in shifts]
    ).amax(dim=0)


def ssim2d(restored: Tensor, sharp: Tensor) -> Tensor:
    """The usual SSIM: an 11x11 Gaussian window in each channel, mean over all pixels and channels.

    Window sigma 1.5, K1 = 0.01, K2 = 0.03, population covariances: scikit-image with gaussian_weights=True
    and use_sample_covariance=False, but for the border: replicate padding, as in ``ssim3d``, so that every
    pixel counts.
    restored, sharp: (B, C, H, W) in [0, 1]. Returns (B,).
    Raises ValueError for shapes that differ.
    Source: Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """
    _check_pair(restored, sharp)
    return _ssim(restored, sharp, _smooth_plane)


def ssim3d(restored: Tensor, sharp: Tensor) -> Tensor:
    """SSIM of the image as a volume: the Gaussian window also spans the channels, mean over all voxels.

    What MATLAB's ``ssim`` returns for an RGB array, and what the paper's values fit: window 11x11x11 (sigma
    1.5), replicate padding, K1 = 0.01, K2 = 0.03, population covariances. On colour images it is well above
    ``ssim2d``; on images whose channels are equal the two agree.
    restored, sharp: (B, C, H, W) in [0, 1]. Returns (B,).
    Raises ValueError for shapes that differ.
    """
    _check_pair(restored, sharp)
    return _ssim(restored, sharp, _smooth_volume)


def _ssim(x: Tensor, y: Tensor, smooth: Callable[[Tensor], Tensor]) -> Tensor:
    at_once = max(1, _AT_ONCE // x.shape[1:].numel()) if x.device.type == "cpu" else len(x)
    parts = zip(x.split(at_once), y.split(at_once), strict=True)
    # Neither bfloat16 nor cuDNN's TF32 will do: the variances are small differences of large moments.
    without_cudnn = torch.backends.cudnn.flags(enabled=False) if x.is_cuda else nullcontext()
    with torch.autocast(x.device.type, enabled=False), without_cudnn:
        return torch.cat([_similarity(*part, smooth).mean(dim=(1, 2, 3)) for part in parts])


def _similarity(x: Tensor, y: Tensor, smooth: Callable[[Tensor], Tensor]) -> Tensor:
    """SSIM at each pixel, (B, C, H, W)."""
    x, y = (F.pad(images, (_RADIUS,) * 4, mode="replicate") for images in (x, y))
    # Of the two variances only their sum matters; and as the weights sum to 1, the constants can be added before them.
    c1, both = x.new_tensor(_C1), x.new_tensor(_C1 + _C2)
    mean_x, mean_y = smooth(x), smooth(y)
    products = smooth(torch.addcmul(both, x, y, value=2))
    squares = smooth(torch.addcmul(both, x, x).addcmul_(y, y))
    luminance = torch.addcmul(c1, mean_x, mean_y, value=2)
    square_means = torch.addcmul(c1, mean_x, mean_x).addcmul_(mean_y, mean_y)
    # In place: fresh memory takes longer than the arithmetic.
    covariance, variances = products.sub_(luminance), squares.sub_(square_means)
    return luminance.mul_(covariance).div_(square_means.mul_(variances))


def _smooth_plane(padded: Tensor) -> Tensor:
    """11x11 Gaussian in each channel, without padding: (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    planes = padded.flatten(0, 1)
    # Columns first: the 16 numbers of oneDNN's vectors divide what is left of the rows more often than the padded ones.
    smoothed: Tensor = _smooth_rows(_smooth_rows(planes.mT).mT).unflatten(0, padded.shape[:2])
    return smoothed


def _smooth_volume(padded: Tensor) -> Tensor:
    """As `_smooth_plane`, and over the channels with replicate padding.

    Replicated, the few channels make the 11-tap channel filter a C x C matrix.
    """
    mixing = padded.new_tensor(_mixing(padded.shape[1]))
    # Not a matrix product, which a GPU may round to TF32.
    mixed = (mixing[:, :, None, None] * padded[:, None]).sum(dim=2)
    return _smooth_plane(mixed)


@cache
def _mixing(channels: int) -> tuple[tuple[float, ...], ...]:
    position = torch.arange(channels)[:, None] + torch.arange(-_RADIUS, _RADIUS + 1)
    replicated = F.one_hot(position.clamp(0, channels - 1), channels)
    mixing = (replicated * torch.tensor(_window())[:, None]).sum(dim=1)
    return tuple(tuple(row) for row in mixing.tolist())


def _smooth_rows(planes: Tensor) -> Tensor:
    """11-tap Gaussian along the rows of planes (N, H, W), without padding: 10 elements shorter.

    Each row is a channel with a convolution of its own: oneDNN's vectors span channels, and images have but three.
    """
    count = planes.shape[1]
    window = planes.new_tensor(_window()).expand(count, 1, 1, -1)
    return F.conv2d(planes.unsqueeze(2), window, groups=count).squeeze(2)


@cache
def _window() -> tuple[float, ...]:
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    return tuple((weights / weights.sum()).tolist())


def _crop(images: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    return images[..., top : top + height, left : left + width]


def _check_pair(restored: Tensor, sharp: Tensor) -> None:
    if restored.shape != sharp.shape or restored.ndim != 4:
        raise ValueError(
            f"restored and sharp must be (B, C, H, W) of one shape, "
            f"got {tuple(restored.shape)} and {tuple(sharp.shape)}"
        )

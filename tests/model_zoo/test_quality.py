from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from model_zoo.quality import aligned_psnr, psnr, ssim2d, ssim3d

PAIRS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "shen_test_pairs"
METRICS = [psnr, ssim2d, ssim3d, lambda x, y: aligned_psnr(x, y, max_shift=2)]


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Three smooth colour images and three degradations of them, of different strength."""
    rng = np.random.default_rng(0)
    sharp = ndimage.gaussian_filter(rng.random((3, 3, 40, 33)), 1.5, axes=(2, 3))
    sharp = (sharp - sharp.min()) / (sharp.max() - sharp.min())
    noise = np.array([0.01, 0.05, 0.2])[:, None, None, None] * rng.standard_normal(sharp.shape)
    restored = ndimage.gaussian_filter(sharp, 1, axes=(2, 3)) + noise
    return torch.from_numpy(restored).float(), torch.from_numpy(sharp).float()


def arrays(pair: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
    x, y = (images.permute(0, 2, 3, 1).double().numpy() for images in pair)
    return list(zip(x, y, strict=True))


def test_psnr_matches_scikit_image(pair):
    expected = [peak_signal_noise_ratio(y, x, data_range=1) for x, y in arrays(pair)]
    np.testing.assert_allclose(psnr(*pair).numpy(), expected, atol=1e-4)


def test_psnr_of_a_constant_error():
    sharp = torch.zeros(2, 3, 8, 8)
    restored = torch.stack([torch.full((3, 8, 8), 0.1), torch.full((3, 8, 8), 0.01)])
    torch.testing.assert_close(psnr(restored, sharp), torch.tensor([20.0, 40.0]))
    assert psnr(sharp, sharp).tolist() == [float("inf")] * 2


def test_ssim2d_matches_scikit_image(pair):
    # scikit-image averages over whole windows only: of edge-padded images, these are all windows of ours.
    pad = ((5, 5), (5, 5), (0, 0))
    expected = [
        structural_similarity(
            np.pad(x, pad, mode="edge"),
            np.pad(y, pad, mode="edge"),
            data_range=1,
            channel_axis=2,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        for x, y in arrays(pair)
    ]
    np.testing.assert_allclose(ssim2d(*pair).numpy(), expected, atol=1e-4)


def brute_force_ssim3d(x: np.ndarray, y: np.ndarray) -> float:
    grid = np.mgrid[-5:6, -5:6, -5:6]
    window = np.exp(-(grid**2).sum(axis=0) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(volume):
        return ndimage.correlate(volume, window, mode="nearest")

    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def test_ssim3d_matches_a_brute_force_volume_window(pair):
    expected = [brute_force_ssim3d(x, y) for x, y in arrays(pair)]
    np.testing.assert_allclose(ssim3d(*pair).numpy(), expected, atol=1e-4)


def test_ssim_kinds_differ_on_colour_and_agree_on_grey(pair):
    assert (ssim2d(*pair) - ssim3d(*pair)).abs().min() > 0.005
    grey = [images.mean(dim=1, keepdim=True) for images in pair]
    as_rgb = [images.expand(-1, 3, -1, -1) for images in grey]
    torch.testing.assert_close(ssim3d(*as_rgb), ssim2d(*as_rgb))
    torch.testing.assert_close(ssim3d(*grey), ssim2d(*grey))


@pytest.mark.parametrize("ssim", [ssim2d, ssim3d])
def test_ssim_closed_forms(ssim, pair):
    _, sharp = pair
    torch.testing.assert_close(ssim(sharp, sharp), torch.ones(3))
    # Two constants: only the luminance term remains.
    a, b = torch.full((1, 3, 16, 16), 0.2), torch.full((1, 3, 16, 16), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("ssim", [ssim2d, ssim3d])
def test_ssim_gradcheck(ssim):
    x, y = torch.rand(2, 1, 3, 4, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(ssim, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("ssim", [ssim2d, ssim3d])
def test_ssim_is_float32_under_autocast(ssim, pair):
    with torch.autocast("cpu", torch.bfloat16):
        low = ssim(*pair)
    assert torch.equal(low, ssim(*pair))


@pytest.mark.parametrize("ssim", [ssim2d, ssim3d])
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (5, 3, 7, 1), (1, 1, 1, 9)])
def test_ssim_of_unusual_shapes(ssim, shape):
    images = torch.rand(shape)
    torch.testing.assert_close(ssim(images, images), torch.ones(len(images)))


def test_aligned_psnr_matches_brute_force(pair):
    m = 3
    expected = []
    for x, y in arrays(pair):
        h, w = y.shape[:2]
        core = y[m : h - m, m : w - m]
        errors = [
            ((np.roll(x, (dy, dx), axis=(0, 1))[m : h - m, m : w - m] - core) ** 2).mean()
            for dy in range(-m, m + 1)
            for dx in range(-m, m + 1)
        ]
        expected.append(-10 * np.log10(min(errors)))
    np.testing.assert_allclose(aligned_psnr(*pair, max_shift=m).numpy(), expected, atol=1e-4)


def test_aligned_psnr_undoes_a_shift(pair):
    _, sharp = pair
    shifted = sharp.roll((3, -2), dims=(2, 3))
    assert torch.isinf(aligned_psnr(shifted, sharp, max_shift=3)).all()
    assert (aligned_psnr(shifted, sharp, max_shift=2) < 40).all()
    assert torch.equal(aligned_psnr(shifted, sharp, max_shift=0), psnr(shifted, sharp))


@pytest.mark.parametrize("metric", METRICS)
def test_one_value_per_image(metric, pair):
    values = metric(*pair)
    assert values.shape == (3,)
    alone = torch.cat([metric(x[None], y[None]) for x, y in zip(*pair, strict=True)])
    torch.testing.assert_close(values, alone)
    assert (values.diff() < 0).all()  # the pair's degradations are in order


@pytest.mark.parametrize("metric", METRICS)
def test_shapes_must_agree(metric, pair):
    restored, sharp = pair
    with pytest.raises(ValueError, match=r"of one shape, got \(1, 3, 40, 33\) and \(3, 3, 40, 33\)"):
        metric(restored[:1], sharp)
    with pytest.raises(ValueError, match="of one shape"):
        metric(restored[0], sharp[0])


@pytest.mark.parametrize("max_shift", [-1, 17])
def test_max_shift_exception(max_shift, pair):
    with pytest.raises(ValueError, match=f"below half of 40x33, got {max_shift}"):
        aligned_psnr(*pair, max_shift=max_shift)


@pytest.mark.skipif(not PAIRS.exists(), reason="the reference pairs of Shen et al. 2018 are not here")
@pytest.mark.parametrize(
    ("image", "reference", "expected"),
    [
        ("im4226_ker01_blur_k17", "im4226_ker01_blur_k17", (25.40, 0.714, 0.864)),
        ("im4174_ker08_blur_k13", "im4174_ker08_blur_k13", (28.51, 0.826, 0.947)),
        ("im4218_ker01_blur_k15", "im4218_ker01_blur_k15", (19.94, 0.657, 0.656)),
        ("krishnan1", "im4174_ker08_blur_k13", (22.58, 0.656, 0.841)),
    ],
)
def test_published_images(image, reference, expected):
    images = []
    for name in (f"{image}.png", f"{reference}.png_original.jpg"):
        pixels = np.asarray(Image.open(PAIRS / name).convert("RGB"), dtype=np.float32) / 255
        images.append(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    for metric, value in zip([psnr, ssim2d, ssim3d], expected, strict=True):
        assert metric(*images).item() == pytest.approx(value, abs=0.005)

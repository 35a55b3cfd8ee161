"""How restored images are judged (`learner` does it): a few in validation, all in the tables."""

VALIDATION_IMAGES = 64
MAX_SHIFT = 8
METRICS = ("psnr", "ssim", "ssim_2d", "psnr_aligned")
PROTOCOL = {
    "colour": "RGB",
    "range": "[0, 1], restored image clipped, not quantised",
    "crop": "none",
    "mean": "over images of the per-image value",
    "ssim": "3-D Gaussian window over height, width and channel, replicate padding (MATLAB's ssim on an RGB volume)",
    "ssim_2d": "per-channel Gaussian window 11, sigma 1.5",
    "psnr_aligned": f"best integer shift within {MAX_SHIFT} pixels",
}
"""Part of a test's fingerprint."""

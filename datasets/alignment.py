"""Alignment by landmarks: the similarity that brings a photo's eyes and mouth to their canonical places."""

import numpy as np
import numpy.typing as npt
from PIL import Image

ALIGNED = 128
# Image-left eye, image-right eye, image-left and image-right mouth corner of an aligned face, in pixels of
# 128x128: the medians over the published outputs of Shen et al., made symmetric about the middle column.
CANONICAL = np.array([[43.5, 40.5], [84.5, 40.5], [46.0, 84.0], [82.0, 84.0]])

Points = npt.NDArray[np.float64]


def face_points(landmarks: Points) -> Points:
    """Eye centres and mouth corners (4, 2), in CANONICAL's order, of Helen's 194 landmarks (194, 2).

    Helen's points 114-133 and 134-153 outline the eyes, 58-85 the outer lips. Left and right are the image's.
    """
    eyes = np.stack([landmarks[114:134].mean(axis=0), landmarks[134:154].mean(axis=0)])
    eyes = eyes[np.argsort(eyes[:, 0])]
    lips = landmarks[58:86]
    along = lips @ (eyes[1] - eyes[0])
    return np.concatenate([eyes, lips[[along.argmin(), along.argmax()]]])


def similarity(source: Points, target: Points) -> tuple[complex, complex]:
    """Least-squares (a, b) such that a * source + b is nearest to target, points (P, 2) taken as complex.

    a is scale and rotation, b the shift. Source: Umeyama 1991, in the plane.
    """
    z, w = source @ [1, 1j], target @ [1, 1j]
    dz, dw = z - z.mean(), w - w.mean()
    a = complex(np.vdot(dz, dw) / np.vdot(dz, dz))
    return a, complex(w.mean() - a * z.mean())


def warp(image: Image.Image, points: Points) -> Image.Image:
    """The face whose eye centres and mouth corners are `points` (4, 2), as an aligned 128x128 image.

    Sampled at the photo's own resolution and averaged down, so that large photos don't alias; what lies
    beyond the photo's border repeats the border.
    """
    # Pillow's transforms count from a pixel's corner, landmarks from its centre.
    a, b = similarity(CANONICAL + 0.5, points + 0.5)
    factor = max(1, int(np.ceil(abs(a))))
    corners = a * (ALIGNED * np.array([0, 1, 1j, 1 + 1j])) + b
    left, top = int(corners.real.min()) - 2, int(corners.imag.min()) - 2
    x = np.arange(left, int(corners.real.max()) + 3).clip(0, image.width - 1)
    y = np.arange(top, int(corners.imag.max()) + 3).clip(0, image.height - 1)
    window = Image.fromarray(np.asarray(image)[y[:, None], x])
    a, b = a / factor, b - complex(left, top)
    inverse = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
    size = (ALIGNED * factor, ALIGNED * factor)
    sampled = window.transform(size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    return sampled.reduce(factor)

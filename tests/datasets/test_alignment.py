import numpy as np
import pytest
from PIL import Image

from datasets.alignment import CANONICAL, face_points, similarity, warp


@pytest.mark.parametrize("swapped", [False, True])
def test_face_points_do_not_depend_on_which_eye_comes_first(swapped):
    angles = np.arange(20) * np.pi / 10
    outline = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    left, right, left_mouth, right_mouth = points = CANONICAL * 3 + 40
    landmarks = np.full((194, 2), -1.0)
    landmarks[114:134] = (left if swapped else right) + outline
    landmarks[134:154] = (right if swapped else left) + outline
    landmarks[58:86] = np.linspace(*((left_mouth, right_mouth) if swapped else (right_mouth, left_mouth)), 28)
    np.testing.assert_allclose(face_points(landmarks), points)


def test_similarity_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
    a, b = similarity(source, target)
    # Brute force: re(a), im(a), re(b), im(b) of the linear system.
    x, y = source.T
    one, zero = np.ones(4), np.zeros(4)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    solution = np.linalg.lstsq(system, np.concatenate(target.T), rcond=None)[0]
    np.testing.assert_allclose([a.real, a.imag, b.real, b.imag], solution, atol=1e-12)


def test_a_large_photo_is_averaged_not_sampled():
    fine = np.zeros((1280, 1280, 3), np.uint8)
    fine[:, ::2] = 200  # stripes that an aligned image cannot show
    aligned = np.asarray(warp(Image.fromarray(fine), CANONICAL * 10))
    assert np.abs(aligned[:, 1:-1].astype(int) - 100).max() <= 3


def test_beyond_the_photo_its_border_goes_on():
    photo = Image.fromarray(np.full((60, 60, 3), 90, np.uint8))
    assert np.asarray(warp(photo, CANONICAL - 30)).min() == 90

import numpy as np
import pytest

from datasets.kernels import PATH_LENGTH, load_kernels, motion_kernels, open_kernels, trajectories
from sweeps.deblurring.data import TEST_KERNELS, TRAINING_KERNELS, VALIDATION_KERNELS

SIZES = range(13, 28, 2)


@pytest.fixture(scope="module")
def training():
    return motion_kernels(sizes=SIZES, per_size=2500, seed=0)


def test_twenty_thousand_kernels_are_distributions_in_their_own_boxes(training):
    assert training.kernels.shape == (20_000, 27, 27)
    assert training.kernels.dtype == np.float32
    assert training.kernels.min() == 0
    np.testing.assert_allclose(training.kernels.sum(axis=(1, 2), dtype=np.float64), 1, atol=1e-6)
    np.testing.assert_array_equal(training.sizes, np.repeat(SIZES, 2500))
    support = training.kernels > 0
    for size in SIZES:
        margin = (27 - size) // 2
        outside = np.ones((27, 27), bool)
        outside[margin : 27 - margin, margin : 27 - margin] = False
        assert not support[training.sizes == size][:, outside].any()


def test_kernels_fill_their_boxes_as_asked_and_sit_in_the_middle(training):
    spans = []
    for axis in (1, 2):
        used = (training.kernels > 0).any(axis=axis)
        first, last = used.argmax(axis=1), 26 - used[:, ::-1].argmax(axis=1)
        assert np.abs(first + last - 26).max() <= 1  # the box is centred; a splat is up to a pixel wider on one side
        spans.append(last - first + 1)
    longest = np.maximum(*spans)
    # The longer side covers U(.6, .95) x size, spread over at most two pixels more by the splat.
    assert (longest >= 0.6 * training.sizes).all()
    assert (longest <= 0.95 * training.sizes + 2).all()


def test_path_over_extent_is_that_of_the_published_kernels():
    paths = trajectories(4000, rng=np.random.default_rng(5))
    steps = np.abs(np.diff(paths, axis=1))
    np.testing.assert_allclose(steps.sum(axis=1), PATH_LENGTH)
    extent = np.maximum(np.ptp(paths.real, axis=1), np.ptp(paths.imag, axis=1))
    assert 1.8 < np.median(PATH_LENGTH / extent) < 2.6
    # No direction is preferred.
    assert abs(np.mean(np.ptp(paths.real, axis=1) > np.ptp(paths.imag, axis=1)) - 0.5) < 0.04


def test_the_number_of_steps_does_not_change_the_shapes():
    medians = []
    for steps in (500, 2000):
        paths = trajectories(1000, rng=np.random.default_rng(5), steps=steps)
        extent = np.maximum(np.ptp(paths.real, axis=1), np.ptp(paths.imag, axis=1))
        medians.append(np.median(PATH_LENGTH / extent))
    assert abs(medians[0] - medians[1]) < 0.1


def test_the_seed_decides_every_byte(training):
    small = {seed: motion_kernels(sizes=(13, 27), per_size=20, seed=seed) for seed in (3, 4)}
    again = motion_kernels(sizes=(13, 27), per_size=20, seed=3)
    assert again.kernels.tobytes() == small[3].kernels.tobytes()
    assert again.digest == small[3].digest != small[4].digest


def test_no_kernel_comes_twice(training):
    assert len({kernel.tobytes() for kernel in training.kernels}) == 20_000


def test_training_validation_and_test_kernels_are_disjoint():
    seeds = (TRAINING_KERNELS, VALIDATION_KERNELS, TEST_KERNELS)
    drawn = [motion_kernels(sizes=SIZES, per_size=10, seed=seed).kernels for seed in seeds]
    assert len({kernel.tobytes() for kernels in drawn for kernel in kernels}) == 3 * 10 * len(SIZES)


def test_loaded_once_then_mapped(tmp_path):
    first = load_kernels(sizes=(3, 13), per_size=4, seed=0, cache=tmp_path)
    written = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    again = load_kernels(sizes=(3, 13), per_size=4, seed=0, cache=tmp_path)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == written
    drawn = motion_kernels(sizes=(3, 13), per_size=4, seed=0)
    for kernels in (first, again, open_kernels(drawn.digest, cache=tmp_path)):
        assert isinstance(kernels.kernels, np.memmap)
        assert not kernels.kernels.flags.writeable
        assert kernels.digest == drawn.digest
        np.testing.assert_array_equal(kernels.kernels, drawn.kernels)
        np.testing.assert_array_equal(kernels.sizes, drawn.sizes)
    with pytest.raises(FileNotFoundError, match="no kernels at"):
        open_kernels("0" * 16, cache=tmp_path)


@pytest.mark.parametrize("sizes", [(), (12,), (13, 1), (-3,)])
def test_sizes_must_be_odd(sizes, tmp_path):
    with pytest.raises(ValueError, match=r"odd and at least 3, not \["):
        load_kernels(sizes=sizes, per_size=1, seed=0, cache=tmp_path)


def test_at_least_one_kernel():
    with pytest.raises(ValueError, match="at least 1 kernel per size, not 0"):
        motion_kernels(sizes=(13,), per_size=0, seed=0)

"""The ways that the benchmarks set beside ours do the same."""

import numpy as np
import pytest
import torch

from benchmarks import metrics, usual_ways
from benchmarks.comparison import Comparison
from benchmarks.usual_ways import Work, compared, require_equal
from datasets.blur import blur
from datasets.kernels import PATH_LENGTH, STEPS, _rasterise, motion_kernels, trajectories
from model_zoo import quality


class Recorder:
    """The draws of a random generator, one number each, in their order."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)
        self.draws = []

    def uniform(self, low, high):
        return self._record("uniform", low + (high - low) * self._rng.random())

    def random(self):
        return self._record("random", self._rng.random())

    def standard_normal(self):
        return self._record("normal", self._rng.standard_normal())

    def _record(self, kind, value):
        self.draws.append((kind, value))
        return value


class Replay:
    """Gives the recorded draws to `trajectories`, for which an angle is drawn also where there is no jerk."""

    def __init__(self, draws):
        self._draws = list(reversed(draws))

    def uniform(self, low, high, shape):
        return np.reshape([self._next("uniform") for _ in range(np.prod(shape))], shape)

    def random(self, count):
        return np.full(count, self._next("random") if self._draws[-1][0] == "random" else np.nan)

    def standard_normal(self, shape):
        return np.reshape([self._next("normal") for _ in range(np.prod(shape))], shape)

    def _next(self, kind):
        found, value = self._draws.pop()
        assert found == kind
        return value


def test_the_loop_makes_the_same_trajectories_of_the_same_draws():
    jerks = 0
    for seed in range(10):
        rng = Recorder(seed)
        path = usual_ways.trajectory(rng)
        (ours,) = trajectories(1, rng=Replay(rng.draws))
        np.testing.assert_allclose(path, ours, atol=1e-9)
        jerks += len(rng.draws) - 5 - 3 * STEPS
    assert jerks > 0  # some of the paths have jerks


def test_the_loops_trajectories_have_unit_speed_and_the_shapes_of_ours():
    rng = np.random.default_rng(0)
    loops = np.stack([usual_ways.trajectory(rng) for _ in range(300)])
    np.testing.assert_allclose(np.abs(np.diff(loops, axis=1)), PATH_LENGTH / (STEPS - 1))
    medians = []
    for paths in (loops, trajectories(4000, rng=np.random.default_rng(1))):
        extent = np.maximum(np.ptp(paths.real, axis=1), np.ptp(paths.imag, axis=1))
        medians.append(np.median(PATH_LENGTH / extent))
    assert abs(medians[0] - medians[1]) < 0.3


@pytest.mark.parametrize("size", [3, 13, 27])
def test_the_loop_rasterises_as_ours(size):
    paths = trajectories(5, rng=np.random.default_rng(size))
    extents = np.linspace(0.6, 0.95, 5) * size
    kernels = [
        usual_ways.rasterised(path, extent=extent, size=size) for path, extent in zip(paths, extents, strict=True)
    ]
    np.testing.assert_allclose(kernels, _rasterise(paths.T, extents, size), atol=1e-12)


def test_a_kernel_of_the_loop_is_a_distribution_that_fills_its_box():
    rng = np.random.default_rng(0)
    for size in (13, 27):
        kernel = usual_ways.motion_kernel(size, rng=rng)
        assert kernel.shape == (size, size)
        assert kernel.min() == 0
        assert kernel.sum() == pytest.approx(1)
        longest = max(np.ptp(np.nonzero(kernel)[axis]) + 1 for axis in (0, 1))
        assert 0.6 * size <= longest <= 0.95 * size + 2


@pytest.mark.parametrize("convolved", [usual_ways.convolved, usual_ways.fft_convolved])
def test_the_loop_over_images_blurs_as_ours(convolved):
    # More images, and a part of more, than a CPU convolves at once.
    kernels = motion_kernels(sizes=(5, 27), per_size=6, seed=0).kernels[:11]
    images = np.random.default_rng(0).random((11, 3, 120, 128), np.float32)
    theirs = [convolved(image, kernel) for image, kernel in zip(images, kernels, strict=True)]
    np.testing.assert_allclose(blur(torch.from_numpy(images), torch.tensor(kernels)).numpy(), theirs, atol=1e-5)


def test_the_loop_over_images_has_our_ssim_of_volumes():
    restored, sharp = (images[:7] for images in metrics.image_pairs())
    theirs = usual_ways.each(usual_ways.ssim3d, metrics.one_by_one((restored, sharp)))
    np.testing.assert_allclose(quality.ssim3d(restored, sharp).numpy(), theirs, atol=1e-4)
    assert max(theirs) < 0.99


def test_a_rate_is_what_is_made_in_a_second(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("benchmarks.comparison.perf_counter", lambda: clock[0])
    done = []

    def takes(name, seconds):
        def action():
            clock[0] += seconds
            done.append(name)

        return action

    (comparison,) = compared(
        "it",
        Work(action=takes("ours", 0.03), count=6),
        {"a loop": Work(action=takes("loop", 0.5), count=1, least=10.0)},
        unit="images",
        repeats=2,
        folder=tmp_path,
    )
    assert done.count("ours") == 2 + 2 * 9  # of .03 s, nine take a quarter of a second
    assert done.count("loop") == 2 + 2
    assert comparison == Comparison(
        name="it, against a loop",
        ours=pytest.approx((200.0,) * 2),
        theirs=pytest.approx((2.0,) * 2),
        unit="images/s",
        least=10.0,
    )


@pytest.mark.parametrize("off", [0.002, np.nan])
def test_ways_that_differ_are_not_compared(off):
    ours = torch.tensor([1.0, 2.0])
    require_equal("it", ours, [1.0, 2.0005], tolerance=1e-3)
    with pytest.raises(AssertionError, match=r"it: the values must be equal to 0.001, and differ by (0.002|nan)"):
        require_equal("it", ours, [1.0, 2.0 + off], tolerance=1e-3)

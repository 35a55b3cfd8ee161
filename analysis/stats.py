"""Means and differences of restored images, with intervals that honour how they came about.

Values are arrays (n_seeds, n_images, n_conditions): every training (seed) restored every image (a face) under every
condition (a blur kernel). The three are crossed, and each is a sample: one wants to know of other trainings, of other
faces, of other kernels. 3 seeds × 8,000 blurred faces are therefore not 24,000 independent values, nor 8,000.

The variance of the mean is estimated by the sum of the variances of the seeds' means, the images' means and the
conditions' means, each over its count. The sum counts what is common to two of them twice, so it errs towards wide
intervals. Its critical value is Cochran's, the mean of each part's own quantile of Student's t, weighted by the parts
(Cochran 1964, Approximate significance levels of the Behrens-Fisher test, Biometrics 20): where three seeds differ more
than faces and kernels do, it is that of 2 degrees of freedom. The usual (Welch-Satterthwaite) degrees of freedom claim
too much there, and a bootstrap over three seeds still more; the tests show by simulation what this one does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit  # scipy.stats has the same, and takes a second to import

LEVEL = 0.05
MIN_CONDITIONS = 5
"""With fewer at one place of an axis there is no interval there: of two kernels, one would reach off the chart."""
MIN_SEEDS = 3
"""With fewer, nothing is claimed: two trainings say next to nothing about how trainings differ."""

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, its interval at 1 - `LEVEL`, and the probability of one as far from 0 if there were nothing (`p`).

    Interval and `p` are None for fewer than two seeds, whose differences are unknown.
    """

    mean: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def usable(value: float) -> bool:
    """Whether a number can be worked with: not NaN, and short of where sums overflow (an SQL store keeps an infinity as
    the largest float)."""
    return abs(value) < 1e100


def crossed(values: Array, images: Index, conditions: Index) -> tuple[Array, Index, Index]:
    """One training's values (n_metrics, n_images * n_conditions), in any order, as (n_metrics, n_images, n_conditions);
    with the numbers of the images and of the conditions, ascending.

    Raises:
        ValueError: not every image stands once with every condition.
    """
    order = np.lexsort((conditions, images))
    images, conditions = images[order], conditions[order]
    width = int(np.count_nonzero(images == images[0])) if len(order) else 0
    if width and len(order) % width == 0:
        image, condition = images.reshape(-1, width), conditions.reshape(-1, width)
        rows, columns = image[:, 0], condition[0]
        distinct = (np.diff(rows) > 0).all() and (np.diff(columns) > 0).all()
        if distinct and (image == rows[:, None]).all() and (condition == columns).all():
            return values[:, order].reshape(len(values), *image.shape), rows, columns
    raise ValueError(f"each image must be there once under each condition, got {len(order)} lines that are not")


@dataclass(frozen=True, kw_only=True)
class Margins:
    """Means of values by seed (n_seeds,), by image (n_images,) and by condition (n_conditions,): all that an estimate
    needs, and of a difference they are the differences."""

    seeds: Array
    images: Array
    conditions: Array

    def __sub__(self, other: "Margins") -> "Margins":
        """Margins of the difference; of one without seeds (an untrained row has one) each seed is taken."""
        return Margins(
            seeds=self.seeds - other.seeds,
            images=self.images - other.images,
            conditions=self.conditions - other.conditions,
        )


def margins(values: Array) -> Margins:
    """The margins of `values` (n_seeds, n_images, n_conditions)."""
    over_seeds = values.mean(axis=0)
    return Margins(seeds=values.mean(axis=(1, 2)), images=over_seeds.mean(axis=1), conditions=over_seeds.mean(axis=0))


def estimate(values: Margins) -> Estimate:
    """The mean over seeds, images and conditions.

    A factor of one level (a single condition) is taken as given: the mean is of that one.
    """
    mean = float(values.seeds.mean())
    if len(values.seeds) < 2:
        return Estimate(mean=mean)
    parts, freedom = _variances(values)
    standard_error = float(np.sqrt(parts.sum()))
    if standard_error == 0:
        return Estimate(mean=mean, standard_error=0.0, low=mean, high=mean, p=float(mean == 0))
    weights = parts / parts.sum()
    reach = _critical(LEVEL, weights, freedom) * standard_error
    return Estimate(
        mean=mean,
        standard_error=standard_error,
        low=mean - reach,
        high=mean + reach,
        p=_p(abs(mean) / standard_error, weights, freedom),
    )


def wins(difference: Array) -> float:
    """How often A is better than B where `difference` (n_seeds, n_images, n_conditions) is A - B: P(A > B) of one
    training, image and condition (Bouthillier et al. 2021); ties count half."""
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that the chance of any false claim among them is kept (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(order)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _variances(values: Margins) -> tuple[Array, Array]:
    """The parts of the mean's variance by factor, and their degrees of freedom; factors of one level have none."""
    means = [each for each in (values.seeds, values.images, values.conditions) if len(each) > 1]
    parts = np.array([each.var(ddof=1) / len(each) for each in means])
    return parts, np.array([len(each) - 1.0 for each in means])


def _critical(level: float, weights: Array, freedom: Array) -> float:
    return float(-weights @ stdtrit(freedom, level / 2))


def _p(statistic: float, weights: Array, freedom: Array) -> float:
    """The level at which the critical value is the statistic."""
    if statistic == 0:
        return 1.0
    smallest = 1e-15
    if _critical(smallest, weights, freedom) <= statistic:
        return smallest
    return float(brentq(lambda level: _critical(level, weights, freedom) - statistic, smallest, 1.0))

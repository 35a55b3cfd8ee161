"""Intervals against closed forms, other libraries, and studies simulated from known effects."""

import itertools

import numpy as np
import pytest
from scipy.stats import false_discovery_control, t, ttest_1samp

from analysis import stats
from analysis.stats import LEVEL, crossed, holm, margins, wins

FACES, KERNELS, STUDIES = 100, 80, 500
IMAGES = FACES * KERNELS


def estimate(values):
    return stats.estimate(margins(values))


def null_study(rng, seeds, *, effect=0.0, seed=0.15, face=0.5, kernel=0.3):
    """Differences in dB between two rows: what trainings, faces and kernels (and pairs of them) add to an effect."""

    def part(scale, *shape):
        return scale * rng.standard_normal(shape)

    return (
        effect
        + part(seed, seeds, 1, 1)
        + part(face, 1, FACES, 1)
        + part(kernel, 1, 1, KERNELS)
        + part(0.1, seeds, FACES, 1)
        + part(0.1, seeds, 1, KERNELS)
        + part(0.3, 1, FACES, KERNELS)
        + part(0.3, seeds, FACES, KERNELS)
    )


def claimed(differences):
    """The share of studies in which a difference is claimed."""
    return np.mean([estimate(difference).p < LEVEL for difference in differences])


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "scales",
    [
        {},
        {"seed": 0.3, "face": 0.3, "kernel": 0.3},
        {"seed": 0.3, "face": 0.05, "kernel": 0.05},
        {"seed": 0.0},
        {"seed": 0.05, "face": 1.0, "kernel": 0.1},
    ],
    ids=lambda scales: ",".join(f"{name}={value}" for name, value in scales.items()) or "usual",
)
def test_what_is_not_there_is_rarely_claimed_where_an_image_level_test_claims_it_often(seeds, scales, record_property):
    rng = np.random.default_rng(0)
    ours, naive = [], []
    for _ in range(STUDIES):
        difference = null_study(rng, seeds, **scales)
        ours.append(estimate(difference).p < LEVEL)
        naive.append(ttest_1samp(difference.ravel(), 0.0).pvalue < LEVEL)
    record_property("false positives", float(np.mean(ours)))
    record_property("false positives of an image-level t-test", float(np.mean(naive)))
    print(f"{seeds} seeds, {scales}: claimed in {np.mean(ours):.1%}, by an image-level t-test in {np.mean(naive):.1%}")
    assert np.mean(ours) <= 0.07
    assert np.mean(naive) > 0.20


def test_the_power_to_find_0_3_db_with_five_seeds(record_property):
    rng = np.random.default_rng(1)
    found = {}
    for seed in (0.05, 0.15, 0.3):
        found[seed] = claimed(null_study(rng, 5, effect=0.3, seed=seed) for _ in range(STUDIES))
        record_property(f"power, seeds differ by {seed} dB", found[seed])
        print(f"0.3 dB, 5 seeds that differ by {seed} dB: found in {found[seed]:.1%}")
    assert found[0.05] > 0.9
    assert found[0.05] > found[0.15] > found[0.3] > LEVEL


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    studies = [estimate(null_study(rng, 3, effect=1.0)) for _ in range(STUDIES)]
    held = np.mean([each.low <= 1.0 <= each.high for each in studies])
    assert held >= 0.93


def test_with_one_image_and_one_condition_it_is_students_t_test():
    values = np.array([0.5, 0.1, 0.9, 0.4])
    found, expected = estimate(values.reshape(4, 1, 1)), ttest_1samp(values, 0.0)
    assert found.mean == pytest.approx(values.mean())
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_three_parts_worked_out_by_hand():
    """Additive effects: each factor's means differ by its effects alone."""
    seeds, images, conditions = np.array([0.0, 0.3, 0.6]), np.array([-1.0, 1.0]), np.array([0.0, 0.0, 0.4, 0.4])
    values = seeds[:, None, None] + images[:, None] + conditions
    found = estimate(values)
    parts = np.array([0.09 / 3, 2.0 / 2, (4 * 0.2**2 / 3) / 4])
    critical = parts @ [t.isf(0.025, 2), t.isf(0.025, 1), t.isf(0.025, 3)] / parts.sum()
    assert found.mean == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(np.sqrt(parts.sum()))
    assert (found.low, found.high) == pytest.approx(
        (0.5 - critical * np.sqrt(parts.sum()), 0.5 + critical * np.sqrt(parts.sum()))
    )
    # The interval at level p ends at 0.
    quantiles = [t.isf(found.p / 2, freedom) for freedom in (2, 1, 3)]
    assert parts @ quantiles / parts.sum() * np.sqrt(parts.sum()) == pytest.approx(0.5, rel=1e-6)


def test_one_seed_has_a_mean_and_no_interval():
    found = estimate(np.arange(6.0).reshape(1, 2, 3))
    assert (found.mean, found.low, found.high, found.p) == (2.5, None, None, None)


def test_no_difference_at_all_is_certain_and_no_claim():
    found = estimate(np.zeros((3, 2, 2)))
    assert (found.mean, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_the_margins_of_a_difference_are_the_difference_of_the_margins():
    rng = np.random.default_rng(3)
    a, b, one = rng.random((3, 4, 5)), rng.random((3, 4, 5)), rng.random((1, 4, 5))
    for other in (b, one):
        found, expected = margins(a) - margins(other), margins(a - other)
        assert stats.estimate(found).p == pytest.approx(stats.estimate(expected).p)
        assert found.images == pytest.approx(np.array([(a - other)[:, index].mean() for index in range(4)]))
        assert found.conditions == pytest.approx(np.array([(a - other)[:, :, index].mean() for index in range(5)]))
        assert found.seeds == pytest.approx(np.array([(a - other)[index].mean() for index in range(3)]))


def test_wins_are_counted_and_ties_halved():
    assert wins(np.array([[[1.0, -1.0], [0.0, 2.0]]])) == pytest.approx(2.5 / 4)
    assert wins(np.ones((3, 4, 5))) == 1.0


def test_holm_by_brute_force():
    """A hypothesis is rejected at a level if each set of hypotheses that holds it is, by Bonferroni's rule."""
    p_values = [0.01, 0.04, 0.03, 0.5]

    def closed(index):
        subsets = itertools.chain.from_iterable(itertools.combinations(range(4), size) for size in range(1, 5))
        return max(min(1.0, len(each) * min(p_values[i] for i in each)) for each in subsets if index in each)

    assert holm(p_values) == pytest.approx([closed(index) for index in range(4)])
    assert holm([]) == []
    # Never less careful than a control of the false discovery rate.
    assert all(np.asarray(holm(p_values)) >= false_discovery_control(p_values))


def test_values_in_any_order_are_laid_out_by_image_and_condition():
    images, conditions = np.array([7, 3, 7, 3, 7, 3]), np.array([1, 1, 5, 5, 2, 2])
    values = np.array([10.0 * images + conditions])
    table, rows, columns = crossed(values, images, conditions)
    assert rows.tolist() == [3, 7]
    assert columns.tolist() == [1, 2, 5]
    assert table.tolist() == [[[31.0, 32.0, 35.0], [71.0, 72.0, 75.0]]]


@pytest.mark.parametrize("pairs", [[(0, 0), (0, 1), (1, 0)], [(0, 0), (0, 0)], []])
def test_an_image_that_is_not_under_each_condition_once_is_refused(pairs):
    images, conditions = np.array(pairs, dtype=int).reshape(-1, 2).T
    with pytest.raises(ValueError, match="must be there once under each condition"):
        crossed(np.zeros((1, len(pairs))), images, conditions)

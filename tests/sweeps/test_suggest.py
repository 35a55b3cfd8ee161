"""Optuna behind one function: against what a search must find, and what fANOVA must say of a known function."""

import math
from statistics import mean, median

import pytest

from sweeps.stages import Range, Space
from sweeps.suggest import Known, importances, suggest

SPACE = Space(row="any", ranges=(Range(field="weight", low=1e-5, high=1e-1), Range(field="rate", low=0, high=1)))


def worth(values):
    """Best at weight 1e-3; the rate hardly matters."""
    return -((math.log10(values["weight"]) + 3) ** 2) + 0.01 * values["rate"]


def search(count, seed="0"):
    known = []
    for _ in range(count):
        values = suggest(SPACE, known, seed)
        known.append(Known(values=values, measured={10: worth(values)}, finished=True))
    return known


def test_it_comes_closer_than_chance():
    searches = [search(40, str(seed)) for seed in range(5)]
    medians = [median(-worth(trial.values) for trial in known[20:]) for known in searches]
    assert mean(medians) < 1 / 4  # the median of u² is 1 where u is uniform in [-2, 2]
    assert all(max(worth(trial.values) for trial in known) > -0.05 for known in searches)


def test_the_same_history_gives_the_same_values():
    known = search(9)
    assert suggest(SPACE, known, "0") == suggest(SPACE, list(known), "0")
    assert suggest(SPACE, known, "0") != suggest(SPACE, known, "1")
    assert suggest(SPACE, known, "0") != suggest(SPACE, known[:-1], "0")


def test_values_stay_in_range_beside_running_paused_failed_and_outlying_trials():
    outlying = {"weight": 5.0, "rate": 3.0}
    known = [
        *search(8),
        Known(values=outlying, measured={10: 9.0}, finished=True),
        Known(values={"weight": 1e-4, "rate": 0.5}),
        Known(values={"weight": 1e-2, "rate": 0.5}, measured={5: -2.0}),
    ]
    for seed in range(20):
        values = suggest(SPACE, known, str(seed))
        assert 1e-5 <= values["weight"] <= 1e-1
        assert 0 <= values["rate"] <= 1


def test_importance_is_that_of_the_function():
    shares = importances(SPACE, search(30), 10)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["weight"] > 0.8


def test_too_few_trials_have_no_importance():
    assert importances(SPACE, search(3), 10) == {}
    assert importances(SPACE, search(10), 20) == {}
    alike = [Known(values=trial.values, measured={10: 1.0}) for trial in search(30)]
    assert importances(SPACE, alike, 10) == {}

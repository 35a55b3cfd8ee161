"""What may be claimed of two rows of a table: paired differences with intervals, and a verdict in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from analysis import stats
from analysis.load import StageRun, Sweep
from analysis.states import Problem
from analysis.stats import Array, Estimate, Margins
from sweeps.record import Metric

Family = Literal["row above", "full model"]
"""What rows are compared with: p-values are adjusted within each."""
Verdict = Literal["better", "worse", "no relevant difference", "underpowered", "not compared"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """A row as one side of a comparison: what it is called, its runs by seed, and what speaks against them for a test
    set and metric."""

    name: str
    line: str
    trained: bool
    runs: Mapping[str, StageRun | None]
    problems: Mapping[tuple[str, str], tuple[Problem, ...]]
    known: dict[tuple[str, str], Margins] = field(default_factory=dict)

    def values(self, sweep: Sweep, test: str, metric: str) -> Array:
        """The metric per image (n_seeds, n_images, n_conditions), of runs without a problem."""
        found = [sweep.per_image(run, test) for run in self.runs.values() if run]
        return np.stack([each.metrics[metric] for each in found if each])

    def margins(self, sweep: Sweep, test: str, metric: str) -> Margins:
        """The means of those values, which are asked for more often."""
        if (test, metric) not in self.known:
            self.known[test, metric] = stats.margins(self.values(sweep, test, metric))
        return self.known[test, metric]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Row A (`row`) against row B (`against`), by name, on one test set and metric.

    `difference` is of A - B in the metric's unit and `wins` is P(A > B), both None where the rows can't be compared,
    for which there is a `reason`. `p` is adjusted by Holm's method.
    """

    row: str
    against: str
    test: str
    metric: Metric
    verdict: Verdict
    reason: str = ""
    difference: Estimate | None = None
    wins: float | None = None
    p: float | None = None


def families(sweep: Sweep, rows: Sequence[Side], test: str, metric: Metric) -> dict[Family, list[Comparison]]:
    """Each row against the row above it, and against the full model, which is the last."""
    pairs: dict[Family, list[tuple[Side, Side]]] = {
        "row above": [(below, above) for above, below in pairwise(rows)],
        "full model": [(row, rows[-1]) for row in rows[:-1]],
    }
    return {
        family: [
            _with_wins(sweep, each, *pair) for each, pair in zip(adjusted(sweep, some, test, metric), some, strict=True)
        ]
        for family, some in pairs.items()
    }


def adjusted(sweep: Sweep, pairs: Sequence[tuple[Side, Side]], test: str, metric: Metric) -> list[Comparison]:
    """Comparisons of some pairs, with p-values adjusted for their number; without wins, which take longer."""
    found = [_difference(sweep, a, b, test, metric) for a, b in pairs]
    p_values = iter(stats.holm([each.p for each in found if isinstance(each, Estimate) and each.p is not None]))
    comparisons = []
    for (a, b), difference in zip(pairs, found, strict=True):
        comparison = Comparison(row=a.name, against=b.name, test=test, metric=metric, verdict="not compared")
        if isinstance(difference, str):
            comparisons.append(replace(comparison, reason=difference))
            continue
        p = next(p_values) if difference.p is not None else None
        seeds = max(len(side.runs) if side.trained else 0 for side in (a, b))
        verdict, reason = judge(difference, p, metric, seeds)
        comparisons.append(replace(comparison, verdict=verdict, reason=reason, difference=difference, p=p))
    return comparisons


def best(sweep: Sweep, rows: Sequence[Side], test: str, metric: Metric) -> int | None:
    """Index of the row that is better than every other, each of them by the adjusted p-value; None if none is, or a row
    can't be compared: the missing one may be better."""
    if len(rows) < 2 or any(row.problems[test, metric.name] for row in rows):
        return None
    means = [float(row.margins(sweep, test, metric.name).seeds.mean()) for row in rows]
    first = max(range(len(rows)), key=means.__getitem__)
    others = [(rows[first], row) for row in rows if row is not rows[first]]
    return first if all(each.verdict == "better" for each in adjusted(sweep, others, test, metric)) else None


def judge(difference: Estimate, p: float | None, metric: Metric, seeds: int) -> tuple[Verdict, str]:
    """What may be said of a difference with an (adjusted) p-value, of a mean over so many seeds; and why no more."""
    if difference.low is None or difference.high is None or p is None or seeds < stats.MIN_SEEDS:
        return "underpowered", f"At least {stats.MIN_SEEDS} seeds are needed for a claim, there are {seeds}"
    if p < stats.LEVEL:
        return ("better" if difference.mean > 0 else "worse"), ""
    if -metric.relevant < difference.low and difference.high < metric.relevant:
        return "no relevant difference", ""
    return "underpowered", ""


def _difference(sweep: Sweep, a: Side, b: Side, test: str, metric: Metric) -> Estimate | str:
    """A - B, or why there is none."""
    for side in (a, b):
        if problems := side.problems[test, metric.name]:
            return f"{side.line} is {', '.join(sorted({problem.state for problem in problems}))}"
    return stats.estimate(a.margins(sweep, test, metric.name) - b.margins(sweep, test, metric.name))


def _with_wins(sweep: Sweep, each: Comparison, a: Side, b: Side) -> Comparison:
    if each.difference is None:
        return each
    test, metric = each.test, each.metric.name
    return replace(each, wins=stats.wins(a.values(sweep, test, metric) - b.values(sweep, test, metric)))

"""Successive halving with promotion, for trials that start at different times.

All trials run to the first rung; the best share of them goes on to the next, and so on: the rungs of ASHA (Li et al.
2020, *A System for Massively Parallel Hyperparameter Tuning*). ASHA promotes a trial that is among the best so far, so
that what it spends, and on whom, depends on the order of arrival. Here a trial is promoted when it is certain to be
among the best, whatever the unfinished ones will be worth: the decisions are those of waiting for every rung to be
full, in any order of arrival, but nobody waits who need not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Scores = Mapping[int, Sequence[float]]
"""For each trial its value at each rung it has reached, in order; higher is better, -inf for one that failed there."""


@dataclass(frozen=True, kw_only=True)
class Halving:
    """`trials` numbered from 0; `rungs` in steps from the trial's own start, the last its end; a rung lets one in
    `factor` go on, rounded up."""

    trials: int
    rungs: tuple[int, ...]
    factor: int

    def due(self, scores: Scores) -> list[tuple[int, int]]:
        """(trial, rung) of all that may run to that rung and have no value there yet, the highest rung first."""
        found = []
        for rung, population in enumerate(self._populations(scores)):
            found += [(trial, rung) for trial in population.members if len(scores.get(trial, ())) <= rung]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def out(self, scores: Scores) -> dict[int, str]:
        """Trials that will not be promoted, whatever the unfinished are worth, and why."""
        lost: dict[int, str] = {}
        for rung, population in enumerate(self._populations(scores)[:-1]):
            for rank, trial in enumerate(population.ranked(scores, rung)):
                if rank >= population.promoted:
                    value = scores[trial][rung]
                    lost[trial] = (
                        f"{value:.4g} at step {self.rungs[rung]}: not among the best {population.promoted} of "
                        f"{population.size}"
                    )
        return lost

    def _populations(self, scores: Scores) -> "list[_Population]":
        size, members = self.trials, list(range(self.trials))
        populations = []
        for rung in range(len(self.rungs)):
            population = _Population(size=size, members=members, promoted=math.ceil(size / self.factor))
            populations.append(population)
            ranked = population.ranked(scores, rung)
            worthy = [trial for trial in ranked if scores[trial][rung] > -math.inf]
            unfinished = size - len(ranked)
            members = [trial for rank, trial in enumerate(worthy) if rank + unfinished < population.promoted]
            size = min(population.promoted, len(worthy) + unfinished)
        return populations


@dataclass(frozen=True, kw_only=True)
class _Population:
    """A rung's trials: how many there will be, those that are certain, and how many will be promoted."""

    size: int
    members: list[int]
    promoted: int

    def ranked(self, scores: Scores, rung: int) -> list[int]:
        """Those that have finished the rung, the best first."""
        finished = [trial for trial in self.members if len(scores.get(trial, ())) > rung]
        return sorted(finished, key=lambda trial: (-scores[trial][rung], trial))


def rungs(*, steps: int, factor: int, count: int, multiple: int) -> tuple[int, ...]:
    """At most `count` rungs that end at `steps`, each about `factor` times the one before, multiples of `multiple`."""
    lower = {multiple * math.ceil(steps / factor**level / multiple) for level in range(1, count)}
    return (*sorted(rung for rung in lower if rung < steps), steps)

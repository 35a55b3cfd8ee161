"""A search: trials of one stage with different values, each forked from the same parent, halved and promoted.

All there is to know of a search is in the tracking store: which trials there are (tags of their runs) and what they
were worth at each rung (their curves). Everything else is a function of that, so that a search that was killed goes on
as if it had not been.
"""

import json
import math
from dataclasses import dataclass, field
from functools import reduce
from itertools import takewhile
from typing import Protocol

from sweeps import record
from sweeps.halving import Halving
from sweeps.naming import got
from sweeps.overrides import field_names
from sweeps.stages import Space, Stage, Values, digest, with_values
from sweeps.suggest import Known, importances, suggest
from sweeps.sweep import State, Sweep


@dataclass(kw_only=True)
class Trial:
    """`measured` is the metric by step from the stage's own start."""

    number: int
    stage: Stage
    values: Values
    measured: dict[int, float] = field(default_factory=dict)

    def last_step(self) -> int:
        """The last step at which it was measured."""
        return max(self.measured, default=0)


class History(Protocol):
    """What a search reads from the store."""

    def trials(self, search: str) -> dict[int, Values]:
        """The values of each trial of a search."""

    def curve(self, stage: Stage, metric: str) -> dict[int, float]:
        """Values of a metric by global step; empty where the stage has no run."""


class Search:
    """Trials of a stage, as the schedule of a sweep.

    Trial 0 is the stage as it is: a row of a table, so it runs to its end. The others are halved.

    Args:
        base: the stage whose config is varied; all trials start where its parent ended.
        space: which fields, and their ranges.
        trials: how many in all.
        rungs: steps from the stage's start at which trials are compared; the last is its end.
        factor: one in `factor` goes on from a rung.
        metric: a validation metric, to be made as large as possible.
        history: what is known of this search already.
    """

    def __init__(
        self,
        *,
        base: Stage,
        space: Space,
        trials: int,
        rungs: tuple[int, ...],
        factor: int,
        metric: str,
        history: History,
    ) -> None:
        self.space, self.metric = space, metric
        self.id = search_id(base, space, rungs, factor, metric)
        self._base, self._count, self.rungs, self._history = base, trials, rungs, history
        self._halving = Halving(trials=trials - 1, rungs=rungs, factor=factor)
        self.trials = [self._trial(0, base, current_values(base, space))]
        recorded = history.trials(self.id)
        # A missing number is of a trial whose run was never opened: it is drawn again.
        while len(self.trials) < trials and (values := recorded.get(len(self.trials))):
            self.trials.append(self._varied(values))

    @property
    def stages(self) -> list[Stage]:
        """The stages of the trials so far."""
        return [trial.stage for trial in self.trials]

    def next(self, sweep: Sweep) -> tuple[Stage, int] | None:
        """What `Schedule` asks."""
        default = self.trials[0]
        if sweep.states[default.stage.key] == State.WAITING:
            return default.stage, default.stage.steps
        self._prune(sweep)
        for index, rung in self._halving.due(self._scores(sweep)):
            number = index + 1
            if number == len(self.trials):
                drawn = self._varied(suggest(self.space, self._known(sweep), self.id))
                sweep.add(drawn.stage)
                self.trials.append(drawn)
            stage = self.trials[number].stage
            if sweep.states[stage.key] in (State.WAITING, State.PAUSED, State.PRUNED):
                return stage, self.rungs[rung]
        return None

    def over(self, sweep: Sweep) -> bool:
        """What `Schedule` asks."""
        if sweep.states[self.trials[0].stage.key] == State.WAITING:
            return False
        self._prune(sweep)
        return not self._halving.due(self._scores(sweep))

    def hear(self, stage: Stage, step: int, metrics: dict[str, float]) -> None:
        """What `Schedule` is told."""
        if self.metric in metrics:
            for trial in self.trials:
                if trial.stage.key == stage.key:
                    trial.measured[step] = metrics[self.metric]

    def best(self, sweep: Sweep) -> Trial | None:
        """Of the trials that ran to their end, the best there."""
        done = [trial for trial in self.trials if sweep.states[trial.stage.key] == State.DONE]
        return max(done, key=lambda trial: (trial.measured[trial.stage.steps], -trial.number), default=None)

    def importances(self, sweep: Sweep) -> dict[str, float]:
        """Each field's share of the variance at the first rung, which all but failed trials reach."""
        return importances(self.space, self._known(sweep), self.rungs[0])

    def full_steps(self) -> int:
        """Steps if all trials ran to their end."""
        return self._count * self._base.steps

    def _varied(self, values: Values) -> Trial:
        """The next trial."""
        number = len(self.trials)
        labels = (
            (record.LABEL_SEARCH, self.id),
            (record.LABEL_TRIAL, str(number)),
            (record.LABEL_VALUES, json.dumps(values)),
        )
        stage = with_values(self._base, values, labels=labels, name=f"{self._base.name} · trial {number}")
        return self._trial(number, stage, values)

    def _trial(self, number: int, stage: Stage, values: Values) -> Trial:
        curve = self._history.curve(stage, self.metric)
        measured = {step - stage.first_step: value for step, value in curve.items()}
        return Trial(number=number, stage=stage, values=values, measured=measured)

    def _scores(self, sweep: Sweep) -> dict[int, list[float]]:
        return {trial.number - 1: self._score(sweep, trial) for trial in self.trials[1:]}

    def _score(self, sweep: Sweep, trial: Trial) -> list[float]:
        state, measured = sweep.states[trial.stage.key], trial.measured
        if state == State.DONE:
            # One that was not trained by this search may not have been measured at its rungs.
            return [measured.get(rung, measured[self.rungs[-1]]) for rung in self.rungs]
        # At its end a trial has more to do than to be measured: it counts when the store has it.
        values = [measured[rung] for rung in takewhile(measured.__contains__, self.rungs[:-1])]
        return [*values, -math.inf] if state == State.FAILED else values

    def _known(self, sweep: Sweep) -> list[Known]:
        return [
            Known(
                values=trial.values,
                measured=trial.measured,
                finished=sweep.states[trial.stage.key] == State.DONE,
            )
            for trial in self.trials
        ]

    def _prune(self, sweep: Sweep) -> None:
        for index, reason in self._halving.out(self._scores(sweep)).items():
            stage = self.trials[index + 1].stage
            if sweep.states[stage.key] in (State.PAUSED, State.WAITING):
                sweep.prune(stage, reason)


def current_values(stage: Stage, space: Space) -> Values:
    """What the stage has now in the fields of a space.

    Raises:
        ValueError: a field that is not a number of this stage's config or makes no difference to it, or a range that
            it does not take.
    """
    contents = {name: reduce(getattr, name.split("."), stage.config) for name in field_names(stage.config)}
    numbers = {name: content for name, content in contents.items() if isinstance(content, float)}
    known = {name: content for name, content in numbers.items() if name not in stage.config.idle_fields()}
    for each in space.ranges:
        if each.field not in known:
            raise ValueError(
                f"a search must vary a real-valued field that makes a difference to row {space.row!r} "
                f"({', '.join(known)}); {got(each.field, known)}"
            )
        for bound in (each.low, each.high):
            with_values(stage, {each.field: bound})
    return {each.field: known[each.field] for each in space.ranges}


def search_id(base: Stage, space: Space, rungs: tuple[int, ...], factor: int, metric: str) -> str:
    """Digest of what a search is; not of how many trials it has, so that more can be added."""
    ranges = [[each.field, each.low, each.high] for each in space.ranges]
    return digest({"base": base.key, "ranges": ranges, "rungs": rungs, "factor": factor, "metric": metric})

"""Optuna as a function: from what is known of the trials so far to the next values, and to each field's importance.

The only file that knows Optuna. No Optuna storage is kept: the tracking store has all there is to know, and a study is
rebuilt from it whenever one is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.stages import Space, Values

optuna.logging.set_verbosity(optuna.logging.WARNING)

TRIALS_FOR_IMPORTANCE = 4
"""Fewer say nothing of what matters."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A trial so far: its values, and the metric at the steps where it was measured. `finished` at the last of them;
    no measurement yet: it is running."""

    values: Values
    measured: dict[int, float] = field(default_factory=dict)
    finished: bool = False


def suggest(space: Space, known: Sequence[Known], search: str) -> Values:
    """The next values to try: TPE on all trials so far. The same arguments give the same values, and another `search`
    (its digest) others: two searches should not begin alike."""
    study = _study(space, known, crc32(f"{search} {len(known)}".encode()))
    trial = study.ask(_distributions(space))
    return {each.field: float(trial.params[each.field]) for each in space.ranges}


def importances(space: Space, known: Sequence[Known], step: int) -> dict[str, float]:
    """Each field's share of the variance of the metric at `step` (fANOVA), among the trials that got there; empty where
    fewer than TRIALS_FOR_IMPORTANCE did, or there is no variance."""
    there = [
        Known(values=trial.values, measured={step: trial.measured[step]}, finished=True)
        for trial in known
        if step in trial.measured
    ]
    if len(there) < TRIALS_FOR_IMPORTANCE:
        return {}
    if len({trial.measured[step] for trial in there}) == 1:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(_study(space, there, 0), evaluator=evaluator))


def _study(space: Space, known: Sequence[Known], seed: int) -> optuna.Study:
    # A constant liar: two trials that run at the same time should not be alike.
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=6)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in known:
        study.add_trial(_frozen(space, trial))
    return study


def _frozen(space: Space, trial: Known) -> FrozenTrial:
    inside = all(each.low <= trial.values[each.field] <= each.high for each in space.ranges)
    last = trial.measured[max(trial.measured)] if trial.measured else None
    unfinished = TrialState.PRUNED if trial.measured else TrialState.RUNNING
    return create_trial(
        # The default may lie outside what is searched: then it is no evidence for TPE.
        params=trial.values if inside else {},
        distributions=_distributions(space) if inside else {},
        value=last if trial.finished else None,
        intermediate_values=trial.measured,
        state=TrialState.COMPLETE if trial.finished else unfinished,
    )


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {each.field: FloatDistribution(each.low, each.high, log=each.low > 0) for each in space.ranges}

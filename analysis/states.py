"""Where the runs behind a number stand: which seeds have one, and what keeps each of the others, or these, from being
defended."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis.load import FINISHED, PerImage, StageRun, Sweep
from analysis.stats import usable
from sweeps import record

COMPLETE = "complete"
RUNNING, PAUSED, STOPPED, PRUNED, STALE, DOUBTFUL, NOT_FINITE, FAILED, MISSING = REASONS = (
    "running",
    "paused",
    "stopped",
    "pruned",
    "stale",
    "doubtful",
    "not finite",
    "failed",
    "missing",
)
"""What speaks against a run: what the next sweep may still change comes first. A run that is doubtful, or stale for its
code or data, has a number all the same."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a cell can't be defended: a seed ("" if the row has none) without a number, or with one that is stale or
    doubtful. `detail` says more, in words that follow on `state`."""

    state: str
    seed: str
    run_id: str
    detail: str

    def sentence(self) -> str:
        """What a footnote says of it."""
        seed = f"seed {self.seed} " if self.seed else ""
        detail = f": {self.detail}" if self.detail else ""
        run = f" (run {self.run_id})" if self.run_id else ""
        return f"{seed}{self.state}{detail}{run}"


def status_on(sweep: Sweep, run: StageRun | None, test: str) -> tuple[str, str]:
    """Where a run stands on a test set, "complete" or one of `REASONS`, and what more there is to say of it.

    "stale" is a finished run that was evaluated under another protocol, "missing" one that was not evaluated.
    """
    if run is None:
        return MISSING, ""
    if run.status != FINISHED:
        if record.TAG_PRUNED in run.tags:
            return PRUNED, _short(run.tags[record.TAG_PRUNED])
        status = {"FAILED": FAILED, "KILLED": STOPPED, "SCHEDULED": PAUSED}.get(run.status, RUNNING)
        return status, _short(run.tags.get(record.TAG_FAILURE, "")) if status == FAILED else ""
    fingerprint = run.tags.get(record.protocol_tag(test))
    if fingerprint is None:
        return MISSING, f"not evaluated on {test}"
    wanted = sweep.record.fingerprints[test]
    return (COMPLETE, "") if fingerprint == wanted else (STALE, f"of protocol {fingerprint}, not {wanted}")


def newest(sweep: Sweep, runs: Iterable[StageRun], test: str) -> StageRun | None:
    """Of some runs the last one that was begun and is complete on a test set: what others are stale against."""
    complete = [run for run in runs if status_on(sweep, run, test)[0] == COMPLETE]
    return max(complete, key=lambda run: (run.start_time, run.run_id), default=None)


def numbers(
    sweep: Sweep,
    runs: Mapping[str, StageRun | None],
    test: str,
    metric: str,
    *,
    trained: bool,
    against: StageRun | None,
) -> tuple[dict[str, float], tuple[Problem, ...]]:
    """The final metric of each run by seed, where it has one; and what speaks against these and the others.

    Args:
        runs: of one row, by seed.
        trained: whether the row depends on training data.
        against: the run whose code and data must be theirs.
    """
    values: dict[str, float] = {}
    problems: list[Problem] = []
    for seed, run in runs.items():
        state, detail = _state(sweep, run, test, metric)
        if run and state == COMPLETE:
            values[seed] = run.metrics[record.test_metric(test, metric)]
            state, detail = (
                _code_doubt(sweep, run, against or run)
                or _data_doubt(run, against or run, test, trained)
                or _image_doubt(sweep, run, test, metric)
                or (COMPLETE, "")
            )
        if state != COMPLETE:
            problems.append(Problem(state=state, seed=seed, run_id=run.run_id if run else "", detail=detail))
    return values, tuple(problems)


def require_same_images(sweep: Sweep, runs: Iterable[StageRun], test: str) -> None:
    """Refuse to compare runs whose per-image metrics on a test set are of different images.

    Raises:
        ValueError: two are, although they are of one protocol; it names them.
    """
    known: tuple[StageRun, PerImage] | None = None
    for run in sorted(runs, key=lambda each: each.run_id):
        found = sweep.per_image(run, test)
        if found is None:
            continue
        if known and not found.same_images(known[1]):
            raise ValueError(
                f"runs of one protocol must be of the same images, got different ones on {test} "
                f"in runs {known[0].run_id} and {run.run_id}"
            )
        known = known or (run, found)


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def _state(sweep: Sweep, run: StageRun | None, test: str, metric: str) -> tuple[str, str]:
    state, detail = status_on(sweep, run, test)
    if run is None or state != COMPLETE:
        return state, detail
    name = record.test_metric(test, metric)
    if name not in run.metrics:
        return MISSING, f"no {name}"
    return (COMPLETE, "") if usable(run.metrics[name]) else (NOT_FINITE, "")


def _code_doubt(sweep: Sweep, run: StageRun, against: StageRun) -> tuple[str, str] | None:
    """Whether a run and the stages before it were computed by the code of another, as far as is known."""
    wanted = against.tags.get(record.TAG_CODE_DIGEST, "")
    for each in reversed(sweep.chain(run)):
        code = each.tags.get(record.TAG_CODE_DIGEST, "")
        of = "" if each is run else f" of its stage {each.tags.get(record.TAG_STAGE, each.run_id)}"
        if not code:
            return DOUBTFUL, f"code{of} not recorded"
        if "+" in code:
            return DOUBTFUL, f"code{of} changed while it was computed ({code})"
        if code != wanted and wanted and "+" not in wanted:
            return STALE, f"code{of} {code}, the newest run's is {wanted}"
    return None


def _data_doubt(run: StageRun, against: StageRun, test: str, trained: bool) -> tuple[str, str] | None:
    ours, theirs = _data(run, test, trained), _data(against, test, trained)
    if ours == theirs:
        return None
    return STALE, f"data {ours or 'not recorded'}, the newest run's is {theirs or 'not recorded'}"


def _data(run: StageRun, test: str, trained: bool) -> str:
    """Digests of what a run was trained (and its stages before: they are part of its key) and tested on; the names of
    the data are their user's."""
    tests, tested = record.data_tag("test "), record.data_tag(f"test {test}")
    found = {
        f"{tag.removeprefix(record.TAG_DATA_PREFIX).partition(' ')[0]} {digest}"
        for tag, digest in run.tags.items()
        if tag == tested or (trained and tag.startswith(record.TAG_DATA_PREFIX) and not tag.startswith(tests))
    }
    return ", ".join(sorted(found))


def _image_doubt(sweep: Sweep, run: StageRun, test: str, metric: str) -> tuple[str, str] | None:
    """Whether there is nothing to compare image by image, or something else than the number says."""
    found = sweep.per_image(run, test)
    if found is None or not np.isfinite(found.metrics[metric]).all():
        return DOUBTFUL, "no finite per-image metrics"
    mean = found.metrics[metric].mean()
    if not np.isclose(mean, run.metrics[record.test_metric(test, metric)], rtol=1e-6):
        return DOUBTFUL, f"its per-image metrics have another mean, {mean:.6g}"
    return None

"""Two rows, or two runs, side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis import stats
from analysis.document import Column, Grid, Note, Section, Text
from analysis.layout import interval_text, number, p_text, with_unit
from analysis.load import FINISHED, StageRun, Sweep
from analysis.stats import Array
from analysis.tables import COMPLETE, judge, status_on
from sweeps import record
from sweeps.record import Metric, RowRecord

TAGS = {
    record.TAG_STAGE: "stage",
    record.TAG_COMMIT: "commit",
    record.TAG_CODE_DIGEST: "code digest",
    record.TAG_HARDWARE: "hardware",
    record.TAG_VERSIONS: "versions",
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: its name and its finished runs by seed ("" for an untrained row)."""

    name: str
    runs: dict[str, StageRun]


def compare_rows(sweep: Sweep, a: str, b: str) -> Section:
    """How row or run `a` differs from `b`: results, settings, results along the record's axis.

    Raises:
        ValueError: a name that is neither a row's nor a run's, a row without a finished run, no seed in common.
    """
    one, other = _paired(_side(sweep, a), _side(sweep, b))
    axis = sweep.record.axis
    results = [
        _result(sweep, one, other, test, metric) for test in sweep.record.tests for metric in sweep.record.metrics
    ]
    grids = [_results_grid(one, other, [each for each in results if each]), _settings_grid(one, other)]
    if axis:
        grids += [
            _axis_grid(sweep, one, other, test, metric)
            for test in sweep.record.tests
            for metric in sweep.record.metrics
        ]
    return Section(title=f"{one.name} against {other.name}", grids=tuple(grid for grid in grids if grid.rows))


def _side(sweep: Sweep, name: str) -> Side:
    rows: dict[str, RowRecord] = {row.name: row for table in sweep.record.tables for row in table.rows}
    finished = {
        row.name: {seed: run for seed, run in sweep.row_runs(row).items() if run and run.status == FINISHED}
        for row in rows.values()
    }
    if name in rows:
        if not finished[name]:
            raise ValueError(f"RUN must be a row with a finished run, and {name!r} has none")
        return Side(name=name, runs=finished[name])
    found: dict[str, Side] = {}
    for row, runs in finished.items():
        for seed, run in runs.items():
            if name and run.run_id.startswith(name):
                found.setdefault(run.run_id, Side(name=f"{row}, seed {seed}" if seed else row, runs={seed: run}))
    if len(found) != 1:
        listed = ", ".join(rows)
        raise ValueError(f"RUN must be a row ({listed}) or the id of one finished run of a row, got {name!r}")
    return next(iter(found.values()))


def _paired(a: Side, b: Side) -> tuple[Side, Side]:
    """Both with the seeds that they have in common; two single runs are a pair whatever their seeds."""
    if len(a.runs) == len(b.runs) == 1 or "" in {*a.runs, *b.runs}:
        return a, b
    common = [seed for seed in a.runs if seed in b.runs]
    if not common:
        raise ValueError(
            f"{a.name} and {b.name} must have a seed in common, got {_listed(a.runs)} and {_listed(b.runs)}"
        )
    return tuple(Side(name=side.name, runs={seed: side.runs[seed] for seed in common}) for side in (a, b))  # type: ignore[return-value]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _values(sweep: Sweep, side: Side, test: str, metric: str) -> tuple[Array, Array | None] | None:
    """A metric (n_seeds, n_images, n_conditions) and the axis of the conditions; None where a run has none."""
    found = [
        sweep.per_image(run, test) if status_on(sweep, run, test)[0] == COMPLETE else None for run in side.runs.values()
    ]
    whole = [each for each in found if each]
    if len(whole) < len(found) or not all(each.same_images(whole[0]) for each in whole):
        return None
    return np.stack([each.metrics[metric] for each in whole]), whole[0].axis


def _result(sweep: Sweep, a: Side, b: Side, test: str, metric: Metric) -> tuple[Text, ...] | None:
    found = _values(sweep, a, test, metric.name), _values(sweep, b, test, metric.name)
    if found[0] is None or found[1] is None:
        return None
    ours, theirs = found[0][0], found[1][0]
    difference = stats.estimate(stats.margins(ours - theirs))
    verdict, _ = judge(difference, difference.p, metric, max(len(ours), len(theirs)))
    wins = stats.wins(ours - theirs)
    return (
        Text(text=test),
        Text(text=with_unit(metric.label, metric.unit)),
        Text(text=number(float(ours.mean()), metric.decimals)),
        Text(text=number(float(theirs.mean()), metric.decimals)),
        Text(text=number(difference.mean, metric.decimals, "+")),
        Text(text=interval_text(difference.low, difference.high, metric.decimals, "+") or "–"),
        Text(text=number(wins.mean, 2)),
        p_text(difference.p),
        Text(text=verdict),
    )


def _results_grid(a: Side, b: Side, rows: Sequence[tuple[Text, ...]]) -> Grid:
    texts, means, claims = ("Test set", "Metric"), ("A", "B", "A − B", "95 % interval"), ("P(A > B)", "p")
    seeds = " and ".join(dict.fromkeys(_listed(side.runs) for side in (a, b) if any(side.runs))) or "none"
    return Grid(
        name="results",
        title=f"A: {a.name}, B: {b.name}",
        caption=f"Pairs of the same image and condition; seeds: {seeds}.",
        columns=(
            *(Column(heading=heading, numeric=False) for heading in texts),
            *(Column(heading=heading, group="Means") for heading in means),
            *(Column(heading=heading, group="Claim") for heading in claims),
            Column(heading="A is", group="Claim", numeric=False),
        ),
        labels=len(texts),
        rows=tuple(rows),
        notes=(
            Note(text="p is of this one comparison; a table's are adjusted for the number of its rows."),
            Note(text=f"A claim needs at least {stats.MIN_SEEDS} seeds."),
        ),
    )


def _settings_grid(a: Side, b: Side) -> Grid:
    """Parameters and provenance in which the first runs differ."""
    one, other = (_settings(next(iter(side.runs.values()))) for side in (a, b))
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return Grid(
        name="settings",
        title="Settings that differ",
        caption="Of the last stage of each, as MLflow has them.",
        columns=tuple(Column(heading=heading, numeric=False) for heading in ("Setting", "A", "B")),
        labels=1,
        rows=tuple(
            tuple(Text(text=text) for text in (name, one.get(name, "–"), other.get(name, "–"))) for name in names
        ),
    )


def _settings(run: StageRun) -> dict[str, str]:
    tags = {name: run.tags[tag] for tag, name in TAGS.items() if tag in run.tags}
    return {**{name: value for name, value in run.params.items() if name != "seed"}, **tags}


def _axis_grid(sweep: Sweep, a: Side, b: Side, test: str, metric: Metric) -> Grid:
    axis = sweep.record.axis
    assert axis
    found = _values(sweep, a, test, metric.name), _values(sweep, b, test, metric.name)
    rows = []
    if found[0] and found[1] and found[0][1] is not None:
        ours, theirs, places = found[0][0], found[1][0], found[0][1]
        for place in np.unique(places):
            there = places == place
            difference = stats.estimate(stats.margins((ours - theirs)[:, :, there]))
            rows.append(
                (
                    Text(text=f"{place:g}"),
                    Text(text=number(float(ours[:, :, there].mean()), metric.decimals)),
                    Text(text=number(float(theirs[:, :, there].mean()), metric.decimals)),
                    Text(text=number(difference.mean, metric.decimals, "+")),
                    Text(text=interval_text(difference.low, difference.high, metric.decimals, "+") or "–"),
                )
            )
    return Grid(
        name=f"axis-{test}-{metric.name}",
        title=f"{with_unit(metric.label, metric.unit)} on {test} by {axis.label[:1].lower()}{axis.label[1:]}",
        caption="Intervals are each at 95 %, not adjusted for their number.",
        columns=tuple(Column(heading=heading) for heading in (axis.label, "A", "B", "A − B", "95 % interval")),
        labels=1,
        rows=tuple(rows),
    )

"""Two rows, or two runs, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analysis import stats
from analysis.comparisons import Side, adjusted
from analysis.document import Column, Grid, Note, Section, Text
from analysis.layout import interval_text, number, p_text, with_unit
from analysis.load import StageRun, Sweep
from analysis.states import COMPLETE, newest, numbers, require_same_images, status_on
from analysis.stats import Estimate
from sweeps import record
from sweeps.record import Metric, RowRecord

TAGS = {
    record.TAG_STAGE: "stage",
    record.TAG_COMMIT: "commit",
    record.TAG_CODE_DIGEST: "code digest",
    record.TAG_HARDWARE: "hardware",
    record.TAG_VERSIONS: "versions",
}


def compare_rows(sweep: Sweep, a: str, b: str) -> Section:
    """How row or run `a` differs from `b`: results, settings, results along the record's axis.

    Raises:
        ValueError: a name that is neither a row's nor a run's, a row without a run, no seed in common, a run in common,
            other images.
    """
    one, other = _paired(_side(sweep, a), _side(sweep, b))
    if _run_ids(one) & _run_ids(other):
        raise ValueError(f"the two RUN must have no run in common, got {a!r} and {b!r}")
    places = [(test, metric) for test in sweep.record.tests for metric in sweep.record.metrics]
    for test in sweep.record.tests:
        runs = [run for side in (one, other) for run in side.runs.values() if run]
        require_same_images(sweep, [run for run in runs if status_on(sweep, run, test)[0] == COMPLETE], test)
    one, other = (_with_problems(sweep, side, [one, other]) for side in (one, other))
    grids = [_results_grid(sweep, one, other), _settings_grid(sweep, one, other)]
    if sweep.record.axis:
        sound = [place for place in places if not any(side.problems[place[0], place[1].name] for side in (one, other))]
        grids += [_axis_grid(sweep, one, other, test, metric) for test, metric in sound]
    return Section(title=f"{one.name} against {other.name}", grids=tuple(grid for grid in grids if grid.rows))


def _side(sweep: Sweep, name: str) -> Side:
    """A row with all its runs, or the one run whose id begins so."""
    rows: dict[str, RowRecord] = {row.name: row for table in sweep.record.tables for row in table.rows}
    if name in rows:
        runs = {seed: run for seed, run in sweep.row_runs(rows[name]).items() if run}
        if not runs:
            raise ValueError(f"RUN must be a row with a run ({_with_a_run(sweep, rows)}), and {name!r} has none")
        return Side(name=name, line=name, trained=rows[name].trained, runs=runs, problems={})
    found: dict[str, Side] = {}
    for row in rows.values():
        for seed, run in sweep.row_runs(row).items():
            if run and name and run.run_id.startswith(name):
                title = f"{row.name}, seed {seed}" if seed else row.name
                found.setdefault(
                    run.run_id, Side(name=title, line=title, trained=row.trained, runs={seed: run}, problems={})
                )
    if len(found) != 1:
        raise ValueError(
            f"RUN must be a row of the last sweep ({_with_a_run(sweep, rows)}) or the id of one of its runs, "
            f"got {name!r}"
        )
    return next(iter(found.values()))


def _with_a_run(sweep: Sweep, rows: Mapping[str, RowRecord]) -> str:
    return ", ".join(name for name, row in rows.items() if any(sweep.row_runs(row).values()))


def _paired(a: Side, b: Side) -> tuple[Side, Side]:
    """Both with the seeds that they have in common; two single runs are a pair whatever their seeds."""
    if len(a.runs) == len(b.runs) == 1 or not (a.trained and b.trained):
        return a, b
    common = [seed for seed in a.runs if seed in b.runs]
    if not common:
        raise ValueError(f"{a.name} and {b.name} must have a seed in common, got {_seeds(a)} and {_seeds(b)}")
    return _of_seeds(a, common), _of_seeds(b, common)


def _run_ids(side: Side) -> set[str]:
    return {run.run_id for run in side.runs.values() if run}


def _of_seeds(side: Side, seeds: Iterable[str]) -> Side:
    return replace(side, runs={seed: side.runs[seed] for seed in seeds})


def _seeds(side: Side) -> str:
    return ", ".join(side.runs)


def _with_problems(sweep: Sweep, side: Side, both: Sequence[Side]) -> Side:
    """The side, with what a table of both would say of its runs."""
    problems = {}
    trained = [each for each in both if each.trained] or both
    for test in sweep.record.tests:
        against = newest(sweep, [run for each in trained for run in each.runs.values() if run], test)
        for metric in sweep.record.metrics:
            _, found = numbers(sweep, side.runs, test, metric.name, trained=side.trained, against=against)
            problems[test, metric.name] = found
    return replace(side, problems=problems)


def _results_grid(sweep: Sweep, a: Side, b: Side) -> Grid:
    texts, means, claims = ("Test set", "Metric"), ("A", "B", "A − B", "95 % interval"), ("P(A > B)", "p")
    seeds = " and ".join(dict.fromkeys(_seeds(side) for side in (a, b) if any(side.runs))) or "none"
    sentences = {
        f"{side.name}: {problem.sentence()}."
        for side in (a, b)
        for problems in side.problems.values()
        for problem in problems
    }
    return Grid(
        name="results",
        title=f"A: {a.name}, B: {b.name}",
        caption=f"Pairs of the same image and condition; seeds: {seeds} (preset {sweep.record.preset}).",
        columns=(
            *(Column(heading=heading, numeric=False) for heading in texts),
            *(Column(heading=heading, group="Means") for heading in means),
            *(Column(heading=heading, group="Claim") for heading in claims),
            Column(heading="A is", group="Claim", numeric=False),
        ),
        labels=len(texts),
        rows=tuple(
            _result(sweep, a, b, test, metric) for test in sweep.record.tests for metric in sweep.record.metrics
        ),
        notes=(
            Note(text="p is of this one comparison; a table's are adjusted for the number of its rows."),
            Note(text=f"A claim needs at least {stats.MIN_SEEDS} seeds."),
            *(Note(text=sentence) for sentence in sorted(sentences)),
        ),
    )


def _result(sweep: Sweep, a: Side, b: Side, test: str, metric: Metric) -> tuple[Text, ...]:
    [found] = adjusted(sweep, [(a, b)], test, metric)
    labels = (Text(text=test), Text(text=with_unit(metric.label, metric.unit)))
    if found.difference is None:
        return (*labels, *[Text(text="–")] * 6, Text(text=found.verdict))
    ours, theirs = (side.values(sweep, test, metric.name) for side in (a, b))
    return (
        *labels,
        Text(text=number(float(ours.mean()), metric.decimals)),
        Text(text=number(float(theirs.mean()), metric.decimals)),
        Text(text=number(found.difference.mean, metric.decimals, "+")),
        Text(text=interval_text(found.difference.low, found.difference.high, metric.decimals, "+") or "–"),
        Text(text=number(stats.wins(ours - theirs), 2)),
        p_text(found.p),
        Text(text=found.verdict),
    )


def _settings_grid(sweep: Sweep, a: Side, b: Side) -> Grid:
    """Parameters and provenance in which the first runs differ."""
    one, other = (_settings(next(run for run in side.runs.values() if run)) for side in (a, b))
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return Grid(
        name="settings",
        title="Settings that differ",
        caption=f"Of the last stage of each, as MLflow has them (preset {sweep.record.preset}).",
        columns=tuple(Column(heading=heading, numeric=False) for heading in ("Setting", "A", "B")),
        labels=1,
        rows=tuple(
            tuple(Text(text=text) for text in (name, one.get(name, "–"), other.get(name, "–"))) for name in names
        ),
    )


def _settings(run: StageRun) -> dict[str, str]:
    tags = {name: run.tags[tag] for tag, name in TAGS.items() if tag in run.tags}
    data = {
        f"data: {tag.removeprefix(record.TAG_DATA_PREFIX)}": digest
        for tag, digest in run.tags.items()
        if tag.startswith(record.TAG_DATA_PREFIX)
    }
    return {**{name: value for name, value in run.params.items() if name != "seed"}, **tags, **data}


def _axis_grid(sweep: Sweep, a: Side, b: Side, test: str, metric: Metric) -> Grid:
    axis = sweep.record.axis
    assert axis
    run = next(run for run in a.runs.values() if run)
    found = sweep.per_image(run, test)
    places = found.axis if found else None
    ours, theirs = (side.values(sweep, test, metric.name) for side in (a, b))
    rows = []
    for place in [] if places is None else np.unique(places):
        there = places == place
        difference = stats.estimate(stats.margins((ours - theirs)[:, :, there]))
        if np.count_nonzero(there) < stats.MIN_CONDITIONS:
            difference = Estimate(mean=difference.mean)
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
        caption=f"Intervals are each at 95 %, not adjusted for their number, where there are {stats.MIN_CONDITIONS} "
        f"conditions (preset {sweep.record.preset}).",
        columns=tuple(Column(heading=heading) for heading in (axis.label, "A", "B", "A − B", "95 % interval")),
        labels=1,
        rows=tuple(rows),
    )

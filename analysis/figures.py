"""What the report draws: metrics against the record's axis, learning curves, slices of searches, images of each row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean

import numpy as np

from analysis import stats
from analysis.charts import Series, Slice, drawable, line_chart, slice_chart
from analysis.document import Chart, Column, Gallery, Grid, Note, Text, slugs
from analysis.gallery import Shown, build_gallery
from analysis.layout import number, with_unit
from analysis.load import SearchRuns, StageRun, Sweep
from analysis.tables import COMPLETE, Row, Table, status_on
from sweeps import record
from sweeps.record import Metric, RowRecord


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of the record beside the same row as computed, under all the labels that it has in the tables."""

    labels: tuple[str, ...]
    row: RowRecord
    computed: Row

    @property
    def label(self) -> str:
        """What a legend says."""
        return " / ".join(self.labels)


def distinct_lines(sweep: Sweep, tables: Sequence[Table]) -> list[Line]:
    """The lines of all tables, each training once."""
    found: dict[str, Line] = {}
    for table, computed in zip(sweep.record.tables, tables, strict=True):
        rows = {row.name: row for row in table.rows}
        for row in computed.rows:
            asked = rows[row.name]
            identity = repr(sorted(asked.keys.items()))
            labels = found[identity].labels if identity in found else ()
            label = row.labels[0]
            found[identity] = Line(labels=tuple(dict.fromkeys((*labels, label))), row=asked, computed=row)
    return list(found.values())


def axis_charts(sweep: Sweep, lines: Sequence[Line]) -> list[Chart]:
    """Each metric on each test set against the record's axis, as in the paper's Figs. 6 and 7; none without an axis."""
    tests, metrics = slugs(sweep.record.tests), slugs(metric.name for metric in sweep.record.metrics)
    charts = [
        _axis_chart(sweep, lines, test, metric, f"{tests[test]}-{metrics[metric.name]}")
        for test in sweep.record.tests
        for metric in sweep.record.metrics
    ]
    return [chart for chart in charts if chart]


def _axis_chart(sweep: Sweep, lines: Sequence[Line], test: str, metric: Metric, name: str) -> Chart | None:
    axis = sweep.record.axis
    sound = [line for line in lines if line.computed.cells[test, metric.name].sound]
    series = [each for line in sound if (each := _axis_series(sweep, line, test, metric))]
    if axis is None or not series:
        return None
    left_out = [line.label for line in lines if line not in sound]
    seeds = len(sweep.record.seeds)
    band = (
        f"Bands: 95 % intervals over other seeds ({seeds} here), images and conditions."
        if seeds > 1
        else "One seed: no intervals."
    )
    without = f" Left out, as not every seed has a number: {', '.join(left_out)}." if left_out else ""
    heading = f"{metric.label} against {axis.label[:1].lower()}{axis.label[1:]}"
    return line_chart(
        name=f"{name}-{slugs([axis.column])[axis.column]}",
        title=f"{test}: {heading}, preset {sweep.record.preset}",
        caption=f"{band}{without}",
        description=f"{heading} on {test}, a line for each of {len(series)} rows",
        x_label=axis.label,
        y_label=with_unit(metric.label, metric.unit),
        series=series,
        markers=True,
    )


def _axis_series(sweep: Sweep, line: Line, test: str, metric: Metric) -> Series | None:
    runs = [run for run in sweep.row_runs(line.row).values() if run]
    found = [each for run in runs if (each := sweep.per_image(run, test))]
    axis = found[0].axis if found else None
    if axis is None or not np.isfinite(axis).all():
        return None
    values = np.stack([each.metrics[metric.name] for each in found])
    places = [float(place) for place in np.unique(axis)]
    estimates = [stats.estimate(stats.margins(values[:, :, axis == place])) for place in places]
    bounds = [(each.low, each.high) for each in estimates if each.low is not None and each.high is not None]
    if not all(map(drawable, (*places, *(each.mean for each in estimates), *chain.from_iterable(bounds)))):
        return None
    return Series(
        label=line.label,
        x=tuple(places),
        y=tuple(each.mean for each in estimates),
        low=tuple(low for low, _ in bounds) or None,
        high=tuple(high for _, high in bounds) or None,
    )


def stage_runs(sweep: Sweep, lines: Sequence[Line]) -> dict[str, list[StageRun]]:
    """The runs behind all lines, their earlier stages included, by stage in the order of the lines."""
    found: dict[str, dict[str, StageRun]] = {}
    for line in lines:
        for run in sweep.row_runs(line.row).values():
            for each in sweep.chain(run) if run else ():
                found.setdefault(_stage(each), {})[each.run_id] = each
    return {stage: list(runs.values()) for stage, runs in found.items()}


def curve_chart(sweep: Sweep, stages: dict[str, list[StageRun]]) -> list[Chart]:
    """Learning curves: a line per stage, which begins where the stage before it ended."""
    by_key = {run.tags.get(record.TAG_STAGE_KEY): stage for stage, runs in stages.items() for run in runs}
    series = []
    for stage, runs in stages.items():
        curves = [curve for run in runs if (curve := _drawable(sweep.curve(run)))]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        if not steps:
            continue
        values = [[curve[step] for curve in curves] for step in steps]
        several = len(curves) > 1
        parent = by_key.get(runs[0].tags.get(record.TAG_PARENT_KEY, ""), "")
        series.append(
            Series(
                label=stage,
                x=tuple(map(float, steps)),
                y=tuple(map(fmean, values)),
                low=tuple(map(min, values)) if several else None,
                high=tuple(map(max, values)) if several else None,
                after=parent,
            )
        )
    drawn = {each.label for each in series}
    series = [each if each.after in drawn else replace(each, after="") for each in series]
    if not series:
        return []
    spread = (
        "Lines: mean over seeds; bands: the smallest and the largest." if len(sweep.record.seeds) > 1 else "One seed."
    )
    return [
        line_chart(
            name="learning-curves",
            title=f"Learning curves, preset {sweep.record.preset}",
            caption=f"{spread} A stage that rows share is trained once and drawn once.",
            description=f"{sweep.record.curve} by iteration, a line for each of {len(series)} stages",
            x_label="Iteration",
            y_label=sweep.record.curve,
            series=series,
            markers=False,
        )
    ]


def search_parts(search: SearchRuns, name: str) -> tuple[Grid, list[Chart]]:
    """What a search found: the importance of each field, and slices through its trials at the first rung."""
    asked = search.record
    first, last = asked.rungs[0], asked.rungs[-1]
    title = f"Search of {asked.row}, preset {asked.preset}"
    grid = Grid(
        name=name,
        title=title,
        caption=f"{asked.trials} trials, compared by {asked.metric} after {_listed(asked.rungs)} iterations.",
        columns=(
            Column(heading="Field", numeric=False),
            Column(heading="From"),
            Column(heading="To"),
            Column(heading="Best"),
            Column(heading="Importance"),
        ),
        labels=1,
        rows=tuple(
            (
                Text(text=field),
                *(_value(value) for value in (*bounds, asked.best.get(field))),
                _share(asked.importances.get(field)),
            )
            for field, bounds in sorted(asked.ranges.items())
        ),
        notes=(Note(text="Importance: share of the variance at the first rung (fANOVA); validation data only."),),
    )
    slices = [
        Slice(
            field=field,
            log=low > 0,
            points=tuple(
                (values[field], curve[first], last in curve)
                for values, curve in search.trials
                if first in curve and drawable(curve[first]) and drawable(values.get(field, math.nan))
            ),
        )
        for field, (low, _) in sorted(asked.ranges.items())
    ]
    if not all(each.points for each in slices):
        return grid, []
    chart = slice_chart(
        name=name,
        title=title,
        caption=f"Each trial at the first rung, {first:,} iterations; filled: ran to its end.",
        description=f"{asked.metric} of each trial by the value tried",
        y_label=asked.metric,
        slices=slices,
        best=asked.best,
    )
    return grid, [chart]


def galleries(sweep: Sweep, tables: Sequence[Table]) -> list[Gallery]:
    """For each table and test set the same images in each row, as in the paper's Figs. 3 to 5."""
    tests = slugs(sweep.record.tests)
    found = [
        _gallery(sweep, table, asked.rows, test, f"table-{number}-{tests[test]}-images")
        for number, (asked, table) in enumerate(zip(sweep.record.tables, tables, strict=True), 1)
        for test in sweep.record.tests
    ]
    return [gallery for gallery in found if gallery]


def _gallery(sweep: Sweep, table: Table, rows: Sequence[RowRecord], test: str, name: str) -> Gallery | None:
    """Images of the first seed that every row has; where none is, of each row's own first. The caption says which."""
    study, metric = sweep.record, sweep.record.metrics[0]
    by_name = {row.name: row for row in rows}
    complete = {
        row.name: {
            seed: run
            for seed, run in sweep.row_runs(by_name[row.name]).items()
            if run and status_on(sweep, run, test)[0] == COMPLETE
        }
        for row in table.rows
    }
    trained = [runs for row in table.rows if row.trained and (runs := complete[row.name])]
    common = next((seed for seed in map(str, study.seeds) if all(seed in runs for runs in trained)), "")
    shown: list[Shown] = []
    degraded: dict[tuple[int, int], float] = {}
    degraded_label = "Degraded"
    seeds: list[str] = []
    for row in table.rows:
        if not (runs := complete[row.name]):
            continue
        seed = common if common in runs else next(iter(runs))
        strips = runs[seed].strips(test)
        quality = _quality(sweep, runs[seed], test, metric.name, strips)
        if not row.trained:
            degraded, degraded_label = quality, row.labels[0]
        elif strips:
            seeds.append(seed)
            shown.append(Shown(label=row.labels[0], strips=strips, quality=quality))
    return build_gallery(
        name=name,
        title=f"{table.title}: images of {test}, preset {study.preset}",
        caption=f"The same images under the same conditions in every row; seed {', '.join(dict.fromkeys(seeds))}.",
        zooms=study.zooms,
        degraded=degraded,
        rows=shown,
        metric_label=metric.label,
        unit=metric.unit,
        decimals=metric.decimals,
        degraded_label=degraded_label,
    )


def _quality(
    sweep: Sweep, run: StageRun, test: str, metric: str, pairs: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], float]:
    found = sweep.per_image(run, test)
    if found is None:
        return {}
    rows, columns = found.images.tolist(), found.conditions.tolist()
    return {
        (image, condition): float(found.metrics[metric][rows.index(image), columns.index(condition)])
        for image, condition in pairs
        if image in rows and condition in columns
    }


def _drawable(curve: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in curve.items() if drawable(value)}


def _stage(run: StageRun) -> str:
    return run.tags.get(record.TAG_STAGE, run.run_id)


def _listed(values: Iterable[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _value(value: float | None) -> Text:
    return Text(text="–" if value is None else f"{value:.3g}", value=value)


def _share(value: float | None) -> Text:
    return Text(text="–" if value is None else f"{number(100 * value, 0)} %", value=value)

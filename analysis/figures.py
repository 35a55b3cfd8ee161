"""What the report draws: metrics against the record's axis, learning curves, slices of searches, images of each row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from statistics import fmean

import numpy as np

from analysis import stats
from analysis.charts import Series, Slice, line_chart, slice_chart
from analysis.document import Chart, Column, Gallery, Grid, Note, Text, slugs
from analysis.gallery import Shown, build_gallery
from analysis.layout import number, with_unit
from analysis.lines import Line
from analysis.load import FINISHED, SearchRuns, StageRun, Sweep
from analysis.states import COMPLETE, DOUBTFUL, STALE, status_on
from analysis.stats import usable
from analysis.tables import Table
from sweeps import record
from sweeps.record import Metric, RowRecord


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
    found = {
        line.label: _axis_series(sweep, line, test, metric) if line.sound(test, metric.name) else None for line in lines
    }
    series = [each for each in found.values() if each]
    if axis is None or not series:
        return None
    seeds = len(sweep.record.seeds)
    if any(each.low for each in series):
        band = (
            f"Bands: 95 % intervals over other seeds ({seeds} here), images and conditions, of each trained row for "
            "itself: that two overlap says nothing of their paired difference."
        )
    else:
        band = f"No bands: they need two seeds, and {stats.MIN_CONDITIONS} conditions at each place."
    heading = f"{metric.label} against {axis.label[:1].lower()}{axis.label[1:]}"
    return line_chart(
        name=f"{name}-{slugs([axis.column])[axis.column]}",
        title=f"{test}: {heading}, preset {sweep.record.preset}",
        caption=band + _left_out([label for label, each in found.items() if not each]),
        description=f"{heading} on {test}, a line for each of {len(series)} rows",
        x_label=axis.label,
        y_label=with_unit(metric.label, metric.unit),
        series=series,
        markers=True,
    )


def _left_out(labels: Sequence[str]) -> str:
    return f" Not shown, for the reasons below the tables: {', '.join(labels)}." if labels else ""


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
    if min(np.count_nonzero(axis == place) for place in places) < stats.MIN_CONDITIONS:
        bounds = []
    if not all(map(usable, (*places, *(each.mean for each in estimates), *chain.from_iterable(bounds)))):
        return None
    return Series(
        label=line.label,
        x=tuple(places),
        y=tuple(each.mean for each in estimates),
        low=tuple(low for low, _ in bounds) or None,
        high=tuple(high for _, high in bounds) or None,
    )


def curve_chart(sweep: Sweep, stages: Mapping[str, Sequence[StageRun]]) -> list[Chart]:
    """Learning curves: a line per stage, which begins where the stage before it ended. Of finished runs, if a stage has
    any."""
    by_key = {run.tags.get(record.TAG_STAGE_KEY): stage for stage, runs in stages.items() for run in runs}
    series: list[Series] = []
    unfinished: list[str] = []
    for stage, runs in stages.items():
        finished = [run for run in runs if run.status == FINISHED]
        curves = [curve for run in finished or runs if (curve := _usable(sweep.curve(run)))]
        steps = sorted(set.intersection(*map(set, curves))) if curves else []
        if not steps:
            continue
        if len(finished) < len(runs):
            unfinished.append(f"{stage} ({len(finished)} of {len(runs)} runs are finished)")
        values = [[curve[step] for curve in curves] for step in steps]
        several = len(curves) > 1
        series.append(
            Series(
                label=stage,
                x=tuple(map(float, steps)),
                y=tuple(map(fmean, values)),
                low=tuple(map(min, values)) if several else None,
                high=tuple(map(max, values)) if several else None,
                after=by_key.get(runs[0].tags.get(record.TAG_PARENT_KEY, ""), ""),
            )
        )
    if not series:
        return []
    spread = (
        "Lines: mean over seeds; bands: the smallest and the largest." if len(sweep.record.seeds) > 1 else "One seed."
    )
    return [
        line_chart(
            name="learning-curves",
            title=f"Learning curves, preset {sweep.record.preset}",
            caption=f"{spread} A stage that rows share is trained once and drawn once."
            + (f" Not whole: {', '.join(unfinished)}." if unfinished else ""),
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
                if first in curve and usable(curve[first]) and usable(values.get(field, math.nan))
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
    """Images of the first seed that every row has; where there is none, each label says its seed."""
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
    left_out: list[str] = []
    for row in table.rows:
        runs = complete[row.name]
        seed = common if common in runs else next(iter(runs), "")
        strips = runs[seed].strips(test) if runs else {}
        quality = _quality(sweep, runs[seed], test, metric.name, strips) if strips else {}
        if not row.trained:
            degraded, degraded_label = quality, table.short(row)
        elif strips:
            label = table.short(row) if seed == common else f"{table.short(row)}, seed {seed}"
            stale = any(problem.state in (STALE, DOUBTFUL) for problem in row.cells[test, metric.name].problems)
            shown.append(Shown(label=f"{label} (see footnote)" if stale else label, strips=strips, quality=quality))
        else:
            left_out.append(table.short(row))
    of = f"; seed {common}" if common else ""
    return build_gallery(
        name=name,
        title=f"{table.title}: images of {test}, preset {study.preset}",
        caption=f"The same images under the same conditions in every row{of}.{_left_out(left_out)}",
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
    values = {
        (image, condition): float(found.metrics[metric][rows.index(image), columns.index(condition)])
        for image, condition in pairs
        if image in rows and condition in columns
    }
    return {pair: value for pair, value in values.items() if usable(value)}


def _usable(curve: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in curve.items() if usable(value)}


def _listed(values: Iterable[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def _value(value: float | None) -> Text:
    return Text(text="–" if value is None else f"{value:.3g}", value=value)


def _share(value: float | None) -> Text:
    return Text(text="–" if value is None else f"{number(100 * value, 0)} %", value=value)

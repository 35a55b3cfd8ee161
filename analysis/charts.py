"""Curves and slices as drawings for a page and for a paper, with the numbers in them.

The same numbers give the same bytes whatever the user's Matplotlib settings, locale and time zone are: settings are
Matplotlib's own and ours, its bundled font is drawn as outlines or embedded, and no date is written.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from io import BytesIO, StringIO
from itertools import chain, pairwise
from textwrap import wrap
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.document import Chart
from analysis.stats import usable

FOREGROUND = "black"
"""Text, axes and grid: black in a paper, the page's own colour in a page. No series may have it."""
COLOURS = (
    "#2d5fcd",
    "#ec6b14",
    "#2aa37e",
    "#ac3386",
    "#8c5a06",
    "#857bff",
    "#b26a47",
    "#129ddb",
    "#8180ab",
    "#686556",
)
"""At least 3:1 against white and against a near-black page; far apart in OKLab also for the colour-blind (Machado et
al. 2009: protanopia and deuteranopia), the first ones the most."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))

WIDTH, HEIGHT = 6.4, 3.6  # inches
LEGEND_LINE = 0.17  # inches
PANELS = 3  # side by side
PANEL_HEIGHT = 2.6  # inches

SMALL = 8.0  # points
TITLE = 10.0  # points
TITLE_CHARACTERS = 86  # as many of TITLE fit into WIDTH, of SMALL 96
LEGEND_CHARACTERS = 96
PANEL_CHARACTERS = 30

STYLE: dict[str, object] = {
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelsize": SMALL,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 72,
    "figure.titlesize": TITLE,
    "font.family": "DejaVu Sans",
    "font.size": SMALL,
    "grid.alpha": 0.15,
    "grid.color": FOREGROUND,
    "image.composite_image": False,  # else all the images of a gallery are resampled into one
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # publishers refuse the default, Type 3
    "svg.fonttype": "path",  # the layout was computed with our font; a reader's may be wider
    "text.parse_math": False,  # a dollar in a label is a dollar
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve: `usable` numbers, `x` in rising order. `low` and `high` bound an interval around each `y`.

    `after` is the label of the series that this one continues: it is drawn from that one's last point on.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Trials along one field: of each the value tried, its score (`usable` both), and whether it ran to its end.

    `log` asks for a logarithmic scale; it has one where the values are positive and span a decade.
    """

    field: str
    log: bool
    points: tuple[tuple[float, float, bool], ...]


def line_chart(
    *,
    name: str,
    title: str,
    caption: str,
    description: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    markers: bool,
) -> Chart:
    """Curves over a shared axis, told apart by colour and by markers (points that were measured) or dashes (a trace).

    Raises:
        ValueError: there is no series, or one without points.
    """
    if not series or not all(each.x for each in series):
        raise ValueError(f"chart {name!r} must have series with points, got {len(series)} series")
    assert all(usable(value) for each in series for value in _numbers(each))
    columns = max(1, min(4, LEGEND_CHARACTERS // (max(len(each.label) for each in series) + 8)))
    lines = math.ceil(len(series) / columns)
    with drawing(name):
        figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_LINE * lines), layout="constrained")
        axes = figure.add_subplot()
        ends = {each.label: (each.x[-1], each.y[-1]) for each in series}
        handles = [_draw(axes, each, ends.get(each.after), _look(index, markers)) for index, each in enumerate(series)]
        if markers and (ticks := _ticks(series)):
            axes.set_xticks(ticks)
        axes.set_xlabel(plain(x_label, LEGEND_CHARACTERS))
        axes.set_ylabel(plain(y_label, LEGEND_CHARACTERS // 2))
        labels = [plain(each.label, LEGEND_CHARACTERS - 8) for each in series]
        figure.legend(handles, labels, loc="outside lower left", ncols=columns)
        svg, pdf = _drawn(figure, name=name, title=title, description=description)
    rows = chain.from_iterable(_rows(each) for each in series)
    text = csv_text(("series", "x", "y", "low", "high"), rows)
    return Chart(name=name, title=title, caption=caption, description=description, svg=svg, pdf=pdf, csv=text)


def slice_chart(
    *,
    name: str,
    title: str,
    caption: str,
    description: str,
    y_label: str,
    slices: Sequence[Slice],
    best: Mapping[str, float],
) -> Chart:
    """A panel per field that was searched, all on one y axis: filled where a trial ran to its end, else hollow.

    `best` has the value of each field that was found best.

    Raises:
        ValueError: there is no slice, or one without points.
    """
    if not slices or not all(each.points for each in slices):
        raise ValueError(f"chart {name!r} must have slices with points, got {len(slices)} slices")
    assert all(map(usable, chain(best.values(), *(point[:2] for each in slices for point in each.points))))
    columns = min(PANELS, len(slices))
    lines = math.ceil(len(slices) / columns)
    with drawing(name):
        figure = Figure(figsize=(WIDTH, 0.6 + PANEL_HEIGHT * lines), layout="constrained")
        first: Axes | None = None
        handles: dict[str, Line2D] = {}
        for index, each in enumerate(slices):
            axes = figure.add_subplot(lines, columns, index + 1, sharey=first)
            first = first or axes
            handles |= _draw_slice(axes, each, best.get(each.field))
            if index % columns:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel(plain(y_label, PANEL_CHARACTERS))
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=3)
        svg, pdf = _drawn(figure, name=name, title=title, description=description)
    rows = (
        (each.field, number(value), number(score), str(finished).lower())
        for each in slices
        for value, score, finished in each.points
    )
    text = csv_text(("field", "value", "score", "finished"), rows)
    return Chart(name=name, title=title, caption=caption, description=description, svg=svg, pdf=pdf, csv=text)


def drawing(name: str) -> AbstractContextManager[None]:
    """Matplotlib with its own defaults and our settings, and ids that come from `name` alone."""
    return style.context(["default", {**STYLE, "svg.hashsalt": name}])


def plain(text: str, width: int) -> str:
    """Text as figures have it: in lines of at most `width` characters, three at most, without what our font lacks."""
    letters = "".join(letter if ord(letter) in _font() else "\N{REPLACEMENT CHARACTER}" for letter in one_line(text))
    return "\n".join(wrap(letters, width, max_lines=3, placeholder=" …"))


def one_line(text: str) -> str:
    """Text with each run of white space as one space."""
    return " ".join(text.split())


def number(value: float) -> str:
    """A number as the CSV files have it: ten significant digits, more than a metric has."""
    return f"{value:.10g}"


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A CSV file (RFC 4180, but for its line ends)."""
    text = StringIO()
    # The csv module of Python 3.11 does not quote a lone carriage return, which readers take for a line's end.
    csv.writer(text, lineterminator="\n").writerows(map(one_line, row) for row in chain([header], rows))
    return text.getvalue()


def pdf_bytes(figure: Figure) -> bytes:
    """A figure as a PDF file, without date and producer."""
    file = BytesIO()
    figure.savefig(file, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return file.getvalue()


@cache
def _font() -> frozenset[int]:
    """Code points that the bundled font has."""
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _numbers(series: Series) -> Iterable[float]:
    return chain(series.x, series.y, series.low or (), series.high or ())


def _rows(series: Series) -> Iterable[tuple[str, ...]]:
    none = [""] * len(series.x)
    low, high = (none if bound is None else map(number, bound) for bound in (series.low, series.high))
    columns = (map(number, series.x), map(number, series.y), low, high)
    return ((series.label, *values) for values in zip(*columns, strict=True))


def _look(index: int, markers: bool) -> dict[str, Any]:
    """Colour, line and marker of the `index`th series: no two of the first forty look the same."""
    repeat, position = divmod(index, len(COLOURS))
    if markers:
        return {"color": COLOURS[position], "linestyle": DASHES[repeat % len(DASHES)], "marker": MARKERS[position]}
    return {"color": COLOURS[position], "linestyle": DASHES[(index + repeat) % len(DASHES)]}


def _draw(axes: Axes, series: Series, start: tuple[float, float] | None, look: dict[str, Any]) -> Line2D:
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x, series.low, series.high, color=look["color"], alpha=0.12, linewidth=0)
        if len(series.x) == 1:  # a band of no width
            axes.vlines(series.x, series.low, series.high, color=look["color"], alpha=0.4, linewidth=4)
    x, y = series.x, series.y
    if start:
        x, y = (start[0], *x), (start[1], *y)
    elif len(x) == 1:
        look = {"marker": "o", **look}
    (line,) = axes.plot(x, y, **look)
    return line


def _ticks(series: Sequence[Series]) -> list[float]:
    """The x of all points, where they are far enough apart for a label each; else none, to leave it to Matplotlib."""
    ticks = sorted({x for each in series for x in each.x})
    gap = min((right - left for left, right in pairwise(ticks)), default=1.0)
    return ticks if ticks[-1] - ticks[0] <= 14 * gap else []


def _draw_slice(axes: Axes, each: Slice, best: float | None) -> dict[str, Line2D]:
    """Draw one panel; returns what a legend explains."""
    values = [value for value, _, _ in each.points]
    if each.log and min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if max(values) > 100 * min(values) else (1.0, 3.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("e-0", "e-"))
    handles = {}
    for finished, label, face in ((True, "ran to its end", COLOURS[0]), (False, "stopped before its end", "none")):
        if points := [(value, score) for value, score, ended in each.points if ended == finished]:
            x, y = zip(*points, strict=True)
            (handles[label],) = axes.plot(x, y, color=COLOURS[0], linestyle="", marker="o", markerfacecolor=face)
    if best is not None:
        handles["best"] = axes.axvline(best, color=COLOURS[1], linestyle=DASHES[1], zorder=1)
    axes.set_xlabel(plain(each.field, PANEL_CHARACTERS))
    return handles


def _drawn(figure: Figure, *, name: str, title: str, description: str) -> tuple[str, bytes]:
    """A figure under its title, for a page and for a paper."""
    figure.suptitle(plain(title, TITLE_CHARACTERS), x=0.01, horizontalalignment="left")
    # Where things go is computed once for both.
    engine = figure.get_layout_engine()
    assert engine
    engine.execute(figure)
    figure.set_layout_engine("none")
    file = BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(file.getvalue().decode(), name, description), pdf_bytes(figure)


def _for_a_page(svg: str, name: str, description: str) -> str:
    """Matplotlib's SVG as an element of a page: of any size, in the page's colour, and with ids that are its own."""
    prefix = f"c{sha256(name.encode()).hexdigest()[:10]}-"
    size = re.search(r'viewBox="[\d. ]+"', svg)
    assert size
    label = escape("".join(filter(str.isprintable, one_line(description))))
    # The first group is past the style sheet, which would hold for the whole page.
    body = re.sub(r"<!--.*?-->", "", svg[svg.index("<g ") :], flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    body = re.sub(r"<path (?![^>]*\bd=)", '<path d="" ', body)  # a space has none, and HTML wants one
    body = re.sub(r"\s*\n\s*", "\n", body).replace("#000000", "currentColor")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" '
        f'aria-label="{label}" fill="currentColor" stroke-linejoin="round">\n{body}'
    )

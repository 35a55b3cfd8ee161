"""Charts read back from their own markup: what is drawn is the data, in the page's colours, the same bytes anywhere."""

import csv
import hashlib
import io
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import zlib
from xml.etree import ElementTree

import pytest

from analysis.charts import COLOURS, Series, Slice, line_chart, slice_chart

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PAGES = ("#ffffff", "#15171a")
HOSTILE = """
lines.linewidth: 20
lines.marker: x
axes.formatter.use_locale: True
axes.prop_cycle: cycler(color=["red"])
figure.facecolor: red
font.family: serif
font.size: 30
path.sketch: 5, 100, 2
pdf.compression: 0
savefig.bbox: tight
savefig.dpi: 300
svg.fonttype: none
"""


def curves(*series, name="curves", title="A title", markers=True, **texts):
    texts = {"caption": "", "description": "d", "x_label": "kernel size", "y_label": "PSNR (dB)"} | texts
    return line_chart(name=name, title=title, series=series, markers=markers, **texts)


def slices(*panels, name="slices", best=None, **texts):
    texts = {"title": "A title", "caption": "", "description": "d", "y_label": "PSNR (dB)"} | texts
    return slice_chart(name=name, slices=panels, best=best or {}, **texts)


ROW = Series(
    label="Content loss, as long as + Adversarial",
    x=(13.0, 15.0, 19.0, 27.0),
    y=(28.5, 27.25, 26.0, 23.125),
    low=(28.0, 27.0, 25.5, 23.0),
    high=(29.0, 27.5, 26.5, 23.5),
)
OTHER = Series(label="Blurred", x=ROW.x, y=(25.0, 24.0, 23.0, 22.0))
PANEL = Slice(
    field="loss.weight",
    log=True,
    points=((1e-5, 20.0, True), (1e-4, 20.5, False), (1e-3, 21.0, True), (5e-3, 20.25, False)),
)
LINEAR = Slice(field="rate", log=True, points=((0.0, 20.0, True), (2.0, 21.0, True), (10.0, 22.0, True)))


def drawn(chart):
    """The chart's plotting areas, one group per panel."""
    root = ElementTree.fromstring(chart.svg)
    return [group for group in root.iter(f"{SVG}g") if re.search(r"-axes_\d+$", group.get("id", ""))]


def style_of(element):
    return dict(part.split(": ") for part in element.get("style", "").split("; ") if part)


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML] (\S+) (\S+)", path.get("d"))]


def lines(group, colour):
    """The points of each line of a colour, in the drawing's coordinates."""
    paths = [path for path in group.iter(f"{SVG}path") if style_of(path).get("stroke") == colour and path.get("d")]
    return [points(path) for path in paths if path.get("clip-path")]


def dots(group, colour=COLOURS[0]):
    """Where markers stand, and whether each is filled."""
    found = []
    for use in group.iter(f"{SVG}use"):
        style = style_of(use)
        if style.get("stroke") == colour:
            found.append((float(use.get("x")), float(use.get("y")), style.get("fill-opacity") != "0"))
    return found


def assert_affine(values, drawn_at):
    """The map through the first and the last point takes every value to where it is drawn."""
    slope = (drawn_at[-1] - drawn_at[0]) / (values[-1] - values[0])
    assert slope != 0
    assert drawn_at == pytest.approx([drawn_at[0] + slope * (value - values[0]) for value in values], abs=1e-3)


def pdf_text(pdf):
    """All text of a PDF file, without spaces; its font's codes are two bytes of UTF-16."""
    found = b""
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            content = zlib.decompress(stream)
        except zlib.error:
            continue
        for block in re.findall(rb"\nBT\n(.*?)\nET\n", content, re.DOTALL):
            found += b"".join(re.findall(rb"\(((?:[^\\)]|\\.)*)\)", block, re.DOTALL))
    return re.sub(rb"\\(.)", rb"\1", found).decode("utf-16-be").replace(" ", "")


def test_curves_are_affine_images_of_the_numbers_on_one_scale():
    (panel,) = drawn(curves(ROW, OTHER))
    (line,), (other,) = lines(panel, COLOURS[0]), lines(panel, COLOURS[1])
    assert_affine(ROW.x + OTHER.x, [x for x, _ in line + other])
    assert_affine(ROW.y + OTHER.y, [y for _, y in line + other])
    assert line[0][0] < line[-1][0]
    assert line[0][1] < line[-1][1]  # SVG counts downwards, and 28.5 is above 23.125


def test_an_interval_is_on_the_scale_of_its_curve():
    chart = curves(ROW)
    (panel,) = drawn(chart)
    (line,) = lines(panel, COLOURS[0])
    (band,) = [group for group in panel if "FillBetween" in group.get("id")]
    (outline,), (use,) = band.iter(f"{SVG}path"), band.iter(f"{SVG}use")
    assert style_of(use) == {"fill": COLOURS[0], "fill-opacity": "0.12"}
    corners = {(x, round(y + float(use.get("y")), 3)) for x, y in points(outline)}
    xs, ys = zip(*sorted(corners), strict=True)
    assert_affine([x for x in ROW.x for _ in range(2)], xs)
    # Of two corners at one place the upper one comes first.
    bounds = [bound for pair in zip(ROW.high, ROW.low, strict=True) for bound in pair]
    assert_affine([*ROW.y, *bounds], [*(y for _, y in line), *ys])


def test_ticks_stand_at_the_points_where_these_are_few():
    (panel,) = drawn(curves(ROW))
    ticks = [group for group in panel.iter(f"{SVG}g") if re.search(r"-xtick_\d+$", group.get("id", ""))]
    at = [float(next(tick.iter(f"{SVG}use")).get("x")) for tick in ticks]
    assert at == pytest.approx([x for x, _ in lines(panel, COLOURS[0])[0]])


def test_a_stage_begins_where_its_parent_ended():
    parent = Series(label="content", x=(50.0, 100.0), y=(20.0, 22.0))
    child = Series(label="+ perceptual", x=(150.0, 200.0), y=(23.0, 23.5), after="content")
    orphan = Series(label="other", x=(150.0, 200.0), y=(21.0, 21.5), after="not shown")
    (panel,) = drawn(curves(child, parent, orphan, markers=False))
    drawings = [lines(panel, colour)[0] for colour in COLOURS[:3]]
    assert drawings[0][0] == drawings[1][-1]
    assert_affine([100.0, *child.x, *parent.x, *orphan.x], [x for line in drawings for x, _ in line])
    assert_affine([22.0, *child.y, *parent.y, *orphan.y], [y for line in drawings for _, y in line])


@pytest.mark.parametrize("markers", [True, False])
def test_a_single_point_is_visible_and_so_is_its_interval(markers):
    point = Series(label="a", x=(3.0,), y=(2.0,), low=(1.0,), high=(2.5,))
    (panel,) = drawn(curves(point, Series(label="b", x=(4.0, 5.0), y=(1.5, 1.5)), markers=markers))
    ((x, y, filled),) = dots(panel)
    assert filled
    (interval,) = [group for group in panel if "LineCollection" in group.get("id")]
    paths = [points(path) for path in interval.iter(f"{SVG}path")]
    uses = [float(use.get("y")) for use in interval.iter(f"{SVG}use")] or [0.0]
    ((below, above),) = paths
    assert below[0] == above[0] == pytest.approx(x)
    assert_affine([1.0, 2.0, 2.5], [below[1] + uses[0], y, above[1] + uses[0]])


def test_slices_are_on_a_logarithmic_axis_unless_a_value_is_zero():
    logarithmic, linear = drawn(slices(PANEL, LINEAR))
    for panel, scale in ((PANEL, math.log), (LINEAR, float)):
        found = sorted(dots(logarithmic if panel is PANEL else linear))
        values, scores, finished = zip(*panel.points, strict=True)
        xs, ys, filled = zip(*found, strict=True)
        assert_affine([scale(value) for value in values], xs)
        assert_affine(scores, ys)
        assert filled == finished
    scores = [score for panel in (PANEL, LINEAR) for _, score, _ in panel.points]
    assert_affine(scores, [y for panel in (logarithmic, linear) for _, y, _ in sorted(dots(panel))])


def test_the_best_value_is_marked_where_it_is():
    (panel, other) = drawn(slices(PANEL, LINEAR, best={"loss.weight": 1e-3}))
    ((foot, head),) = lines(panel, COLOURS[1])
    assert foot[0] == head[0] == pytest.approx(sorted(dots(panel))[2][0])
    assert lines(other, COLOURS[1]) == []


def test_csv_has_the_numbers_drawn():
    nasty = Series(label='a "b", c\rd', x=(1 / 3, 1e-7), y=(2.0, 1e9))
    table = list(csv.DictReader(io.StringIO(curves(ROW, nasty).csv, newline="")))
    assert [float(line["y"]) for line in table] == [*ROW.y, 2.0, 1e9]
    assert [float(line["x"]) for line in table] == pytest.approx([*ROW.x, 1 / 3, 1e-7], rel=1e-9)
    assert [(line["low"], line["high"]) for line in table[3:5]] == [("23", "23.5"), ("", "")]
    assert [line["series"] for line in table[3:5]] == [ROW.label, 'a "b", c d']
    assert curves(ROW).csv.splitlines(keepends=True)[0] == "series,x,y,low,high\n"
    table = list(csv.reader(io.StringIO(slices(PANEL).csv, newline="")))
    assert table[0] == ["field", "value", "score", "finished"]
    assert table[2] == ["loss.weight", "0.0001", "20.5", "false"]


def test_charts_of_one_page_do_not_share_ids_or_styles():
    charts = [curves(ROW, OTHER, name="a b"), curves(ROW, OTHER, name="a-b"), slices(PANEL), slices(PANEL, name="é <")]
    ids = [element.get("id") for chart in charts for element in ElementTree.fromstring(chart.svg).iter()]
    ids = [each for each in ids if each]
    assert len(ids) == len(set(ids)) > 100
    for chart in charts:
        own = set(re.findall(r'\bid="([^"]+)"', chart.svg))
        used = set(re.findall(r'href="([^"]*)"|url\(([^)]*)\)', chart.svg))
        assert used
        assert {first or second for first, second in used} <= {f"#{each}" for each in own}
        assert "<style" not in chart.svg


def test_the_drawing_is_the_pages_to_size_and_colour():
    chart = curves(ROW, OTHER, description='Falls & "rises" <b>\x00')
    root = ElementTree.fromstring(chart.svg)
    assert chart.svg.startswith("<svg ")
    assert root.get("width") is root.get("height") is None
    assert root.get("viewBox")
    assert (root.get("role"), root.get("aria-label")) == ("img", 'Falls & "rises" <b>')
    assert root.get("fill") == "currentColor"
    colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", chart.svg))
    assert colours == {"none", "currentColor", *COLOURS[:2]}
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "g",
        "path",
        "use",
        "defs",
        "clipPath",
        "rect",
    }


def test_the_pdf_embeds_its_font_is_black_and_has_no_date():
    pdf = curves(ROW).pdf
    assert pdf.startswith(b"%PDF-")
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    assert not re.search(rb"Date|Producer|Creator|Matplotlib", pdf)


def test_the_title_is_in_the_drawing():
    title = "Preset quick: not the paper's numbers"
    for make, arguments in ((curves, (ROW,)), (slices, (PANEL,))):
        assert title.replace(" ", "") in pdf_text(make(*arguments, title=title).pdf)
        glyphs = [make(*arguments, title=text).svg.count("<use ") for text in ("a", title)]
        assert glyphs[1] - glyphs[0] == len(title) - 1


def test_text_is_neither_mathematics_nor_what_the_font_lacks():
    odd = curves(Series(label="_a", x=(1.0,), y=(1.0,)), title="$x$ \x00\r\n\\frac 人")
    # The replacement character is the first of a second set of codes.
    assert re.search(r"\$x\$.\\frac.", pdf_text(odd.pdf), re.DOTALL)
    assert pdf_text(odd.pdf).endswith("_a")
    assert "$" not in odd.svg
    ElementTree.fromstring(odd.svg)


def luminance(colour):
    """WCAG 2 relative luminance."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_every_colour_can_be_seen_on_light_and_dark_pages():
    assert len(set(COLOURS)) == 10
    for colour, page in itertools.product(COLOURS, PAGES):
        darker, lighter = sorted((luminance(colour), luminance(page)))
        assert (lighter + 0.05) / (darker + 0.05) >= 3, (colour, page)


@pytest.mark.parametrize("markers", [True, False])
def test_no_two_of_forty_series_look_the_same(markers):
    many = [Series(label=str(index), x=(1.0, 2.0), y=(index, index + 0.5)) for index in range(40)]
    root = ElementTree.fromstring(curves(*many, markers=markers).svg)
    shapes = {path.get("id"): path.get("d") for path in root.iter(f"{SVG}path") if path.get("id")}
    (legend,) = [group for group in root.iter(f"{SVG}g") if group.get("id", "").endswith("-legend_1")]
    looks = []
    for group in legend:
        paths = [style_of(path) for path in group.iter(f"{SVG}path") if style_of(path).get("fill") == "none"]
        markers_of = [shapes[use.get(HREF)[1:]] for use in group.iter(f"{SVG}use")]
        if paths and "line2d" in group.get("id"):
            looks.append((paths[0]["stroke"], paths[0].get("stroke-dasharray"), *markers_of))
    assert len(looks) == len(set(looks)) == 40


@pytest.mark.parametrize("make", [curves, slices])
def test_nothing_to_draw_is_refused(make):
    with pytest.raises(ValueError, match="'nothing' must have"):
        make(name="nothing")


def test_a_series_or_slice_without_points_is_refused():
    with pytest.raises(ValueError, match="points"):
        curves(ROW, Series(label="a", x=(), y=()))
    with pytest.raises(ValueError, match="points"):
        slices(PANEL, Slice(field="a", log=False, points=()))


def digest(name):
    chart = {
        "curves": lambda: curves(ROW, OTHER, Series(label="c", x=(1.0,), y=(2.0,), after="Blurred"), markers=False),
        "slices": lambda: slices(PANEL, LINEAR, best={"rate": 0.5}),
    }[name]()
    return [hashlib.sha256(part).hexdigest() for part in (chart.svg.encode(), chart.pdf, chart.csv.encode())]


def with_comma(folder):
    """The environment of a locale that writes 1,5, where one can be made."""
    command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")]
    made = shutil.which("localedef") and subprocess.run(command, capture_output=True, check=False).returncode == 0
    return {"LC_ALL": "de_DE.UTF-8", "LOCPATH": str(folder)} if made else {"LC_ALL": "C"}


def test_the_bytes_are_the_same_in_any_process_order_locale_and_zone(tmp_path):
    hostile = tmp_path / "matplotlibrc"
    hostile.write_text(HOSTILE)
    environment = os.environ | {
        **with_comma(tmp_path),
        "MATPLOTLIBRC": str(hostile),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SOURCE_DATE_EPOCH": "86400",
        "TZ": "Pacific/Kiritimati",
    }
    script = "import runpy; digest = runpy.run_path({!r})['digest']; print(*digest('slices'), *digest('curves'))"
    command = [sys.executable, "-c", script.format(__file__)]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    here = [*digest("curves"), *digest("slices")]
    assert here[3:] + here[:3] == there

"""Test images as each row restores them, beside the truth and the degraded input: for a page and for a paper."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from analysis.charts import COLOURS, TITLE, csv_text, drawing, number, pdf_bytes, plain
from analysis.document import Example, Gallery, Tile

Pair = tuple[int, int]
"""An image's number and that of the condition it was degraded by."""
Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""
Part = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as shares of its size."""

MAX_PIXELS = 4096 * 4096
"""Of a strip; one that takes more memory is not an image of ours."""
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
"""Of a PNG file, 8 bits a channel."""
ROUNDING = 2
"""Levels by which two devices may differ in the same image."""

EXAMPLES = 6  # in a figure for a paper
LEFT, TILE, GAP, SPLIT, LINE = 0.4, 1.0, 0.07, 0.03, 0.14
"""Inches: where tiles begin, a tile's width, between tiles, between a tile's zooms, a line of text."""
TALLEST = 2.0  # heights of an image, in its widths
DOTS = 400  # pixels per inch
HEADING_CHARACTERS = 15
TITLE_CHARACTERS = 13  # per inch


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One row's restorations: a PNG strip (degraded | restored | truth, each a third of the width) per image and
    condition, and the metric per image and condition, of these and maybe others."""

    label: str
    strips: Mapping[Pair, bytes]
    quality: Mapping[Pair, float]


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """What becomes a tile; `value` is its metric, `quality` how that is shown."""

    label: str
    pixels: Pixels
    value: float | None = None
    quality: str = ""


def build_gallery(
    *,
    name: str,
    title: str,
    caption: str,
    zooms: Mapping[str, Part],
    degraded: Mapping[Pair, float],
    rows: Sequence[Shown],
    metric_label: str,
    unit: str,
    decimals: int,
    degraded_label: str = "Degraded",
) -> Gallery | None:
    """The images that all rows with any have, in order; None if there are none.

    Strips that are not three RGB images side by side are taken for missing: anyone may have written them. The figure
    for a paper has the first six images. `degraded` is the metric of the degraded input, as far as it is known.

    Raises:
        ValueError: rows show another truth or another degraded input under the same number.
    """
    read = [(row, {pair: tiles for pair, png in row.strips.items() if (tiles := _read(png))}) for row in rows]
    found = [(row, tiles) for row, tiles in read if tiles]
    pairs = sorted(set.intersection(*(set(tiles) for _, tiles in found))) if found else []
    if not pairs:
        return None
    examples: dict[Pair, list[_Picture]] = {}
    for pair in pairs:
        _check_same(pair, [(row.label, tiles[pair]) for row, tiles in found])
        blurred, _, truth = found[0][1][pair]
        values = [degraded.get(pair), *(row.quality.get(pair) for row, _ in found)]
        labels = [degraded_label, *(row.label for row, _ in found)]
        shown = [blurred, *(tiles[pair][1] for _, tiles in found)]
        examples[pair] = [
            _Picture(label="Truth", pixels=truth),
            *(
                _Picture(label=label, pixels=pixels, value=value, quality=_quality(value, unit, decimals))
                for label, pixels, value in zip(labels, shown, values, strict=True)
            ),
        ]
    lines = (
        (str(image), str(condition), picture.label, number(picture.value))
        for (image, condition), pictures in examples.items()
        for picture in pictures
        if picture.value is not None
    )
    return Gallery(
        name=name,
        title=title,
        caption=caption,
        zooms=tuple(zooms),
        examples=tuple(
            Example(
                title=_title(pair).capitalize(), tiles=tuple(_tile(picture, zooms.values()) for picture in pictures)
            )
            for pair, pictures in examples.items()
        ),
        pdf=_figure(name, title, metric_label, list(zooms.values()), examples),
        csv=csv_text(("image", "condition", "row", metric_label.lower()), lines),
    )


def _read(png: bytes) -> tuple[Pixels, Pixels, Pixels] | None:
    """The three images of a strip; None if it is not one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a decompression bomb, of a damaged file
            strip = Image.open(BytesIO(png), formats=["PNG"])
            if strip.width * strip.height > MAX_PIXELS or strip.width % 3 or strip.mode not in MODES:
                return None
            pixels = np.asarray(strip.convert("RGB"))
    except Exception:  # Pillow's decoders raise whatever they meet
        return None
    degraded, restored, truth = np.split(pixels, 3, axis=1)
    return degraded, restored, truth


def _check_same(pair: Pair, rows: Sequence[tuple[str, tuple[Pixels, Pixels, Pixels]]]) -> None:
    (first, expected), *others = rows
    differing = [
        label
        for label, tiles in others
        if not all(_same(*images) for images in zip(tiles[::2], expected[::2], strict=True))
    ]
    if differing:
        listed = ", ".join(map(repr, differing))
        raise ValueError(f"rows must show the same images, got another {_title(pair)} in {listed} than in {first!r}")


def _same(first: Pixels, second: Pixels) -> bool:
    if first.shape != second.shape:
        return False
    return int(np.abs(first.astype(np.int16) - second).max()) <= ROUNDING


def _title(pair: Pair) -> str:
    return f"image {pair[0]}, condition {pair[1]}"


def _quality(value: float | None, unit: str, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f} {unit}".rstrip()


def _tile(picture: _Picture, zooms: Iterable[Part]) -> Tile:
    parts = tuple(_png(_crop(picture.pixels, part)) for part in zooms)
    return Tile(label=picture.label, quality=picture.quality, png=_png(picture.pixels), zooms=parts)


def _png(pixels: Pixels) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _crop(pixels: Pixels, part: Part) -> Pixels:
    """A part of an image, of at least one pixel."""
    height, width, _ = pixels.shape
    left, right = _span(part[0], part[2], width)
    top, bottom = _span(part[1], part[3], height)
    return pixels[top:bottom, left:right]


def _span(start: float, end: float, size: int) -> tuple[int, int]:
    first = min(round(start * size), size - 1)
    return first, max(first + 1, round(end * size))


def _figure(
    name: str, title: str, metric: str, zooms: Sequence[Part], examples: Mapping[Pair, list[_Picture]]
) -> bytes:
    """A line per example, a column per picture, the zooms and the metric below each: a PDF file.

    All is drawn on one pair of axes, in inches from the upper left corner.
    """
    lines = list(examples.items())[:EXAMPLES]
    labels = [picture.label for picture in lines[0][1]]
    columns = [LEFT + index * (TILE + GAP) for index in range(len(labels))]
    width = columns[-1] + TILE + GAP
    with drawing(name):
        figure = Figure()
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        heading = plain(title, int(width * TITLE_CHARACTERS))
        headings = [plain(label, HEADING_CHARACTERS) for label in labels]
        axes.text(GAP, GAP, heading, fontsize=TITLE, verticalalignment="top")
        y = 3 * GAP + LINE * (1.3 * _lines(heading) + max(map(_lines, headings)))
        for x, text in zip(columns, headings, strict=True):
            axes.text(x + TILE / 2, y - GAP, text, horizontalalignment="center", verticalalignment="bottom")
        for (image, condition), pictures in lines:
            axes.text(GAP, y, f"image {image}\ncondition {condition}", rotation=90, verticalalignment="top")
            captions = [metric, *(picture.quality for picture in pictures[1:])]
            bottom = max(_draw(axes, picture, x, y, zooms) for x, picture in zip(columns, pictures, strict=True))
            for x, text in zip(columns, captions, strict=True):
                axes.text(x + TILE / 2, bottom, text, horizontalalignment="center", verticalalignment="top")
            _outline(axes, pictures[0].pixels, y, zooms)
            y = bottom + LINE + 2 * GAP
        axes.set(xlim=(0, width), ylim=(y, 0))
        figure.set_size_inches(width, y)
        return pdf_bytes(figure)


def _lines(text: str) -> int:
    return text.count("\n") + 1


def _size(pixels: Pixels, width: float) -> tuple[float, float]:
    """Width and height in inches of an image in a column of `width` inches; a very tall one is narrower."""
    height, columns, _ = pixels.shape
    scale = width / max(columns, height / TALLEST)
    return columns * scale, height * scale


def _draw(axes: Axes, picture: _Picture, x: float, y: float, zooms: Sequence[Part]) -> float:
    """Draw an image and its zooms side by side below it; returns where they end."""
    y = _place(axes, picture.pixels, x, y, TILE)
    step = (TILE + SPLIT) / max(1, len(zooms))
    ends = [y]
    for index, part in enumerate(zooms):
        crop, left = _crop(picture.pixels, part), x + index * step
        ends.append(_place(axes, crop, left, y, step - SPLIT))
        _frame(axes, left, y, *_size(crop, step - SPLIT), index)
    return max(ends)


def _outline(axes: Axes, pixels: Pixels, y: float, zooms: Iterable[Part]) -> None:
    """Show on the first column's image which parts the zooms are."""
    width, height = _size(pixels, TILE)
    for index, (left, top, right, bottom) in enumerate(zooms):
        _frame(axes, LEFT + left * width, y + top * height, (right - left) * width, (bottom - top) * height, index)


def _frame(axes: Axes, x: float, y: float, width: float, height: float, index: int) -> None:
    colour = COLOURS[index % len(COLOURS)]
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1))


def _place(axes: Axes, pixels: Pixels, x: float, y: float, width: float) -> float:
    """Draw an image into a column; returns where the next thing may begin below it."""
    width, height = _size(pixels, width)
    image = Image.fromarray(pixels)
    image.thumbnail((max(1, round(width * DOTS)), max(1, round(height * DOTS))))
    extent = (x, x + width, y + height, y)
    axes.imshow(np.asarray(image), extent=extent, aspect="auto", interpolation="none")
    return y + height + SPLIT

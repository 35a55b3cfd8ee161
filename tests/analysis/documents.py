"""A made-up report with everything that one can say, and pictures to go with it."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from analysis.document import Chart, Column, Document, Example, Fact, Gallery, Grid, Note, Section, Text, Tile

TESTS = ("CelebA", "Helen")
ROWS = (
    ("Blurred input", ""),
    ("Multi-scale (1 scale)", "Content"),
    ("Multi-scale (2 scales)", "Content"),
    ("Multi-task (2 scales)", "Content"),
    ("Multi-task (2 scales)", "+ Perceptual"),
    ("Multi-task (2 scales)", "+ Adversarial"),
)
MINUS = "\N{MINUS SIGN}"
HOSTILE = (
    "<script>document.title = 'broken into'</script>",
    "</style><img src=https://example.com/x.png onerror=\"alert('1')\">",
    "\"quoted' & &amp; {{ braces }} {% raw %}",
    "👩🏽‍🔬 \u202eright to left\u202c שלום \u0000\u0008\ud800\ufffe",
    "a-very-long-word-" * 30,
)


def number(value: float, decimals: int, signed: bool = False) -> str:
    return format(value, f"{'+' if signed else ''}.{decimals}f").replace("-", MINUS)


def png(pixels: np.ndarray) -> bytes:
    """An image of values in [0, 1] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(file, "png")
    return file.getvalue()


def face(seed: int, size: int = 64) -> np.ndarray:
    """Something with a skin, a background, eyes and a mouth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / (size - 1)
    image = np.stack([x, y, 1 - x], axis=-1) * rng.uniform(0.2, 0.6, 3) + rng.uniform(0.1, 0.4, 3)

    def paint(cx: float, cy: float, rx: float, ry: float, colour: object) -> None:
        image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = colour

    skin = np.array([0.87, 0.68, 0.55]) * rng.uniform(0.6, 1.1)
    paint(0.5, 0.45, 0.36, 0.43, rng.uniform(0.05, 0.35, 3))
    paint(0.5, 0.55, 0.3, 0.4, skin)
    for eye in (0.38, 0.62):
        paint(eye, 0.48, 0.075, 0.04, 0.95)
        paint(eye, 0.48, 0.035, 0.035, rng.uniform(0, 0.4, 3))
    paint(0.5, 0.6, 0.03, 0.06, skin * 0.85)
    paint(0.5, 0.76, 0.11, 0.035, (0.65, 0.2, 0.25))
    return image


def blurred(image: np.ndarray, length: int) -> np.ndarray:
    """The mean of copies that are moved along a diagonal."""
    return np.mean([np.roll(image, (shift, shift // 2), (0, 1)) for shift in range(-length, length + 1)], axis=0)


def tile(label: str, image: np.ndarray, truth: np.ndarray) -> Tile:
    error = float(np.mean((image - truth) ** 2))
    parts = (image[24:40, 16:32], image[40:56, 24:40])
    quality = f"{-10 * np.log10(error):.2f} dB" if error else ""
    return Tile(label=label, quality=quality, png=png(image), zooms=tuple(map(png, parts)))


def gallery(test: str, seeds: range) -> Gallery:
    labels = [", ".join(filter(None, row)) for row in ROWS[1:]]

    def tiles(seed: int) -> Iterator[Tile]:
        truth = face(seed)
        yield tile("Sharp", truth, truth)
        yield tile("Blurred", blurred(truth, 5), truth)
        for strength, label in zip((5, 4, 3, 2, 1), labels, strict=True):
            yield tile(label, (blurred(truth, strength) + blurred(truth, strength - 1)) / 2, truth)

    return Gallery(
        name=f"{test}-faces",
        title=f"Faces of {test}",
        caption=f"The {len(seeds)} test images of {test} that gain least, most and in between, seed 1.",
        zooms=("left eye", "mouth"),
        examples=tuple(Example(title=f"Face {17 * n + 3}, kernel {n} of 13×13", tiles=tuple(tiles(n))) for n in seeds),
        pdf=b"%PDF",
        csv="face,row,psnr\n",
    )


def chart(name: str) -> Chart:
    """Dots on lines, drawn by hand."""
    marks = "".join(
        f'<path d="M {160 + 45 * n} {30 + 34 * n} h 90" stroke="currentColor" fill="none"/>'
        f'<use xlink:href="#{name}-dot" x="{205 + 45 * n}" y="{30 + 34 * n}" fill="#3a78c2"/>'
        f'<text x="150" y="{34 + 34 * n}" text-anchor="end" fill="currentColor">{row[1] or row[0]}</text>'
        for n, row in enumerate(ROWS)
    )
    svg = (
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 240">'
        f'<defs><circle id="{name}-dot" r="5"/></defs>{marks}</svg>'
    )
    return Chart(
        name=name,
        title=f"Gain over the blurred input, {name}",
        caption="Mean over 800 images and its 95 % interval.",
        description=f"A dot plot: every row of {name} gains more than the one before.",
        svg=svg,
        pdf=b"%PDF",
        csv="row,gain\n",
    )


def results() -> Grid:
    """Means beside published ones, with a best, a missing row and marks."""
    columns = [Column(heading="Model", numeric=False), Column(heading="Loss", numeric=False)]
    rows: list[list[Text]] = [[Text(text=text) for text in row] for row in ROWS]
    rng = np.random.default_rng(0)
    for test in TESTS:
        for metric, base, decimals in (("PSNR", 22.5, 2), ("SSIM", 0.82, 3)):
            columns += [
                Column(heading=metric, group=test),
                Column(heading="paper", group=test, subject=metric, tone="faint"),
                Column(heading="diff.", group=test, subject=metric),
            ]
            scale = base / 40
            for index, row in enumerate(rows):
                ours, paper = base + scale * rng.normal(index / 3, 0.3, 2)
                lost = index == 2 and test == "Helen"
                mean = Text(
                    text=f"{number(ours, decimals)} ± {number(scale / 20, decimals)}",
                    value=ours,
                    bold=index == 5,
                    marks=("a",) * (index == 4) + ("b",) * (index == 5),
                )
                row += [
                    Text(text="failed", tone="warning") if lost else mean,
                    Text(text=number(paper, decimals), value=paper) if index else Text(text=""),
                    Text(text=number(ours - paper, decimals, True), value=ours - paper)
                    if index and not lost
                    else Text(text=""),
                ]
    return Grid(
        name="table-1",
        title="Table 1. The multi-task framework",
        caption="Mean ± standard deviation over 3 seeds of the mean over 800 images. Bold: the best of a column.",
        columns=tuple(columns),
        labels=2,
        rows=tuple(map(tuple, rows)),
        notes=(
            Note(text="Weights of its losses were found by a search of 16 trials.", mark="a"),
            Note(text="paper: Shen et al. 2019, Table 1; diff.: ours less theirs."),
        ),
    )


def differences() -> Grid:
    rng = np.random.default_rng(1)
    columns = [Column(heading="Change", numeric=False)]
    columns += [
        Column(heading=heading, group=test)
        for test in TESTS
        for heading in ("ΔPSNR", "95 % interval", "p", "faces won")
    ]
    rows = []
    for change in ("1 → 2 scales", "+ multi-task head", "+ perceptual loss", "+ adversarial loss"):
        row = [Text(text=change)]
        for _ in TESTS:
            gain, p = rng.normal(0.15, 0.1), rng.uniform(0, 0.2)
            row += [
                Text(text=number(gain, 2, True), value=gain, bold=p < 0.05),
                Text(text=f"{number(gain - 0.1, 2, True)} to {number(gain + 0.1, 2, True)}", value=gain - 0.1),
                Text(text=f"{p:.3f}", value=p),
                Text(text=f"{50 + 100 * gain:.0f} %", value=50 + 100 * gain),
            ]
        rows.append(tuple(row))
    return Grid(
        name="table-1-differences",
        title="Table 1. What each change brings",
        caption="Paired differences between neighbouring rows over the same images.",
        columns=tuple(columns),
        labels=1,
        rows=tuple(rows),
        notes=(Note(text="Intervals: bootstrap over faces. p: Wilcoxon signed-rank, Holm-corrected."),),
    )


def runs() -> Grid:
    headings = ("Row", "Seed", "Status", "Finished", "Run")
    return Grid(
        name="runs",
        title="Runs",
        caption="Every run that a number above comes from.",
        columns=tuple(Column(heading=heading, numeric=heading == "Seed") for heading in headings),
        labels=1,
        rows=tuple(
            (
                Text(text=", ".join(filter(None, row))),
                Text(text=str(seed), value=seed),
                Text(text="finished") if seed < 3 else Text(text="failed", tone="warning"),
                Text(text=f"2026-11-0{seed} 12:3{index}"),
                Text(text=f"{index}{seed}c0ffee" * 4, link=f"http://127.0.0.1:5000/#/experiments/1/runs/{index}{seed}"),
            )
            for index, row in enumerate(ROWS[1:])
            for seed in (1, 2, 3)
        ),
    )


def document() -> Document:
    """Two test sets, two tables, charts, galleries, problems, facts."""
    return Document(
        name="tables-quick",
        title="Ablation of multi-task face deblurring",
        preset="quick",
        seeds=3,
        summary="Study tables, preset quick, seeds 1, 2 and 3, on CelebA and Helen. Every row beats the blurred input.",
        sections=(
            Section(
                title="Results",
                grids=(results(),),
                notes=(Note(text="Two seeds of three; the third failed.", mark="b"),),
            ),
            Section(title="Differences", grids=(differences(),), charts=(chart("CelebA"), chart("Helen"))),
            Section(
                title="Images",
                galleries=(gallery("CelebA", range(4)), gallery("Helen", range(4, 5))),
                notes=(Note(text="Chosen by rank of the last row's gain, not by eye."),),
            ),
        ),
        facts=(
            Fact(name="Study", values=(("tables", ""),)),
            Fact(name="Commit", values=(("c0ffee1234567890c0ffee1234567890c0ffee12 (modified)", ""),)),
            Fact(name="Faces", values=(("CelebA", "https://example.com/celeba"), ("Helen", "file:///data/my%20faces"))),
            Fact(name="Hardware", values=(("2 × EPYC, no GPU", ""), ("NVIDIA H100", ""))),
        ),
        runs=runs(),
        problems=(
            "Table 1, Multi-scale (2 scales), Helen: 3 of 3 runs failed.",
            "The checkout had uncommitted changes when 4 of 18 runs were trained.",
        ),
    )


def hostile() -> Document:
    """Texts that try to be markup, or to break the layout, wherever a text can stand."""
    every = " ".join(HOSTILE)
    cells = tuple(
        Text(text=text, marks=(text[:3],), bold=True, tone="warning", link="javascript:alert(1)") for text in HOSTILE
    )
    grid = Grid(
        name="hostile",
        title=every,
        caption=every,
        columns=tuple(Column(heading=text, group=text, numeric=n == 3) for n, text in enumerate(HOSTILE)),
        labels=1,
        rows=(cells, cells),
        notes=tuple(Note(text=text, mark=text[:3]) for text in HOSTILE),
    )
    truth = face(0)
    tiles = tuple(Tile(label=text, quality=text, png=png(truth), zooms=(png(truth[:16, :16]),)) for text in HOSTILE)
    pictures = Gallery(
        name="pictures",
        title=every,
        caption=every,
        zooms=(HOSTILE[0],),
        examples=tuple(Example(title=text, tiles=tiles) for text in HOSTILE[:2]),
        pdf=b"",
        csv="",
    )
    drawn = chart("drawn")
    figure = Chart(
        name="drawn", title=every, caption=every, description=every, svg=drawn.svg, pdf=drawn.pdf, csv=drawn.csv
    )
    return Document(
        name="hostile",
        title=every,
        preset="quick",
        seeds=3,
        summary=every,
        sections=tuple(
            Section(title=text, notes=(Note(text=text),))
            if n
            else Section(title=text, grids=(grid,), charts=(figure,), galleries=(pictures,))
            for n, text in enumerate(HOSTILE)
        ),
        facts=tuple(Fact(name=text, values=((text, text), (text, f"javascript:{text}"))) for text in HOSTILE),
        runs=Grid(name="runs", title="Runs", caption="", columns=(Column(heading="Run"),), labels=0, rows=()),
        problems=HOSTILE,
    )

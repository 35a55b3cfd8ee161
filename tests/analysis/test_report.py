"""The files of a report, read back."""

import csv
import dataclasses
import io
import re
from html.parser import HTMLParser

import pytest

from analysis.load import load_sweep, open_store
from analysis.report import escape_latex, escape_markdown, render
from analysis.tables import build_tables
from sweeps import record
from sweeps.record import RowRecord, TableRecord

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
RUNS = {
    "blurred": {"psnr": 20.0, "ssim": 0.7},
    "Multi-scale (1 scale)-1": {"psnr": 22.125, "ssim": 0.8125},
    "Multi-task (2 scales)-1": {"psnr": 23.25, "ssim": 0.875},
}


def fill(store, sweep, keys=tuple(RUNS), faces=2):
    store.add_sweep(sweep)
    return {key: store.add_run(key, RUNS[key], faces=faces) for key in keys}


def files(store):
    sweep = load_sweep(open_store(store.uri), "tables")
    return render(build_tables(sweep), sweep)


class Page(HTMLParser):
    """What a page refers to, its images, the texts of its headings, and the elements left open."""

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.headings, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        self.references += [attributes[name] for name in ("src", "href", "srcset") if name in attributes]
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data


def test_markdown_is_a_table_with_titles_numbers_and_reasons(store, example):
    fill(store, example)
    lines = files(store)["tables-quick.md"].decode().splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## Table 1", "## Table 2"]
    assert "| Model | Loss | CelebA PSNR | CelebA PSNR, paper | CelebA SSIM | CelebA SSIM, paper |" in lines
    assert "| Blurred input |  | 20.00 |  | 0.700 |  |" in lines
    assert "| Multi-scale (1 scale) | Content loss | 22.12 (1) | 22.19 | 0.812 (1) | 0.844 |" in lines
    assert "| Multi-scale (2 scales) | Content loss | missing | 22.57 | missing | 0.856 |" in lines
    assert "| Content loss | 23.25 (1) | 23.04 | 0.875 (1) | 0.859 |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {7, 6}


def test_markdown_shows_spread_and_signed_difference(store, example):
    keys = {"1": "row-1", "2": "row-2"}
    row = RowRecord(name="row", cells=["Row"], keys=keys, published={"CelebA": {"psnr": 23.5, "ssim": 0.5}})
    table = TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])
    store.add_sweep(dataclasses.replace(example, seeds=[1, 2], tables=[table], comparable=True))
    store.add_run("row-1", {"psnr": 22.0, "ssim": 0.75})
    store.add_run("row-2", {"psnr": 24.0, "ssim": 0.75})
    # Deviation sqrt(2); differences 23 - 23.5 and 0.75 - 0.5.
    line = "| Row | 23.00 ± 1.41 (2) | 23.50 | \N{MINUS SIGN}0.50 | 0.750 ± 0.000 (2) | 0.500 | +0.250 |"
    assert line in files(store)["tables-quick.md"].decode().splitlines()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_the_store_got_as_not_finite_is_never_a_number(store, example, value):
    store.add_sweep(example)
    store.add_run("Multi-task (2 scales)-1", {"psnr": value, "ssim": 0.875})
    found = files(store)
    assert "| Content loss | not finite | 23.04 | 0.875 (1) | 0.859 |" in found["tables-quick.md"].decode().splitlines()
    line = list(csv.DictReader(io.StringIO(found["tables-quick.csv"].decode())))[6]
    assert (line["row"], line["mean"], line["status"]) == ("Multi-task (2 scales)", "", "not finite")


def test_csv_parses_back_to_one_line_per_number(store, example):
    fill(store, example)
    lines = list(csv.DictReader(io.StringIO(files(store)["tables-quick.csv"].decode())))
    assert len(lines) == 2 * 4 * 2
    assert lines[2] == {
        "table": "Table 1",
        "row": "Multi-scale (1 scale)",
        "label": "Multi-scale (1 scale), Content loss",
        "test": "CelebA",
        "metric": "psnr",
        "mean": "22.125",
        "std": "",
        "n": "1",
        "seeds": "1",
        "published": "22.19",
        "difference": "",
        "status": "complete",
        "preset": "quick",
    }
    assert {line["status"] for line in lines} == {"complete", "missing"}


def test_html_is_self_contained_and_well_formed(store, example):
    fill(store, example)
    text = files(store)["tables-quick.html"].decode()
    page = Page(text)
    assert page.open == []  # every element is closed
    assert page.references == [image["src"] for image in page.images]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert all(image["alt"].startswith("CelebA face ") for image in page.images)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_html_shows_each_runs_strips_once_under_all_its_names(store, example):
    ids = fill(store, example, faces=2)
    page = Page(files(store)["tables-quick.html"].decode())
    assert len(page.images) == 2 * len(ids)
    assert "Table 1: Multi-task (2 scales), Content loss; Table 2: Content loss, seed 1" in page.headings
    assert "Table 1: Blurred input; Table 2: Blurred input" in page.headings


def test_html_shows_no_strips_of_another_protocol(store, example):
    store.add_sweep(example)
    store.add_run("blurred", RUNS["blurred"], tags={record.protocol_tag("CelebA"): "old"}, faces=2)
    assert Page(files(store)["tables-quick.html"].decode()).images == []


def test_html_ends_with_the_provenance(store, example):
    ids = fill(store, example)
    ids["+ Adversarial loss-1"] = store.add_run("+ Adversarial loss-1", tags={record.TAG_HARDWARE: "one GPU"})
    text = files(store)["tables-quick.html"].decode()
    provenance = text[text.index("<h2>Provenance</h2>") :]
    assert all(run in provenance for run in ids.values())
    for value in ("c0ffee", "code", "proto", "quick", "one GPU"):
        assert f"<code>{value}</code>" in provenance


def test_html_escapes_what_the_store_says(store, example):
    store.add_sweep(dataclasses.replace(example, notes=["<script>alert('&')</script>"]))
    text = files(store)["tables-quick.html"].decode()
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;" in text


def test_latex_has_balanced_braces_and_as_many_cells_as_columns(store, example):
    fill(store, example)
    text = files(store)["tables-quick.tex"].decode()
    assert r"\usepackage{booktabs}" in text.splitlines()[0]
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert re.findall(r"\\begin\{(\w+\*?)\}", text) == ["table", "tabular", "minipage"] * 2
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    for body in re.findall(r"\\begin\{tabular\}\{(.*?)\\end\{tabular\}", text, flags=re.DOTALL):
        columns = len(body[: body.index("}")])
        lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert len(lines) == 5
        assert {line.count("&") + 1 for line in lines} == {columns}
    assert r"\renewcommand{\thetable}{2}" in text


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("50% of a_b & c", r"50\% of a\_b \& c"),
        ("+ Perceptual loss", "+ Perceptual loss"),
        ("#1 costs $2 {x}", r"\#1 costs \$2 \{x\}"),
        ("22.1 ± 0.2", r"22.1 $\pm$ 0.2"),
        ("\N{MINUS SIGN}0.5", "$-$0.5"),
        ("a\\b^c~d", r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d"),
        ("[B, B]*", "{[}B, B{]}{*}"),
        ("L1 < L2", r"L1 \textless{} L2"),
    ],
)
def test_latex_escapes(plain, escaped):
    assert escape_latex(plain) == escaped


def test_markdown_escapes():
    assert escape_markdown("a|b *c* d_e\nf <g>") == r"a\|b \*c\* d\_e f \<g\>"


def test_labels_are_escaped_in_every_format(store, example):
    row = RowRecord(name="row", cells=["50% & <b>|_"], keys={}, published={})
    table = TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])
    store.add_sweep(dataclasses.replace(example, tables=[table]))
    found = {name.partition(".")[2]: content.decode() for name, content in files(store).items()}
    assert r"50\% \& \textless{}b\textgreater{}\textbar{}\_ & missing" in found["tex"]
    assert r"| 50% & \<b\>\|\_ | missing" in found["md"]
    assert "50% &amp; &lt;b&gt;|_</th>" in found["html"]
    assert next(csv.DictReader(io.StringIO(found["csv"])))["label"] == "50% & <b>|_"


def test_the_same_store_gives_the_same_bytes(store, example):
    fill(store, example)
    assert files(store) == files(store)


def test_the_order_in_which_runs_were_made_does_not_show(tmp_path, store, example, make_store):
    turned = make_store(tmp_path / "turned")
    found = []
    for each, keys in ((store, list(RUNS)), (turned, list(reversed(RUNS)))):
        ids = fill(each, example, keys)
        content = files(each)
        for key, run in ids.items():  # MLflow draws the ids
            content = {name: text.replace(run.encode(), key.encode()) for name, text in content.items()}
        found.append(content)
    assert found[0] == found[1]


def test_names_that_would_leave_the_folder_are_refused(store, example):
    store.add_sweep(dataclasses.replace(example, preset="../up"))
    with pytest.raises(ValueError, match=r"to name a file, got 'tables-\.\./up'"):
        files(store)


def test_an_unknown_format_is_refused(store, example):
    store.add_sweep(example)
    sweep = load_sweep(open_store(store.uri), "tables")
    with pytest.raises(ValueError, match="format must be of md, html, tex, csv, got 'pdf'"):
        render([], sweep, ("md", "pdf"))

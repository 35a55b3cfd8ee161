"""The files of a report, read back."""

import csv
import dataclasses
import io
import json
import locale
import re
import shutil
import subprocess

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from scipy.stats import t as student
from stores import STAGES, Store, around, example_record, fill, parquet

from analysis import layout
from analysis.document import slugs
from analysis.forms import escape_latex, escape_markdown
from analysis.load import load_sweep, open_store
from analysis.report import build_document, render
from sweeps import record
from sweeps.record import RowRecord, SearchRecord, TableRecord

RUNS = {
    "blurred": {"psnr": 20.0, "ssim": 0.7},
    "Multi-scale (1 scale)-1": {"psnr": 22.125, "ssim": 0.8125},
    "Multi-task (2 scales)-1": {"psnr": 23.25, "ssim": 0.875},
}


def some(store, sweep, keys=tuple(RUNS)):
    store.add_sweep(sweep)
    return {key: store.add_run(key, RUNS[key]) for key in keys}


def document(store):
    return build_document(load_sweep(open_store(store.uri), "tables"))


def files(store, *names):
    return {name: content.decode() for name, content in render(document(store), names).items() if "/" not in name}


def lines(store):
    return files(store, "md")["tables-quick.md"].splitlines()


def csv_lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_markdown_is_a_table_with_titles_numbers_and_reasons(store, example):
    some(store, example)
    found = lines(store)
    assert [line for line in found if line.startswith("### Table") and ":" not in line] == [
        "### Table 1",
        "### Table 2",
    ]
    assert "| Model | Loss | CelebA PSNR | CelebA PSNR, paper | CelebA SSIM | CelebA SSIM, paper |" in found
    assert "| Blurred input |  | 20.00 |  | 0.700 |  |" in found
    assert "| Multi-scale (1 scale) | Content loss | 22.12 | 22.19 | 0.812 | 0.844 |" in found
    assert (
        "| Multi-scale (2 scales) | Content loss | missing<sup>a</sup> | 22.57 | missing<sup>a</sup> | 0.856 |" in found
    )
    assert "- <sup>a</sup> Multi-scale (2 scales), Content loss, CelebA: seed 1 missing." in found
    assert "| Content loss | 23.25 | 23.04 | 0.875 | 0.859 |" in found


def test_markdown_shows_spread_and_signed_difference(store, example):
    keys = {"1": "row-1", "2": "row-2"}
    row = RowRecord(name="row", cells=["Row"], keys=keys, published={"CelebA": {"psnr": 23.5, "ssim": 0.5}})
    table = TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])
    store.add_sweep(dataclasses.replace(example, seeds=[1, 2], tables=[table], comparable=True))
    store.add_run("row-1", {"psnr": 22.0, "ssim": 0.75})
    store.add_run("row-2", {"psnr": 24.0, "ssim": 0.75})
    # Deviation sqrt(2); differences 23 - 23.5 and 0.75 - 0.5.
    line = "| Row | 23.00 ± 1.41 | 23.50 | \N{MINUS SIGN}0.50 | 0.750 ± 0.000 | 0.500 | +0.250 |"
    assert line in lines(store)


def test_a_partial_cell_says_how_many_seeds_and_why(store, example):
    row = RowRecord(name="row", cells=["Row"], keys={"1": "row-1", "2": "row-2"}, published={})
    table = TableRecord(title="Table 1", caption="One row.", headings=["Model"], rows=[row])
    store.add_sweep(dataclasses.replace(example, seeds=[1, 2], tables=[table]))
    store.add_run("row-1", {"psnr": 22.0, "ssim": 0.75})
    run = store.add_run("row-2", status="FAILED", tags={record.TAG_FAILURE: "it broke"})
    found = lines(store)
    assert "| Row | 22.00 (1/2)<sup>a</sup> | 0.750 (1/2)<sup>a</sup> |" in found
    assert f"- <sup>a</sup> Row, CelebA: seed 2 failed: it broke (run {run})." in found
    assert f"- Table 1, Row, CelebA: seed 2 failed: it broke (run {run})" in found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_the_store_got_as_not_finite_is_never_a_number(store, example, value):
    store.add_sweep(example)
    store.add_run("Multi-task (2 scales)-1", {"psnr": value, "ssim": 0.875})
    found = files(store, "md", "csv")
    assert re.search(
        r"^\| Content loss \| not finite<sup>.</sup> \| 23.04 \| 0.875 \| 0.859 \|$",
        found["tables-quick.md"],
        flags=re.MULTILINE,
    )
    line = csv_lines(found["tables-quick.csv"])[6]
    assert (line["row"], line["mean"], line["status"]) == ("Multi-task (2 scales)", "", "not finite")


def test_csv_parses_back_to_one_line_per_number(store, example):
    some(store, example)
    found = csv_lines(files(store, "csv")["tables-quick.csv"])
    assert len(found) == 2 * 4 * 2
    assert found[2] == {
        "table": "Table 1",
        "row": "Multi-scale (1 scale)",
        "label": "Multi-scale (1 scale), Content loss",
        "test": "CelebA",
        "metric": "psnr",
        "mean": "22.125",
        "std": "",
        "n": "1",
        "seeds": "1",
        "values": "22.125",
        "published": "22.19",
        "difference": "",
        "status": "complete",
        "best": "",
        "problems": "",
        "preset": "quick",
    }
    assert {line["status"] for line in found} == {"complete", "missing"}
    assert {line["problems"] for line in found} == {"", "seed 1 missing"}


def test_json_has_what_the_tables_have(filled):
    found = files(filled, "json", "csv")
    content = json.loads(found["tables-quick.json"])
    cells = [cell for table in content["tables"] for row in table["rows"] for cell in row["cells"]]
    numbers = csv_lines(found["tables-quick.csv"])
    assert [format(cell["mean"], ".10g") for cell in cells] == [line["mean"] for line in numbers]
    assert [cell["best"] for cell in cells] == [line["best"] == "yes" for line in numbers]
    assert content["problems"] == []
    comparison = content["tables"][1]["comparisons"][0]
    assert (comparison["row"], comparison["against"], comparison["family"]) == ("Content loss", "blurred", "row above")
    assert comparison["difference"]["low"] < comparison["difference"]["mean"] < comparison["difference"]["high"]


def test_the_best_row_is_bold_in_each_form(filled):
    found = files(filled, "md", "tex", "html", "csv")
    best = [line for line in csv_lines(found["tables-quick.csv"]) if line["best"]]
    assert [(line["table"], line["label"], line["metric"]) for line in best] == [
        ("Table 1", "Multi-task (2 scales), Content loss", "psnr"),
        ("Table 1", "Multi-task (2 scales), Content loss", "ssim"),
        ("Table 2", "+ Adversarial loss", "psnr"),
        ("Table 2", "+ Adversarial loss", "ssim"),
    ]
    numbers = [f"{float(line['mean']):.{2 if line['metric'] == 'psnr' else 3}f}" for line in best]
    assert [text.split()[0] for text in re.findall(r"\*\*(.*?)\*\*", found["tables-quick.md"])][:4] == numbers
    assert [text.split()[0] for text in re.findall(r"\\textbf\{(.*?)\}", found["tables-quick.tex"])][:4] == numbers
    assert [text.split()[0] for text in re.findall(r"<strong>(.*?)</strong>", found["tables-quick.html"])][
        :4
    ] == numbers


def test_every_table_and_figure_names_the_preset(filled):
    found = document(filled)
    grids = [grid for section in found.sections for grid in section.grids]
    charts = [chart for section in found.sections for chart in section.charts]
    galleries = [gallery for section in found.sections for gallery in section.galleries]
    assert len(grids) >= 6
    assert len(charts) == 3
    assert len(galleries) == 2
    assert all("preset quick" in each.caption for each in grids)
    assert all("preset quick" in each.title for each in (*charts, *galleries))


def per_image(store, run):
    """A run's per-image file, as any reader has it."""
    path = store.client.download_artifacts(run, record.per_image_file("CelebA"))
    return pq.read_table(path).to_pydict()


def test_a_cell_and_a_figures_point_are_what_the_per_image_files_say(filled):
    rendered = render(document(filled))
    name = "+ Perceptual loss"
    columns = [per_image(filled, filled.runs[f"{name}-{seed}"]) for seed in (1, 2, 3)]

    means = [sum(each["psnr"]) / len(each["psnr"]) for each in columns]
    [cell] = [
        line
        for line in csv_lines(rendered["tables-quick.csv"].decode())
        if (line["label"], line["metric"]) == (name, "psnr")
    ]
    mean = sum(means) / 3
    assert float(cell["mean"]) == pytest.approx(mean, abs=1e-8)
    assert float(cell["std"]) == pytest.approx((sum((each - mean) ** 2 for each in means) / 2) ** 0.5, abs=1e-8)

    size = 15
    values = np.array(
        [
            [psnr for psnr, each in zip(column["psnr"], column["kernel_size"], strict=True) if each == size]
            for column in columns
        ]
    )
    images = [
        each for each, kernel in zip(columns[0]["image"], columns[0]["kernel_size"], strict=True) if kernel == size
    ]
    conditions = [
        each for each, kernel in zip(columns[0]["condition"], columns[0]["kernel_size"], strict=True) if kernel == size
    ]
    parts, quantiles = [], []
    for groups in (
        [values[seed] for seed in range(3)],
        *(
            [values[:, [index for index, each in enumerate(of) if each == wanted]] for wanted in sorted(set(of))]
            for of in (images, conditions)
        ),
    ):
        group_means = [np.mean(group) for group in groups]
        parts.append(np.var(group_means, ddof=1) / len(groups))
        quantiles.append(student.ppf(0.975, len(groups) - 1))
    reach = np.average(quantiles, weights=parts) * sum(parts) ** 0.5
    [point] = [
        line
        for line in csv_lines(rendered["figures/tables-quick-celeba-psnr-kernel-size.csv"].decode())
        if (line["series"], line["x"]) == (name, str(size))
    ]
    assert float(point["y"]) == pytest.approx(values.mean(), abs=1e-8)
    assert float(point["low"]) == pytest.approx(values.mean() - reach, abs=1e-8)
    assert float(point["high"]) == pytest.approx(values.mean() + reach, abs=1e-8)


def test_each_figure_has_its_numbers_beside_it(filled):
    rendered = render(document(filled))
    drawn = {name.rpartition(".")[0] for name in rendered if name.endswith(".pdf")}
    assert drawn == {
        name.rpartition(".")[0] for name in rendered if name.startswith("figures/") and name.endswith(".csv")
    }
    assert len(drawn) == 5
    assert all(csv_lines(rendered[f"{name}.csv"].decode()) for name in drawn)
    pictures = csv_lines(rendered["figures/tables-quick-table-2-celeba-images.csv"].decode())
    run = per_image(filled, filled.runs["+ Perceptual loss-1"])
    expected = {
        (str(image), str(condition)): psnr
        for image, condition, psnr in zip(run["image"], run["condition"], run["psnr"], strict=True)
    }
    shown = [line for line in pictures if line["row"] == "+ Perceptual loss"]
    assert len(shown) == 3
    assert all(float(line["psnr"]) == pytest.approx(expected[line["image"], line["condition"]]) for line in shown)


def test_curves_go_on_where_the_stage_before_ended(filled):
    found = csv_lines(render(document(filled))["figures/tables-quick-learning-curves.csv"].decode())
    steps = {stage: [line["x"] for line in found if line["series"] == stage] for _, stage, *_ in STAGES.values()}
    assert steps["multi-task · content"] == ["100", "200"]
    assert steps["multi-task · +perceptual"] == ["250", "300"]
    assert steps["multi-task · +adversarial"] == ["350", "400"]
    line = next(line for line in found if (line["series"], line["x"]) == ("1 scale · content", "200"))
    values = [21.0 + 0.02 * ((seed * len("Multi-scale (1 scale)")) % 5) for seed in (1, 2, 3)]
    assert float(line["y"]) == pytest.approx(np.mean(values))
    assert (float(line["low"]), float(line["high"])) == pytest.approx((min(values), max(values)))


def test_the_cost_counts_each_training_once_and_tells_what_that_saved(filled):
    [cost] = [section for section in document(filled).sections if section.title == "Cost"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in cost.grids[0].rows}
    # Three seeds of 200 iterations at 36 s each, evaluated in 6 min; two cores.
    assert rows["1 scale · content"] == ["3", "600", "6.00", "0.30", "12.60"]
    assert rows["All stages"] == ["3", "2,400", "24.00", "1.50", "51.00"]
    # Table 1: 3 × 200, Table 2: 200 + 300 + 400, for each seed.
    assert rows["Each line from scratch"][:2] == ["3", "4,500"]
    assert "saved 2,100 iterations (47%)" in cost.grids[0].notes[0].text


def test_a_search_has_its_importances_and_slices(store, example):
    fill(store)
    search = SearchRecord(
        id="s1",
        study="tables",
        preset="quick",
        row="loss-adversarial",
        metric="validation/psnr",
        first_step=300,
        rungs=[10, 30],
        ranges={"losses.perceptual": (1e-5, 1e-2), "losses.adversarial": (0.0, 1.0)},
        trials=3,
        best={"losses.perceptual": 1e-3, "losses.adversarial": 0.5},
        importances={"losses.perceptual": 0.75, "losses.adversarial": 0.25},
    )
    store.client.set_experiment_tag(store.experiment("tables-search"), *search.to_tag())
    for number, curve in enumerate([{310: 20.0, 330: 21.0}, {310: 19.0}, {}]):
        values = json.dumps({"losses.perceptual": 10.0 ** -(number + 2), "losses.adversarial": number / 2})
        labels = {"search": "s1", "trial": str(number), "values": values}
        tags = {record.label_tag(name): text for name, text in labels.items()}
        store.add_run(f"trial {number}", study="tables-search", status="KILLED", tags=tags, curve=curve)
    found = document(store)
    [section] = [section for section in found.sections if section.title == "Searches"]
    assert [[cell.text for cell in row] for row in section.grids[0].rows] == [
        ["losses.adversarial", "0", "1", "0.5", "25 %"],
        ["losses.perceptual", "1e-05", "0.01", "0.001", "75 %"],
    ]
    [chart] = section.charts
    points = {
        (line["field"], float(line["value"])): (float(line["score"]), line["finished"]) for line in csv_lines(chart.csv)
    }
    assert points == {
        ("losses.perceptual", 1e-2): (20.0, "true"),
        ("losses.perceptual", 1e-3): (19.0, "false"),
        ("losses.adversarial", 0.0): (20.0, "true"),
        ("losses.adversarial", 0.5): (19.0, "false"),
    }


def test_the_provenance_names_code_data_hardware_licences_and_runs(filled):
    found = document(filled)
    facts = {fact.name: fact.values for fact in found.facts}
    assert facts["Commit"] == (("c0ffee", ""),)
    assert facts["Uncommitted changes"] == (("none", ""),)
    assert facts["Code digest"] == (("code", ""),)
    assert facts["Data: train faces"] == (("feed", ""),)
    assert facts["Licences"] == (("CelebA: for non-commercial research only.", ""),)
    assert facts["Versions"] == (("python 3.11.9, torch 2.15.0", ""),)
    shown = {row[3].text: row[3].link for row in found.runs.rows}
    assert set(shown) == set(filled.runs.values())
    experiment = filled.experiment("tables")
    assert all(link == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run}" for run, link in shown.items())
    text = files(filled, "html")["tables-quick.html"]
    assert all(text.count(run) >= 1 for run in filled.runs.values())


def test_each_distinct_change_to_a_commit_has_a_link(store, example):
    store.add_sweep(example)
    diffs = {"Multi-scale (1 scale)-1": b"a", "Multi-scale (2 scales)-1": b"b", "Multi-task (2 scales)-1": b"a"}
    for key, diff in diffs.items():
        run = store.add_run(key, {"psnr": 22.0, "ssim": 0.7}, tags={record.TAG_DIRTY: "true"})
        store.log(run, record.DIFF_FILE, diff)
    facts = {fact.name: fact.values for fact in document(store).facts}
    assert facts["Commit"] == (("c0ffee (modified)", ""),)
    assert len(facts["Uncommitted changes"]) == 2
    assert all(link.endswith(f"/artifacts/{record.DIFF_FILE}") for _, link in facts["Uncommitted changes"])


def test_html_refers_to_nothing_outside_but_by_links_and_escapes_what_the_store_says(store, example):
    store.add_sweep(dataclasses.replace(example, notes=["<script>alert('&')</script>"]))
    store.add_run("blurred", RUNS["blurred"])
    text = files(store, "html")["tables-quick.html"]
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;" in text
    assert not re.search(r"(src|srcset|action|data)=[\"']?(?!data:image/png;base64,)\w+:", text)
    assert all(
        link.startswith(('href="#', 'href="data:,', 'href="http://127.0.0.1:5000/#/'))
        for link in re.findall(r'href="[^"]*', text)
    )


def test_latex_has_as_many_cells_as_columns(filled):
    text = files(filled, "tex")["tables-quick.tex"]
    assert r"\usepackage{booktabs}" in text.splitlines()[0]
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    bodies = re.findall(r"\\begin\{tabular\}\{(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(bodies) == 2 + 4 * 2 + 1  # the differences' two groups are tables of their own
    assert max(len(body[: body.index("}")]) for body in bodies) <= 10
    for body in bodies:
        columns = len(body[: body.index("}")])
        found = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {line.count("&") - line.count(r"\&") + 1 for line in found} == {columns}
    assert r"\renewcommand{\thetable}{2}" in text


def test_latex_compiles_in_a_bare_document(store, tmp_path):
    if not shutil.which("pdflatex"):
        tiny.missing("pdflatex is not installed")
    fill(store)
    cells = ["50% & <b>|_ #1 {x} ~^\\ [a] * ± – · “é”", ""]
    hostile = RowRecord(name="row", cells=cells, keys={}, published={})
    asked = example_record((1, 2, 3))
    table = TableRecord(title="Table 3", caption="$100% & more_", headings=["A & B", "C"], rows=[hostile])
    store.add_sweep(dataclasses.replace(asked, tables=[*asked.tables, table]))
    for name, text in files(store, "tex").items():
        (tmp_path / name).write_text(text)
    bare = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{tables-quick.tex}\end{document}"
    (tmp_path / "bare.tex").write_text(bare)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "bare.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "bare.pdf").read_bytes().startswith(b"%PDF")
    log = (tmp_path / "bare.log").read_text(errors="replace")
    assert "Undefined" not in log
    assert "Missing character" not in log


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
    found = {name.partition(".")[2]: content for name, content in files(store, "md", "tex", "html", "csv").items()}
    assert r"50\% \& \textless{}b\textgreater{}\textbar{}\_ & missing" in found["tex"]
    assert r"| 50% & \<b\>\|\_ | missing" in found["md"]
    assert "50% &amp; &lt;b&gt;|_" in found["html"]
    assert "<b>" not in found["html"]
    assert next(csv.DictReader(io.StringIO(found["csv"])))["label"] == "50% & <b>|_"


def test_the_order_in_which_runs_were_made_does_not_show(tmp_path, store, example, make_store):
    """But for the ids that MLflow draws."""
    turned = make_store(tmp_path / "turned")
    found = []
    for each, keys in ((store, list(RUNS)), (turned, list(reversed(RUNS)))):
        ids = some(each, example, keys)
        text = {name: content for name, content in render(document(each)).items() if not name.endswith(".pdf")}
        for key, run in sorted(ids.items()):
            text = {name: content.replace(run.encode(), key.encode()) for name, content in text.items()}
        found.append(text)
    assert found[0] == found[1]


def test_the_same_store_gives_the_same_bytes_in_any_locale_and_time_zone(filled, tmp_path):
    written = []
    for number, settings in enumerate(
        [
            {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1"},
            {"LC_ALL": _other_locale(), "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "2", "COLUMNS": "200"},
        ]
    ):
        given = tiny.command(
            tmp_path, "analysis", "report", "--tracking-uri", filled.uri, "--out", tmp_path / str(number)
        )
        done = subprocess.run(**{**given, "env": {**given["env"], **settings}}, capture_output=True)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / str(number)
        written.append(
            {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        )
    assert len(written[0]) == 5 + 3 * 3 + 2 * 2
    assert written[0] == written[1]


def test_the_files_are_written_whatever_becomes_of_the_terminal(filled, tmp_path):
    given = tiny.command(tmp_path, "analysis", "report", "--tracking-uri", filled.uri, "--out", tmp_path / "report")
    with open("/dev/full", "w") as full:
        done = subprocess.run(**given, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert {path.suffix for path in (tmp_path / "report").iterdir()} == {"", ".md", ".html", ".tex", ".csv", ".json"}


def _other_locale():
    """One that writes numbers with a comma, where the system has any; else UTF-8."""
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "nl_NL.UTF-8"):
        try:
            before = locale.setlocale(locale.LC_NUMERIC)
            locale.setlocale(locale.LC_NUMERIC, name)
            locale.setlocale(locale.LC_NUMERIC, before)
            return name
        except locale.Error:
            continue
    return "C.UTF-8"


@pytest.mark.parametrize("study", ["a/b", "", "../up", "a b", ".hidden"])
def test_a_study_that_can_name_no_file_is_refused(store, example, study):
    store.add_sweep(example)
    sweep = load_sweep(open_store(store.uri), "tables")
    changed = dataclasses.replace(sweep, record=dataclasses.replace(sweep.record, study=study))
    with pytest.raises(ValueError, match="to name a file"):
        build_document(changed)


def test_made_up_columns_have_the_means_they_were_given():
    columns = around({"psnr": 20.0, "ssim": 0.5})
    assert np.mean(columns["psnr"]) == pytest.approx(20.0)


def test_test_sets_of_much_the_same_name_have_figures_of_their_own(store, example):
    tests = ["My faces", "my-faces", "my_faces", "人"]
    store.add_sweep(dataclasses.replace(example, tests=tests, fingerprints=dict.fromkeys(tests, "proto")))
    tags = {record.protocol_tag(test): "proto" for test in tests[:3]}  # MLflow refuses the last in a tag
    run = store.add_run("Multi-scale (1 scale)-1", tags=tags)
    for test in tests[:3]:
        store.client.log_metric(run, record.test_metric(test, "psnr"), 20.0)
        store.log(run, record.per_image_file(test), parquet(around({"psnr": 20.0, "ssim": 0.5})))
    names = [name for name in render(document(store)) if name.endswith("-psnr-kernel-size.csv")]
    assert len(set(names)) == 3
    assert slugs(tests) == {"My faces": "my-faces", "my-faces": "my-faces-", "my_faces": "my-faces--", "人": "unnamed"}


def test_images_of_another_protocol_are_not_shown(filled, tmp_path):
    changed = Store(tmp_path, filled.folder / "mlflow.db")
    for seed in (1, 2, 3):
        run = filled.runs[f"+ Perceptual loss-{seed}"]
        changed.client.set_tag(run, record.protocol_tag("CelebA"), "old")

    def shown(store):
        [images] = [section for section in document(store).sections if section.title == "Images"]
        return [tile.label for tile in images.galleries[1].examples[0].tiles], images.galleries[1].caption

    assert shown(filled) == (
        ["Truth", "Blurred input", "Content loss", "+ Perceptual loss", "+ Adversarial loss"],
        "The same images under the same conditions in every row; seed 1.",
    )
    labels, caption = shown(changed)
    assert labels == ["Truth", "Blurred input", "Content loss", "+ Adversarial loss"]
    assert caption.endswith("Not shown, for the reasons below the tables: + Perceptual loss.")


@pytest.mark.parametrize(
    ("low", "high", "decimals", "text"),
    [
        (-0.0051, 0.0014, 3, "[\N{MINUS SIGN}0.006, +0.002]"),
        (-0.0801, 0.1017, 2, "[\N{MINUS SIGN}0.09, +0.11]"),
        (0.25, 0.5, 2, "[+0.25, +0.50]"),
        (-0.0004, 0.0, 2, "[\N{MINUS SIGN}0.01, 0.00]"),
    ],
)
def test_an_interval_is_never_shown_narrower_than_it_is(low, high, decimals, text):
    assert layout.interval_text(low, high, decimals, "+") == text


def test_nothing_has_no_sign():
    assert [layout.number(value, 3, "+") for value in (-0.0004, 0.0004, 0.0006)] == ["0.000", "0.000", "+0.001"]


def test_few_conditions_at_a_place_have_no_band(store, example):
    store.add_sweep(example_record((1, 2, 3)))
    images, conditions = np.divmod(np.arange(12), 4)
    rng = np.random.default_rng(0)
    for seed in (1, 2, 3):
        psnr = 20 + rng.random(12)
        columns = {"image": images, "condition": conditions, "psnr": psnr, "ssim": psnr / 30}
        columns["kernel_size"] = 13 + 2 * (conditions // 2)
        means = {"psnr": psnr.mean(), "ssim": psnr.mean() / 30}
        store.add_run(f"Multi-scale (1 scale)-{seed}", means, per_image=columns)
    found = render(document(store))
    points = csv_lines(found["figures/tables-quick-celeba-psnr-kernel-size.csv"].decode())
    assert [point["low"] for point in points] == ["", ""]
    [caption] = [chart.caption for section in document(store).sections for chart in section.charts][:1]
    assert caption.startswith("No bands: they need two seeds, and 5 conditions at each place.")


@pytest.mark.parametrize(("seeds", "expected"), [((1,), "Of 1 seed nothing"), ((1, 2), "Of 2 seeds nothing")])
def test_too_few_seeds_can_not_be_defended(store, seeds, expected):
    fill(store, seeds)
    assert document(store).problems == (f"{expected} can be claimed: at least 3 are needed",)

"""The command, as a user types it."""

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from analysis.cli import looks, main
from analysis.load import load_sweep, open_store
from analysis.report import build_document
from sweeps import record


def invoke(*arguments, columns=80, **environment):
    env = {"COLUMNS": str(columns), "MLFLOW_TRACKING_URI": "", **environment}
    return CliRunner().invoke(main, list(map(str, arguments)), env=env)


@pytest.fixture
def runs(store, example):
    """A sweeps' folder with a store in it."""
    store.add_sweep(example)
    store.add_run("blurred", {"psnr": 20.0, "ssim": 0.7})
    store.add_run("Multi-task (2 scales)-1", {"psnr": 23.25, "ssim": 0.875})
    store.add_run("+ Adversarial loss-1", status="FAILED", tags={record.TAG_FAILURE: "no luck"})
    return store.folder


@pytest.mark.parametrize("columns", [80, 120])
def test_report_prints_the_tables_whole_and_writes_the_files(runs, columns):
    result = invoke("report", "--runs", runs, columns=columns)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    tables, written = lines[:-5], lines[-5:]
    assert written == [str(runs / "report" / f"tables-quick.{name}") for name in ("md", "html", "tex", "csv", "json")]
    assert all(Path(file).stat().st_size for file in written)
    found = {str(file) for file in (runs / "report").iterdir()}
    assert found == {*written, str(runs / "report" / "figures")}
    assert max(map(len, tables)) <= columns
    assert [line for line in tables if re.fullmatch(r"Table \d", line)] == ["Table 1", "Table 2"]
    assert "\x1b" not in result.stdout  # plain: this is no terminal
    cells = [" ".join(line.split()) for line in tables]
    assert "Multi-task (2 scales) Content loss 23.25 23.04 0.875 0.859" in cells
    assert "+ Adversarial loss failed b 23.56 failed b 0.871" in cells
    assert "b + Adversarial loss, CelebA: seed 1 failed: no luck (run " in " ".join(cells)


def test_a_narrow_terminal_gets_a_table_per_metric_with_every_number(runs):
    printed = invoke("report", "--runs", runs, columns=60).stdout.splitlines()
    lines = [" ".join(line.split()) for line in printed]
    assert "Multi-task (2 scales) Content loss 23.25 23.04" in lines
    assert "Multi-task (2 scales) Content loss 0.875 0.859" in lines


def test_no_verdict_and_no_number_is_cut_in_a_terminal_of_80_columns(filled):
    result = invoke("report", "--runs", filled.folder, "--format", "json", columns=80)
    assert result.exit_code == 0, result.stderr
    assert "P(" in result.stdout  # differences are shown
    assert "…" not in result.stdout
    assert len(re.findall(r"\bverdict\b", result.stdout)) > 1


def test_a_stale_number_is_a_yellow_word_in_a_terminal(runs, store):
    store.add_run("+ Perceptual loss-1", {"psnr": 24.0, "ssim": 0.86}, tags={record.protocol_tag("CelebA"): "old"})
    printed = invoke("report", "--runs", runs, FORCE_COLOR="1", TERM="xterm").stdout
    [line] = [line for line in printed.splitlines() if line.startswith("+ Perceptual loss ")]
    assert len(re.findall(r"\x1b\[33m *stale\x1b\[0m", line)) == 2
    assert "24.00" not in printed


def test_several_seeds_are_printed_with_their_differences(filled, tmp_path):
    printed = invoke("report", "--out", tmp_path, "--runs", filled.folder, columns=100)
    assert printed.exit_code == 0
    assert max(map(len, printed.stdout.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in printed.stdout.splitlines()]
    titles = [line for line in lines if line.startswith("Differences in")]
    assert titles == [
        f"Differences in {metric} on CelebA, Table {table}" for table in (1, 2) for metric in ("PSNR", "SSIM")
    ]
    [line] = [line for line in lines if line.startswith("+ Adversarial loss +1.")][:1]
    assert line.endswith("better")


def test_strict_fails_and_names_what_can_not_be_defended(runs, store):
    result = invoke("report", "--runs", runs, "--strict")
    assert result.exit_code == 1
    listed = result.stdout[result.stdout.index("What keeps this report from being defended") :]
    named = " ".join(listed.split())
    assert "Table 1, Multi-scale (1 scale), Content loss, CelebA: seed 1 missing" in named
    assert "Table 2, + Adversarial loss, CelebA: seed 1 failed: no luck (run " in named
    assert (runs / "report" / "tables-quick.html").exists()


def test_strict_passes_what_can_be_defended(filled, tmp_path):
    result = invoke("report", "--out", tmp_path, "--runs", filled.folder, "--strict")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "What keeps" not in result.stdout


def test_watch_shows_each_change_until_nothing_is_under_way(store, example):
    """The sweep goes on while the report waits: one stage after another, and one that takes all the time."""
    store.add_sweep(example)
    *keys, last = sorted({key for table in example.tables for row in table.rows for key in row.keys.values()})
    running = store.add_run(last, status="RUNNING")
    waits = []

    def look():
        return build_document(load_sweep(open_store(store.uri), "tables"))

    def wait():
        waits.append(len(waits))
        if len(waits) % 2 and keys:  # nothing new every other time
            store.add_run(keys.pop(), {"psnr": 20.0, "ssim": 0.7})
        elif not keys:
            store.client.set_terminated(running, "FAILED")

    shown = [len(document.problems) for document in looks(look, wait)]
    assert shown[:-1] == sorted(set(shown[:-1]), reverse=True)
    assert shown[-1] == shown[-2]  # running, then failed
    assert len(shown) == 7
    assert len(list(looks(look, None))) == 1


def test_watch_looks_once_more_where_nothing_is_under_way_and_something_is_missing(store, example):
    """A sweep may be between two stages, or have died."""
    store.add_sweep(example)
    waits = []
    documents = list(
        looks(lambda: build_document(load_sweep(open_store(store.uri), "tables")), lambda: waits.append(1))
    )
    assert (len(documents), len(waits)) == (1, 1)


def test_watch_ends_where_no_number_will_come(filled, tmp_path):
    result = invoke("report", "--out", tmp_path, "--runs", filled.folder, "--watch", "3600")
    assert (result.exit_code, result.stderr) == (0, "")


def test_compare_shows_results_settings_and_the_axis(filled):
    ids = filled.runs
    result = invoke("compare", "--runs", filled.folder, "Multi-task (2 scales)", "+ Adversarial loss", columns=120)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "A: Multi-task (2 scales), B: + Adversarial loss" in lines
    [psnr] = [line for line in lines if line.startswith("CelebA PSNR (dB)")]
    numbers = re.findall(r"[+\N{MINUS SIGN}]?\d+\.\d+", psnr)
    means = {
        key: np.mean([psnr_of(filled, ids[f"{key}-{seed}"]) for seed in (1, 2, 3)])
        for key in ("Multi-task (2 scales)", "+ Adversarial loss")
    }
    assert numbers[:2] == [f"{mean:.2f}" for mean in means.values()]
    assert psnr.endswith("worse")
    assert "losses.perceptual 0.0 0.001" in lines
    assert "stage multi-task · content multi-task · +adversarial" in lines
    assert [line.split()[0] for line in lines if re.match(r"1[35] \d", line)] == ["13", "15"] * 2


def psnr_of(store, run):
    return store.client.get_run(run).data.metrics["test/CelebA/psnr"]


def test_compare_takes_runs_by_the_beginning_of_their_ids(filled):
    ids = filled.runs
    a, b = ids["Multi-task (2 scales)-1"], ids["+ Perceptual loss-2"]
    result = invoke("compare", "--runs", filled.folder, a[:12], b[:12], columns=120)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "A: Multi-task (2 scales), seed 1, B: + Perceptual loss, seed 2" in result.stdout
    [psnr] = [line for line in result.stdout.splitlines() if re.match(r"CelebA +PSNR \(dB\)", line)]
    assert f"{psnr_of(filled, a):.2f}" in psnr
    assert "underpowered" in psnr


def test_a_row_is_not_compared_with_a_run_of_its_own(filled):
    run = filled.runs["Multi-task (2 scales)-1"]
    result = invoke("compare", "--runs", filled.folder, "Multi-task (2 scales)", run)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the two RUN must have no run in common, got 'Multi-task (2 scales)' and ")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("nope", "blurred", "RUN must be a row of the last sweep (blurred, Multi-task (2 scales), Content loss, "),
        ("", "blurred", "RUN must be a row of the last sweep (blurred, "),
        ("blurred", "+ Perceptual loss", "RUN must be a row with a run (blurred, Multi-task (2 scales), "),
        ("blurred", "blurred", "the two RUN must have no run in common, got 'blurred' and 'blurred'"),
    ],
)
def test_compare_refuses_in_one_line(runs, a, b, message):
    result = invoke("compare", "--runs", runs, a, b)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_options_choose_the_store_the_files_and_their_folder(runs, store, tmp_path):
    out = tmp_path / "elsewhere"
    result = invoke("report", "--tracking-uri", store.uri, "--format", "md,csv", "--out", out, "--preset", "quick")
    assert result.exit_code == 0
    assert sorted(file.name for file in out.glob("*.*")) == ["tables-quick.csv", "tables-quick.md"]
    assert not (runs / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--study", "nope"], "error: study must be one in the store (tables), got 'nope'"),
        (["report", "--preset", "nope"], "error: preset must be one that was swept (quick), got 'nope'"),
        (["report", "--format", "md,pdf"], "error: format must be of md, html, tex, csv, json, got 'pdf'"),
        (["report", "--watch", "0"], "error: Invalid value for '--watch'"),
        (["report", "--nope"], "error: No such option"),
        (["nope"], "error: No such command 'nope'"),
        ([], "error: Missing command."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(runs, arguments, message):
    given = [*arguments, "--runs", runs] if arguments[:1] == ["report"] else arguments
    result = invoke(*given)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_a_file_in_the_way_of_the_files_is_one_line(filled, tmp_path):
    (tmp_path / "taken").touch()
    result = invoke("report", "--runs", filled.folder, "--out", tmp_path / "taken")
    assert result.exit_code == 2
    assert result.stderr == f"error: --out must be a folder that can be written, got {tmp_path}/taken (File exists)\n"


def test_no_store_is_one_line_and_nothing_is_made(tmp_path):
    result = invoke("report", "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert result.stderr == f"error: no tracking store at {tmp_path}/runs/mlflow.db: " + (
        "run a sweep first, or name another store\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"], ["compare", "--help"]])
def test_help(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")

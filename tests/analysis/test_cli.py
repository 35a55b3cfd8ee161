"""The command, as a user types it."""

import re

import pytest
from click.testing import CliRunner

from analysis.cli import main
from sweeps import record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def invoke(*arguments, columns=80, **environment):
    env = {"COLUMNS": str(columns), "MLFLOW_TRACKING_URI": "", **environment}
    return CliRunner().invoke(main, list(map(str, arguments)), env=env)


@pytest.fixture
def runs(store, example):
    """A sweeps' folder with a store in it."""
    store.add_sweep(example)
    store.add_run("blurred", {"psnr": 20.0, "ssim": 0.7})
    store.add_run("Multi-task (2 scales)-1", {"psnr": 23.25, "ssim": 0.875})
    store.add_run("+ Adversarial loss-1", status="FAILED")
    return store.folder


@pytest.mark.parametrize("columns", [80, 120])
def test_report_prints_the_tables_whole_and_writes_the_files(runs, columns):
    result = invoke("report", "--runs", runs, columns=columns)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    tables, written = lines[:-4], lines[-4:]
    assert written == [str(runs / "report" / f"tables-quick.{name}") for name in ("md", "html", "tex", "csv")]
    assert all((runs / "report" / f"tables-quick.{name}").stat().st_size for name in ("md", "html", "tex", "csv"))
    assert sorted(file.name for file in (runs / "report").iterdir()) == sorted(
        file.rpartition("/")[2] for file in written
    )
    assert max(map(len, tables)) <= columns
    assert [line for line in tables if line.startswith("Table")] == ["Table 1", "Table 2"]
    assert "\x1b" not in result.stdout  # plain: this is no terminal
    cells = [" ".join(line.split()) for line in tables]
    assert "Multi-task (2 scales) Content loss 23.25 (1) 23.04 0.875 (1) 0.859" in cells
    assert "+ Adversarial loss failed 23.56 failed 0.871" in cells


def test_a_narrow_terminal_gets_a_table_per_metric_with_every_number(runs):
    printed = invoke("report", "--runs", runs, columns=60).stdout.splitlines()
    lines = [" ".join(line.split()) for line in printed]
    assert "Multi-task (2 scales) Content loss 23.25 (1) 23.04" in lines
    assert "Multi-task (2 scales) Content loss 0.875 (1) 0.859" in lines


def test_a_stale_number_is_a_yellow_word_in_a_terminal(runs, store):
    store.add_run("+ Perceptual loss-1", {"psnr": 24.0, "ssim": 0.86}, tags={record.protocol_tag("CelebA"): "old"})
    printed = invoke("report", "--runs", runs, FORCE_COLOR="1", TERM="xterm").stdout
    (line,) = [line for line in printed.splitlines() if "+ Perceptual loss" in line]
    assert len(re.findall(r"\x1b\[33m *stale\x1b\[0m", line)) == 2
    assert "24.00" not in printed


def test_options_choose_the_store_the_files_and_their_folder(runs, store, tmp_path):
    out = tmp_path / "elsewhere"
    result = invoke("report", "--tracking-uri", store.uri, "--format", "md,csv", "--out", out, "--preset", "quick")
    assert result.exit_code == 0
    assert sorted(file.name for file in out.iterdir()) == ["tables-quick.csv", "tables-quick.md"]
    assert not (runs / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--study", "nope"], "error: study must be one in the store (tables), got 'nope'"),
        (["report", "--preset", "nope"], "error: preset must be one that was swept (quick), got 'nope'"),
        (["report", "--format", "md,pdf"], "error: format must be of md, html, tex, csv, got 'pdf'"),
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


def test_no_store_is_one_line_and_nothing_is_made(tmp_path):
    result = invoke("report", "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert result.stderr == f"error: no tracking store at {tmp_path}/runs/mlflow.db: " + (
        "run a sweep first, or name another store\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"]])
def test_help(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")

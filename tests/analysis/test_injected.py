"""One of everything that can be wrong with a run, in a store that is whole otherwise: it shows, nothing that it touches
is bold, and `--strict` fails and names it."""

import json
import math

import pytest
from click.testing import CliRunner
from stores import Store

from analysis.cli import main
from sweeps import record

ROW = "+ Perceptual loss"


def delete(store, runs):
    for run in runs:
        store.client.delete_run(run)


def end(status, **tags):
    def change(store, runs):
        store.client.set_terminated(runs[1], status)
        tag(**tags)(store, runs)

    return change


def tag(**tags):
    def change(store, runs):
        for name, value in tags.items():
            store.client.set_tag(runs[1], name.replace("__", " "), value)

    return change


def not_a_number(store, runs):
    store.client.log_metric(runs[1], "test/CelebA/psnr", math.nan, step=1)


CASES = {
    "missing": (delete, "missing", "seed 1 missing; seed 2 missing; seed 3 missing"),
    "partial": (lambda store, runs: delete(store, runs[1:2]), "(2/3)", "seed 2 missing"),
    "pruned": (end("KILLED", **{record.TAG_PRUNED: "rung 1"}), "(2/3)", "seed 2 pruned: rung 1 (run {run})"),
    "failed": (end("FAILED", **{record.TAG_FAILURE: "no memory"}), "(2/3)", "seed 2 failed: no memory (run {run})"),
    "running": (end("RUNNING"), "(2/3)", "seed 2 running (run {run})"),
    "NaN": (not_a_number, "(2/3)", "seed 2 not finite (run {run})"),
    "mixed protocol": (
        tag(**{record.protocol_tag("CelebA"): "older"}),
        "(2/3)",
        "seed 2 stale: of protocol older, not proto (run {run})",
    ),
    "mixed code": (
        tag(**{record.TAG_CODE_DIGEST: "older"}),
        "±",
        "seed 2 stale: code older, the newest run's is code (run {run})",
    ),
    "stale data": (
        tag(**{record.data_tag("train faces").replace(" ", "__"): "older"}),
        "±",
        "seed 2 stale: data test beef, train older, the newest run's is test beef, train feed (run {run})",
    ),
}


@pytest.fixture
def copy(filled, tmp_path):
    """The filled store to change: its database is a copy, its files are the same."""
    return Store(tmp_path, filled.folder / "mlflow.db")


def report(store, *options):
    environment = {"COLUMNS": "200", "MLFLOW_TRACKING_URI": ""}
    return CliRunner().invoke(main, ["report", "--runs", str(store.folder), *options], env=environment)


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_shows_is_not_bold_and_is_named(filled, copy, name):
    inject, shown, named = CASES[name]
    runs = [filled.runs[f"{ROW}-{seed}"] for seed in (1, 2, 3)]
    inject(copy, runs)
    result = report(copy, "--strict", "--format", "md,json")
    assert (result.exit_code, result.stderr) == (1, "")

    text = (copy.folder / "report" / "tables-quick.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith(f"| {ROW} |") and "23.48" in line]
    psnr, ssim = (line.split(" | ")[place] for place in (1, 3))
    assert shown in psnr
    assert psnr.endswith("<sup>a</sup>")
    content = json.loads((copy.folder / "report" / "tables-quick.json").read_text())
    sentence = named.format(run=runs[1])
    lines = [f"Table 2, {ROW}, CelebA: {part}" for part in sentence.split("; ")]
    if name == "mixed code":  # what goes on from it is of older code too
        after = "seed 2 stale: code of its stage multi-task · +perceptual older, the newest run's is code"
        lines.append(f"Table 2, + Adversarial loss, CelebA: {after} (run {filled.runs['+ Adversarial loss-2']})")
    assert content["problems"] == lines
    assert all(f"- {each}" in " ".join(result.stdout.split()) for each in lines)
    assert f"- <sup>a</sup> {ROW}, CelebA: {sentence}." in text

    affected = {"psnr"} if name == "NaN" else {"psnr", "ssim"}
    assert ("<sup>" in ssim) == ("ssim" in affected)
    one, two = content["tables"]
    assert {cell["metric"] for row in two["rows"] for cell in row["cells"] if cell["best"]} == {
        "psnr",
        "ssim",
    } - affected
    assert {cell["metric"] for row in one["rows"] for cell in row["cells"] if cell["best"]} == {"psnr", "ssim"}
    compared = [each for each in two["comparisons"] if each["metric"] in affected]
    touched = [each for each in compared if ROW in (each["row"], each["against"])]
    assert len(touched) == 3 * len(affected)
    assert {each["verdict"] for each in touched} == {"not compared"}
    assert all(each["difference"] is None for each in touched)


def test_a_whole_store_passes(copy):
    assert report(copy, "--strict").exit_code == 0


def test_the_provenance_leaves_out_the_test_sets_of_other_sweeps(filled, copy):
    for run in filled.runs.values():
        copy.client.set_tag(run, record.data_tag("test Mine"), "cafe")
    report(copy)
    written = json.loads((copy.folder / "report" / "tables-quick.json").read_text())
    data = [fact["name"] for fact in written["provenance"] if fact["name"].startswith("Data: ")]
    assert data == ["Data: test CelebA", "Data: train faces"]

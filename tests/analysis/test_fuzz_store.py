"""Stores that a stranger filled: a report in its folder or one line, never a traceback or a file elsewhere."""

import dataclasses
import json
import math
import random

import fuzz
import pytest
from click.testing import CliRunner
from stores import SHOWN, stage_run, sweep_of

from analysis.cli import main
from analysis.report import build_document, render
from sweeps import record
from sweeps.record import SweepRecord

RECORDS, METRICS, STORES = 400, 60, 40
JUNK = {
    record.TAG_CODE_DIGEST: "code",
    record.TAG_COMMIT: "c0ffee",
    record.TAG_DEVICES: "2 cores",
    record.TAG_PARENT_KEY: "blurred",
    record.TAG_SEED: "1",
    record.TAG_STAGE: "content",
    record.data_tag("train faces"): "feed",
}
"""Tags that a report reads, and what is in them where nobody meddled."""


def report(runs, *arguments):
    return CliRunner().invoke(main, ["report", "--runs", str(runs), *arguments], env={"MLFLOW_TRACKING_URI": ""})


def assert_report_or_one_line(result):
    """True if it was refused."""
    if result.exit_code == 0:
        return False
    assert result.exit_code == 2, (result.exception, result.output)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return True


def test_a_record_of_junk_is_refused_or_reported(example):
    """Through all that happens to a record but for the store and the disk."""
    rng, whole = random.Random(0), example.to_json()
    refused = 0
    for index in range(RECORDS):
        if index % 2:
            text = json.dumps(fuzz.mutated(json.loads(whole), rng))
        else:
            text = fuzz.damaged(whole.encode(), rng).decode(errors="replace")
        tags = {"whetstone.sweep.quick.count": "1", "whetstone.sweep.quick.0": text}
        try:
            found = record.from_tags(tags, "quick")
            keys = {key for table in found.tables for row in table.rows for key in row.keys.values()}
            files = render(build_document(sweep_of(found, dict.fromkeys(keys))))
        except ValueError:
            refused += 1
        else:
            assert not any(
                "/" in name.removeprefix("figures/") or "\0" in name or name.startswith(".") for name in files
            )
    assert RECORDS / 3 < refused < RECORDS


@pytest.mark.parametrize("count", ["", "-1", "2", "1e3", "9" * 30, "9" * 5000, "one", "\0"])
def test_a_record_that_is_not_whole_is_refused(example, count):
    tags = {**record.to_tags(example), "whetstone.sweep.quick.count": count}
    with pytest.raises(ValueError, match="the store's sweep record"):
        record.from_tags(tags)


def test_metrics_and_tags_of_junk_are_shown_as_what_they_are(example):
    rng, numbers = random.Random(1), 0
    for _ in range(METRICS):
        value = rng.choice([math.nan, math.inf, -math.inf, 1.8e308, -1e308, 1e-320, 0.0, 20.0, 20.0])
        tags = {record.protocol_tag("CelebA"): rng.choice(["proto"] * 200 + [*fuzz.NAMES])}
        tags |= {tag: rng.choice(fuzz.NAMES) for tag in (record.TAG_CODE_DIGEST, record.TAG_COMMIT)}
        run = dataclasses.replace(
            stage_run(value, rng.choice(["FINISHED"] * 200 + ["FAILED", *fuzz.NAMES])),
            params={"steps": rng.choice(["100", *fuzz.NAMES])},
            tags={tag: rng.choice([text] * 200 + [*fuzz.NAMES]) for tag, text in {**JUNK, **tags}.items()},
        )
        keys = {key for table in example.tables for row in table.rows for key in row.keys.values()}
        curve = {step: rng.choice([value, 20.0]) for step in (1, 2)}
        sweep = dataclasses.replace(sweep_of(example, dict.fromkeys(keys, run)), curve=lambda run, found=curve: found)
        document = build_document(sweep)
        render(document, ("md", "tex", "csv", "json", "html"))
        shown = document.tables[0].rows[0].cells["CelebA", "psnr"]
        assert shown.mean is None or math.isfinite(shown.mean)
        numbers += shown.mean is not None
    assert numbers > 5


def hostile_stores(store, example, rng):
    """Changes the store, one after another, and puts it right again."""
    good = record.to_tags(example)
    experiment = store.experiment(example.study)

    def tags(changed):
        for tag, value in changed.items():
            store.client.set_experiment_tag(experiment, tag, value)

    for index in range(STORES):
        name = rng.choice([name for name in fuzz.NAMES if len(name) < 4000 and name != "\udcff"])
        changed = SweepRecord.from_json(example.to_json())
        content = json.loads(changed.to_json())
        kind = index % 5
        if kind == 0:
            content["study"] = name
        elif kind == 1:
            content["preset"] = name
        elif kind == 2:
            content["tests"], content["fingerprints"] = [name], {name: "proto"}
        elif kind == 3:
            content["tables"][0]["rows"][0]["keys"] = {"1": name}
        else:
            content = fuzz.mutated(content, rng)
        tags({"whetstone.sweep.quick.0": json.dumps(content)[: record.CHUNK], "whetstone.sweep.quick.count": "1"})
        tags({"whetstone.latest_preset": name if index % 7 == 0 else "quick"})
        yield name
        tags(good)


def test_a_store_of_junk_is_refused_or_reported_within_its_folder(store, example, tmp_path, monkeypatch):
    rng, runs, home = random.Random(2), tmp_path, tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    example = SweepRecord.from_json(example.to_json())
    short = json.loads(example.to_json())
    short["tables"] = short["tables"][:1]  # one chunk
    example = SweepRecord.from_json(json.dumps(short))
    store.add_sweep(example)
    run = store.add_run("blurred", {"psnr": 20.0, "ssim": 0.7}, shown=SHOWN)
    for pair in SHOWN[:2]:
        store.log(run, record.strip_file("CelebA", *pair), rng.randbytes(100))  # no image
    before = fuzz.listing(tmp_path, runs / "mlflow.db", runs / "report")
    assert not assert_report_or_one_line(report(runs))
    refused = 0
    for name in hostile_stores(store, example, rng):
        options = ["--study", name] if rng.random() < 0.2 else ["--preset", name] if rng.random() < 0.2 else []
        refused += assert_report_or_one_line(report(runs, *options, "--out", str(runs / "report")))
    assert refused > STORES / 3
    assert fuzz.listing(tmp_path, runs / "mlflow.db", runs / "report") == before
    assert [path.name for path in (runs / "report").rglob("*") if path.is_dir()] in ([], ["figures"])
    assert not assert_report_or_one_line(report(runs))
    assert [found.info.run_id for found in store.client.search_runs([store.experiment("tables")])] == [run]

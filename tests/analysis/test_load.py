"""Reading a real MLflow store."""

import dataclasses
import json
import socket
import sqlite3

import numpy as np
import pytest
from stores import SHOWN, parquet, strip

from analysis.load import load_sweep, open_store, read_per_image
from sweeps import record
from sweeps.record import SearchRecord

KEY = "Multi-scale (1 scale)-1"


def load(store, **arguments):
    return load_sweep(open_store(store.uri), "tables", **arguments)


def test_a_sweep_comes_back_with_its_record_and_a_run_or_none_for_each_key(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 22.5, "ssim": 0.75})

    sweep = load(store)

    assert sweep.record == example
    assert set(sweep.runs) == {key for table in example.tables for row in table.rows for key in row.keys.values()}
    found = sweep.runs[KEY]
    assert (found.run_id, found.status) == (run, "FINISHED")
    assert found.metrics == {"test/CelebA/psnr": 22.5, "test/CelebA/ssim": 0.75}
    assert sweep.runs["blurred"] is None


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("FINISHED", 1), ("RUNNING", 2), ("FAILED", 3)], ("FINISHED", 1)),
        ([("RUNNING", 1), ("FAILED", 2), ("KILLED", 3)], ("RUNNING", 1)),
        ([("KILLED", 2), ("FAILED", 1)], ("KILLED", 2)),
        ([("FINISHED", 1), ("FINISHED", 2)], ("FINISHED", 2)),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_several_runs_with_one_key_the_most_finished_then_newest_counts(store, example, runs, expected, turned):
    store.add_sweep(example)
    ids = {
        (status, time): store.add_run(KEY, status=status, start_time=time)
        for status, time in (reversed(runs) if turned else runs)
    }
    assert load(store).runs[KEY].run_id == ids[expected]


def test_a_run_in_another_studys_experiment_counts(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, study="controls")
    assert load(store).runs[KEY].run_id == run


def test_a_deleted_run_does_not_count(store, example):
    store.add_sweep(example)
    store.client.delete_run(store.add_run(KEY))
    assert load(store).runs[KEY] is None


def test_the_latest_preset_is_the_default(store, example):
    store.add_sweep(example)
    store.add_sweep(dataclasses.replace(example, preset="paper"))
    assert load(store).record.preset == "paper"
    assert load(store, preset="quick").record == example


def test_strips_come_back_as_they_were_logged(store, example):
    store.add_sweep(example)
    store.add_run(KEY, {"psnr": 22.0, "ssim": 0.7}, shown=SHOWN)
    run = load(store).runs[KEY]
    assert run.strips("CelebA") == {pair: strip(pair, KEY) for pair in SHOWN}
    assert run.strips("Helen") == {}


def test_files_that_are_no_strips_are_left(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 22.0, "ssim": 0.7})
    store.log(run, "strips/CelebA/00.png", b"an older layout")
    assert load(store).runs[KEY].strips("CelebA") == {}


def test_per_image_metrics_come_back_by_image_and_condition(store, example):
    store.add_sweep(example)
    images, conditions = np.repeat([4, 9], 3), np.tile([0, 5, 7], 2)
    values = 10.0 * images + conditions
    shuffled = np.random.default_rng(0).permutation(6)
    columns = {
        "image": images,
        "condition": conditions,
        "psnr": values,
        "ssim": -values,
        "kernel_size": 13 + conditions,
    }
    store.add_run(KEY, {"psnr": 0.0, "ssim": 0.0}, per_image={name: each[shuffled] for name, each in columns.items()})
    sweep = load(store)
    found = sweep.per_image(sweep.runs[KEY], "CelebA")
    assert found.images.tolist() == [4, 9]
    assert found.conditions.tolist() == [0, 5, 7]
    assert found.axis.tolist() == [13, 18, 20]
    assert found.metrics["psnr"].tolist() == [[40, 45, 47], [90, 95, 97]]
    assert found.metrics["ssim"].tolist() == [[-40, -45, -47], [-90, -95, -97]]
    assert sweep.per_image(sweep.runs[KEY], "Helen") is None


@pytest.mark.parametrize(
    "columns",
    [
        {"image": [0, 0], "condition": [0, 0], "psnr": [1.0, 2.0], "ssim": [1.0, 2.0], "kernel_size": [13, 13]},
        {"image": [0], "condition": [0], "psnr": [1.0], "kernel_size": [13]},
        {"image": ["a"], "condition": [0], "psnr": [1.0], "ssim": [1.0], "kernel_size": [13]},
        {"image": [0.5], "condition": [0], "psnr": [1.0], "ssim": [1.0], "kernel_size": [13]},
        {"image": [0], "condition": [0], "psnr": ["x"], "ssim": [1.0], "kernel_size": [13]},
        {"image": [0, None], "condition": [0, 1], "psnr": [1.0, 2.0], "ssim": [1.0, 2.0], "kernel_size": [13, 13]},
        {"image": [], "condition": [], "psnr": [], "ssim": [], "kernel_size": []},
    ],
    ids=["twice", "no column", "names", "halves", "text", "null", "empty"],
)
def test_a_per_image_file_of_something_else_is_none(store, example, columns):
    store.add_sweep(example)
    store.add_run(KEY, {"psnr": 0.0, "ssim": 0.0}, per_image=columns)
    sweep = load(store)
    assert sweep.per_image(sweep.runs[KEY], "CelebA") is None
    with pytest.raises(ValueError):
        read_per_image(parquet(columns), ["psnr", "ssim"], "kernel_size")


def test_a_file_that_is_no_parquet_is_none(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 0.0}, per_image=False)
    store.log(run, record.per_image_file("CelebA"), b"PAR1 no")
    sweep = load(store)
    assert sweep.per_image(sweep.runs[KEY], "CelebA") is None


def test_a_curve_comes_back_by_step(store, example):
    store.add_sweep(example)
    store.add_run(KEY, {"psnr": 0.0}, curve={20: 2.0, 10: 1.0})
    sweep = load(store)
    assert sweep.curve(sweep.runs[KEY]) == {10: 1.0, 20: 2.0}


def test_a_finished_runs_curve_comes_from_its_history_file(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 0.0})
    history = [[20, {"validation/psnr": 2.0}], [10, {"validation/psnr": 1.0, "loss": 3.0}], [15, {"loss": 3.0}]]
    store.log(run, record.HISTORY_FILE, json.dumps(history).encode())
    sweep = load(store)
    assert sweep.curve(sweep.runs[KEY]) == {10: 1.0, 20: 2.0}


@pytest.mark.parametrize(
    "content", [b"", b"[", b"{}x", b"[1]", b"[[1, 2]]", b'[["a", {}]]', b'[[1, {"validation/psnr": "x"}]]', b"\xff"]
)
def test_a_history_file_of_something_else_is_not_read(store, example, content):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 0.0}, curve={10: 1.0})
    store.log(run, record.HISTORY_FILE, content)
    sweep = load(store)
    assert sweep.curve(sweep.runs[KEY]) == {10: 1.0}


def test_the_chain_of_a_run_begins_with_its_first_stage(store, example):
    store.add_sweep(example)
    store.add_run("first", tags={record.TAG_STAGE: "a"})
    store.add_run("second", tags={record.TAG_STAGE: "b", record.TAG_PARENT_KEY: "first"})
    store.add_run(KEY, tags={record.TAG_STAGE: "c", record.TAG_PARENT_KEY: "second"})
    store.add_run("not asked for")
    sweep = load(store)
    assert [run.tags[record.TAG_STAGE] for run in sweep.chain(sweep.runs[KEY])] == ["a", "b", "c"]
    assert "not asked for" not in sweep.runs


def test_a_chain_that_bites_its_tail_ends(store, example):
    store.add_sweep(example)
    store.add_run("other", tags={record.TAG_PARENT_KEY: KEY})
    store.add_run(KEY, tags={record.TAG_PARENT_KEY: "other"})
    sweep = load(store)
    assert len(sweep.chain(sweep.runs[KEY])) == 2


def test_searches_come_with_their_trials(store, example):
    store.add_sweep(example)
    search = SearchRecord(
        id="s1",
        study="tables",
        preset="quick",
        row="loss",
        metric="validation/psnr",
        first_step=100,
        rungs=[10, 30],
        ranges={"losses.perceptual": (1e-5, 1e-2)},
        trials=3,
        best={"losses.perceptual": 1e-3},
        importances={},
    )
    experiment = store.experiment("tables-search")
    store.client.set_experiment_tag(experiment, *search.to_tag())
    other = dataclasses.replace(search, id="s2", preset="paper")
    store.client.set_experiment_tag(experiment, *other.to_tag())
    for number, (value, curve) in enumerate({1e-3: {110: 20.0, 130: 21.0}, 1e-4: {110: 19.0}}.items()):
        labels = {"search": "s1", "trial": str(number), "values": json.dumps({"losses.perceptual": value})}
        store.add_run(
            f"trial {number}",
            study="tables-search",
            status="KILLED",
            tags={record.label_tag(name): text for name, text in labels.items()},
            curve=curve,
        )
    [found] = load(store).searches
    assert found.record == search
    trials = sorted(found.trials, key=lambda trial: -trial[0]["losses.perceptual"])
    assert trials == [({"losses.perceptual": 1e-3}, {10: 20.0, 30: 21.0}), ({"losses.perceptual": 1e-4}, {10: 19.0})]


def test_a_run_of_another_schema_is_refused_by_name(store, example):
    store.add_sweep(example)
    run = store.add_run(KEY, {"psnr": 22.5}, tags={record.TAG_SCHEMA: "0"})
    with pytest.raises(ValueError, match=f"run must be of schema {record.SCHEMA}, got schema 0 in run {run}"):
        load(store)


def test_an_unknown_study_or_preset_names_the_known_ones(store, example):
    store.add_sweep(example)
    store.add_sweep(dataclasses.replace(example, study="controls"))
    client = open_store(store.uri)
    with pytest.raises(ValueError, match=r"study must be one in the store \(controls, tables\), got 'Default'"):
        load_sweep(client, "Default")
    with pytest.raises(ValueError, match=r"one that was swept \(quick\), got 'paper'"):
        load_sweep(client, "tables", "paper")


def test_a_database_that_does_not_exist_is_not_created(tmp_path):
    path = tmp_path / "folder" / "mlflow.db"
    with pytest.raises(FileNotFoundError, match="no tracking store at"):
        open_store(f"sqlite:///{path}")
    assert list(tmp_path.iterdir()) == []


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path):
    path = tmp_path / "other.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE trials (value REAL)")
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is not an MLflow store"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, though long enough to be read as the header of one" * 10)
    with pytest.raises(ValueError, match="is not an MLflow store: file is not a database"):
        open_store(f"sqlite:///{path}")


def test_a_server_that_refuses_is_one_line(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"tracking store {uri} can't be read: Connection refused$") as error:
            open_store(uri)
    assert "\n" not in str(error.value)


def test_an_unsupported_store_is_one_line():
    with pytest.raises(ValueError, match="tracking store gopher://x can't be read") as error:
        open_store("gopher://x")
    assert "\n" not in str(error.value)

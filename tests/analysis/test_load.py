"""Reading a real MLflow store."""

import dataclasses
import socket
import sqlite3

import pytest

from analysis.load import load_sweep, open_store
from sweeps import record

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
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


def test_strips_come_back_in_order_as_they_were_logged(store, example):
    store.add_sweep(example)
    store.add_run(KEY, faces=3)
    logged = [(store.folder / f"0{face}.png").read_bytes() for face in range(3)]
    assert len(set(logged)) == 3
    run = load(store).runs[KEY]
    assert run.strips("CelebA") == logged
    assert run.strips("Helen") == []


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
        with pytest.raises(ValueError, match=f"tracking store {uri} can't be read") as error:
            open_store(uri)
    assert "\n" not in str(error.value)


def test_an_unsupported_store_is_one_line():
    with pytest.raises(ValueError, match="tracking store gopher://x can't be read") as error:
        open_store("gopher://x")
    assert "\n" not in str(error.value)

"""The life of a run in a real MLflow store, whatever became of the driver."""

import json
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from sweeps import record
from sweeps.job import DIGESTS, METRICS
from sweeps.provenance import Provenance, code_digest, git_state
from sweeps.sweep import StoreError
from sweeps.tracking import POINTS_AT_ONCE, MLflowTracker

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

COMMON = Provenance(
    study="tables",
    preset="quick",
    data={"train faces": "abc"},
    fingerprints={"Made up": "print", "Second": "print2"},
    owner="here:/runs",
    hardware="none",
    commit="c0ffee",
    dirty=False,
    code="code1",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"


def driver(store, **changed):
    """A tracker as a newly started driver has it."""
    uri, artifacts = store
    return MLflowTracker(
        uri=uri,
        artifacts=artifacts,
        experiment="tables",
        provenance=replace(COMMON, **changed),
        downloads=artifacts.parent / "downloads",
    )


@pytest.fixture
def stage(tiny_study, request):
    """A stage that no other test uses."""
    content = next(row for row in tiny_study.rows if row.name == "scales-1").stages[0]
    return replace(content, seed=1000 + abs(hash(request.node.name)) % 10**6)


@pytest.fixture
def client(store):
    driver(store)
    return MlflowClient(store[0])


def runs_of(client, stage):
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, f"tags.`{record.TAG_STAGE_KEY}` = '{stage.key}'")


def result(folder, **metrics):
    folder.mkdir(parents=True)
    (folder / METRICS).write_text(json.dumps(metrics or {"test/Made up/psnr": 20.0}))
    (folder / DIGESTS).write_text(json.dumps({"generator": "0123"}))
    return folder


def test_a_run_left_open_by_a_killed_driver_is_taken_up_without_duplicates(store, client, stage, tmp_path):
    killed = driver(store)
    killed.start(stage, ["scales-1"])
    killed.log(stage, [(10, {"loss/total": 1.0})])
    killed.log(stage, [(20, {"loss/total": 0.9})])
    again = driver(store)
    assert again.start(stage, ["scales-1"]) == 20
    again.log(stage, [(20, {"loss/total": 0.5})])
    again.log(stage, [(step, {"loss/total": 0.5}) for step in (10, 20, 30)])
    again.end(stage, result(tmp_path / "result"), None)
    (run,) = runs_of(client, stage)
    assert run.info.status == "FINISHED"
    points = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss/total")]
    assert points == [(10, 1.0), (20, 0.9), (30, 0.5)]
    assert run.data.tags[record.TAG_DIGEST_PREFIX + "generator"] == "0123"


def test_a_history_longer_than_a_request_is_logged_whole(store, client, stage):
    tracker = driver(store)
    assert tracker.start(stage, []) == -1
    steps = list(range(1, 3 * POINTS_AT_ONCE // 2))
    tracker.log(stage, [(step, {"loss/total": 1 / step, "loss/content": 1.0}) for step in steps])
    (run,) = runs_of(client, stage)
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert [(point.step, point.value) for point in history] == [(step, 1 / step) for step in steps]


def test_an_end_cut_off_anywhere_can_be_done_again(store, client, stage, tmp_path):
    """The driver may die after any call; what it did must not be there twice."""
    folder = result(tmp_path / "result")
    (folder / "model").mkdir()
    (folder / "model" / "state.pt").write_bytes(b"state")
    (folder / "strips" / "Made up").mkdir(parents=True)
    Image.new("RGB", (9, 3)).save(folder / "strips" / "Made up" / "00.png")
    driver(store).start(stage, [])
    calls = ("log_image", "create_logged_model", "log_outputs", "log_batch", "set_terminated")
    for name in calls:
        tracker = driver(store)
        tracker.start(stage, [])
        real = getattr(tracker._client, name)

        def cut_off(*args, real=real, **kwargs):
            real(*args, **kwargs)
            raise MlflowException("the answer was lost")

        setattr(tracker._client, name, cut_off)
        with pytest.raises(StoreError, match="the answer was lost"):
            tracker.end(stage, folder, None)
    again = driver(store)
    again.start(stage, [])
    again.end(stage, folder, None)
    (run,) = runs_of(client, stage)
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert [model.model_id for model in models] == [run.outputs.model_outputs[0].model_id]
    assert len(client.get_metric_history(run.info.run_id, "test/Made up/psnr")) == 1
    assert len(client.list_artifacts(run.info.run_id, "images")) == 2  # the picture and its thumbnail


def test_a_creation_whose_answer_was_lost_leaves_one_run(store, client, stage, tmp_path):
    driver(store).start(stage, [])
    first = runs_of(client, stage)[0]
    client.create_run(first.info.experiment_id, tags=first.data.tags)
    assert len(runs_of(client, stage)) == 2
    tracker = driver(store)
    tracker.start(stage, [])
    tracker.end(stage, result(tmp_path / "result"), None)
    (run,) = runs_of(client, stage)
    assert run.info.status == "FINISHED"


def test_paused_and_pruned_are_neither_finished_nor_failed(store, client, stage, tmp_path):
    tracker = driver(store)
    tracker.start(stage, [])
    tracker.pause(stage)
    (run,) = runs_of(client, stage)
    assert run.info.status == "SCHEDULED"
    again = driver(store)
    again.prune(stage, "7th of 9 at step 20")
    (run,) = runs_of(client, stage)
    assert (run.info.status, run.data.tags[record.TAG_PRUNED]) == ("KILLED", "7th of 9 at step 20")
    again.start(stage, [])
    again.end(stage, result(tmp_path / "result"), None)
    (run,) = runs_of(client, stage)
    assert run.info.status == "FINISHED"
    assert record.TAG_PRUNED not in run.data.tags


@pytest.mark.parametrize(("failure", "status"), [("NaN", "FAILED"), (None, "KILLED")])
def test_a_failed_or_stopped_run_is_taken_up_again(store, client, stage, tmp_path, failure, status):
    tracker = driver(store)
    tracker.start(stage, [])
    tracker.end(stage, None, failure)
    (run,) = runs_of(client, stage)
    assert run.info.status == status
    assert run.data.tags.get(record.TAG_FAILURE) == failure
    assert driver(store).find(stage) is None
    again = driver(store, code="code2")
    again.start(stage, [])
    assert client.get_run(run.info.run_id).info.status == "RUNNING"
    again.end(stage, result(tmp_path / "result"), None)
    (run,) = runs_of(client, stage)
    assert run.info.status == "FINISHED"
    assert record.TAG_FAILURE not in run.data.tags
    assert run.data.tags[record.TAG_CODE_DIGEST] == "code1+code2"


@pytest.mark.parametrize("failure", ["out of memory", None])
def test_an_evaluation_that_fails_leaves_a_finished_run_finished(store, client, stage, tmp_path, failure):
    tracker = driver(store)
    tracker.start(stage, [])
    tracker.end(stage, result(tmp_path / "one"), None)
    tracker.start(stage, [])
    tracker.end(stage, None, failure)
    found = driver(store).find(stage)
    assert found is not None
    assert found.fingerprints == {"Made up": "print"}
    tracker.start(stage, [])
    tracker.end(stage, result(tmp_path / "two", **{"test/Second/psnr": 30.0}), None)
    (run,) = runs_of(client, stage)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"test/Made up/psnr": 20.0, "test/Second/psnr": 30.0}
    assert driver(store).find(stage).fingerprints == {"Made up": "print", "Second": "print2"}


def test_another_driver_s_open_run_is_left_alone(store, client, stage):
    driver(store, owner="there:/runs").start(stage, [])
    mine = driver(store)
    mine.close_abandoned([])
    mine.start(stage, [])
    assert sorted(run.data.tags[record.TAG_OWNER] for run in runs_of(client, stage)) == ["here:/runs", "there:/runs"]
    assert {run.info.status for run in runs_of(client, stage)} == {"RUNNING"}


def test_abandoned_runs_of_other_stages_are_closed(store, client, stage):
    tracker = driver(store)
    other = replace(stage, seed=stage.seed + 1)
    tracker.start(stage, [])
    tracker.start(other, [])
    driver(store).close_abandoned([stage.key])
    assert [run.info.status for run in runs_of(client, stage)] == ["RUNNING"]
    assert [run.info.status for run in runs_of(client, other)] == ["KILLED"]


def test_provenance_is_that_of_this_checkout():
    commit, dirty = git_state()
    assert isinstance(dirty, bool)
    assert commit == "unknown" or len(commit) == 40
    assert code_digest() == code_digest()

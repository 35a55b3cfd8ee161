"""The life of a run in a real MLflow store, whatever became of the driver."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from sweeps import record
from sweeps.job import COSTS, DIGESTS, HISTORY, METRICS
from sweeps.provenance import Provenance, code_digest, git_state, versions
from sweeps.resources import Resources
from sweeps.stages import Row
from sweeps.sweep import StoreError
from sweeps.tracking import JOINED, POINTS_AT_ONCE, MLflowTracker

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
    devices="2 cores",
    versions="python 3, torch 2.0+cpu",
    licences=("Not for sale.",),
)
NOTE = "mlflow.note.content"


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


def result(folder, costs=None, strips=(), model=False, **metrics):
    """What a trainer leaves: of an earlier version, without costs."""
    folder.mkdir(parents=True)
    (folder / METRICS).write_text(json.dumps(metrics or {"test/Made up/psnr": 20.0}))
    (folder / DIGESTS).write_text(json.dumps({"generator": "0123"}))
    (folder / HISTORY).write_text("[]")
    if costs:
        (folder / COSTS).write_text(json.dumps(costs))
    for strip in strips:
        (folder / strip).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 3)).save(folder / strip)
    if model:
        (folder / "model").mkdir()
        (folder / "model" / "state.pt").write_bytes(b"state")
    return folder


def cost(training, evaluation):
    return {record.TRAINING_SECONDS: training, record.EVALUATION_SECONDS: evaluation}


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
    folder = result(tmp_path / "result", costs=cost(7.0, 3.0), strips=[record.strip_file("Made up", 0, 1)], model=True)
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
    assert {name: run.data.metrics[name] for name in cost(0, 0)} == cost(7.0, 3.0)


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


def test_an_evaluation_on_another_test_adds_to_what_the_run_has_cost(store, client, stage, tmp_path):
    tracker = driver(store)
    tracker.start(stage, [])
    tracker.end(stage, result(tmp_path / "one", costs=cost(7.0, 3.0)), None)
    added = result(tmp_path / "two", costs={record.EVALUATION_SECONDS: 2.0}, **{"test/Second/psnr": 30.0})
    for _ in range(2):  # the second one because nobody heard that the first one had arrived
        tracker.start(stage, [])
        tracker.end(stage, added, None)
    (run,) = runs_of(client, stage)
    assert {name: run.data.metrics[name] for name in cost(0, 0)} == cost(7.0, 5.0)
    assert driver(store).find(stage).fingerprints == {"Made up": "print", "Second": "print2"}
    [point] = client.get_metric_history(run.info.run_id, record.TRAINING_SECONDS)
    assert point.step == stage.last_step


def test_a_test_set_that_has_changed_leaves_no_strips_of_before(store, client, stage, tmp_path):
    tracker, other = driver(store), record.strip_file("Second", 3, 1)
    before = [record.strip_file("Made up", 0, 0), record.strip_file("Made up", 9, 9), other]
    tracker.start(stage, [])
    tracker.end(stage, result(tmp_path / "one", strips=before, **{"test/Made up/psnr": 1, "test/Second/psnr": 1}), None)
    after = [record.strip_file("Made up", 0, 0), record.strip_file("Made up", 4, 2)]
    changed = driver(store, fingerprints={"Made up": "other", "Second": "print2"})
    changed.start(stage, [])
    changed.end(stage, result(tmp_path / "two", strips=after), None)
    (run,) = runs_of(client, stage)

    def listed(folder):
        return [each.path for each in client.list_artifacts(run.info.run_id, folder)]

    assert listed("strips/Made up") + listed("strips/Second") == [*after, other]
    shown = {Path(path).name.split("+")[0] for path in listed("images")}
    assert shown == {
        "Made up~image-0000-condition-0000",
        "Made up~image-0004-condition-0002",
        "Second~image-0003-condition-0001",
    }


def test_a_run_names_what_trained_it_also_when_that_has_changed_between(store, client, stage, tmp_path):
    driver(store).start(stage, [])
    changed = {"commit": "decade", "code": "code2", "versions": "python 3, torch 2.1+cpu"}
    second = driver(store, **changed, devices="1 core", hardware="x86_64, threads: 1")
    for _ in range(2):
        second.start(stage, [])
    second.end(stage, result(tmp_path / "one"), None)
    driver(store, **{**changed, "commit": "facade"}, devices="0.5 GPU", hardware="a GPU").start(stage, [])
    (run,) = runs_of(client, stage)
    assert {tag: run.data.tags[tag] for tag in JOINED} == {
        record.TAG_COMMIT: "c0ffee + decade + facade",
        record.TAG_CODE_DIGEST: "code1+code2",
        record.TAG_HARDWARE: "none + x86_64, threads: 1",  # an evaluation is no training
        record.TAG_DEVICES: "2 cores + 1 core",
        record.TAG_VERSIONS: "python 3, torch 2.0+cpu + python 3, torch 2.1+cpu",
    }


@pytest.mark.parametrize(
    ("cpus", "gpus", "share"), [(1, 0.0, "1 core"), (12, 0.0, "12 cores"), (4, 1 / 3, "0.333 GPU"), (4, 2.0, "2 GPUs")]
)
def test_a_trial_s_share_is_its_gpus_or_else_its_cores(cpus, gpus, share):
    assert Resources(cpus=cpus, gpus=gpus, at_once=1).share == share


def changes(client, stage, folder):
    """What a stage's run says of changes to its commit: its tag, and its patch if there is one."""
    (run,) = runs_of(client, stage)
    kept = [each.path for each in client.list_artifacts(run.info.run_id)]
    files = [client.download_artifacts(run.info.run_id, path, str(folder)) for path in kept if path == record.DIFF_FILE]
    return run.data.tags[record.TAG_DIRTY], [Path(file).read_bytes() for file in files]


PATCH = b"diff --git a/x b/x\r\n- Gr\xf6\xdfe\n"


@pytest.mark.parametrize(
    ("drivers", "expected"),
    [
        ([b""], ("false", [])),
        ([PATCH], ("true", [PATCH])),
        ([b"", PATCH], ("true", [PATCH])),
        ([PATCH, b""], ("true", [PATCH])),
        ([PATCH, b"another"], ("true", [PATCH])),
        ([b"", b""], ("false", [])),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_what_a_checkout_had_on_top_of_its_commit_is_kept_with_each_run(
    store, client, stage, tmp_path, drivers, expected, finished
):
    for number, diff in enumerate(drivers):
        tracker = driver(store, dirty=bool(diff), diff=diff)
        tracker.start(stage, [])
        if finished:
            tracker.end(stage, result(tmp_path / str(number)), None)
    assert changes(client, stage, tmp_path) == expected


def test_a_checkout_that_has_only_new_files_is_dirty_without_a_patch(store, client, stage, tmp_path):
    driver(store).start(stage, [])
    driver(store, dirty=True).start(stage, [])
    assert changes(client, stage, tmp_path) == ("true", [])


def test_a_description_is_written_once_and_again_when_the_rows_are_others(store, client, stage, tmp_path):
    tracker = driver(store)
    tracker.start(stage, [])
    (run,) = runs_of(client, stage)
    note = run.data.tags[NOTE]
    assert note.startswith(f"**{stage.title}**: steps 1 to {stage.steps}, from fresh weights.")
    assert "Not for sale." in note
    assert "models:/" not in note
    tracker.end(stage, result(tmp_path / "one"), None)
    client.set_tag(run.info.run_id, NOTE, "mine")
    driver(store).start(stage, [])
    assert client.get_run(run.info.run_id).data.tags[NOTE] == "mine"
    tracker.adopt(stage, ["scales-1", "another"])
    tags = client.get_run(run.info.run_id).data.tags
    assert tags[record.TAG_ROWS] == "scales-1, another"
    assert "Rows `scales-1`, `another` of study `tables`" in tags[NOTE]
    assert "models:/scales-1@best" in tags[NOTE]


def train(tracker, folder, stage, psnr):
    tracker.start(stage, [])
    tracker.log(stage, [(stage.last_step, {"loss/total": 1.0, "validation/psnr": psnr})])
    worse_on_the_test = result(folder / stage.key, model=True, **{"test/Made up/psnr": 100 - psnr})
    tracker.end(stage, worse_on_the_test, None)


def aliases(client, name):
    """For each alias the seed that it is for."""
    model = client.get_registered_model(name)
    return {
        alias: client.get_model_version(name, version).tags[record.TAG_SEED] for alias, version in model.aliases.items()
    }


def seeds_of(stage, *seeds):
    return tuple(replace(stage, seed=stage.seed * 10 + seed) for seed in seeds)


def test_a_row_s_best_seed_in_validation_has_the_alias(store, client, stage, tmp_path, monkeypatch):
    one, two, three = stages = seeds_of(stage, 1, 2, 3)
    tracker, name = driver(store), f"row-{stage.seed}"
    for each, psnr in zip(stages, (20.0, 22.0, 21.0), strict=True):
        train(tracker, tmp_path, each, psnr)
    tracker.register([Row(name=name, stages=(one, three))], "validation/psnr")
    assert aliases(client, name) == dict.fromkeys(["best", "best-quick"], str(three.seed))
    for _ in range(2):
        driver(store).register([Row(name=name, stages=stages)], "validation/psnr")
        assert len(client.search_model_versions(f"name = '{name}'")) == 3
        assert aliases(client, name) == dict.fromkeys(["best", "best-quick"], str(two.seed))
    driver(store, preset="paper").register([Row(name=name, stages=(one,))], "validation/psnr")
    assert aliases(client, name) == {"best": str(one.seed), "best-paper": str(one.seed), "best-quick": str(two.seed)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store[0])
    folder = mlflow.artifacts.download_artifacts(f"models:/{name}@best-quick", dst_path=str(tmp_path / "out"))
    assert (Path(folder) / "state.pt").read_bytes() == b"state"
    version = client.get_model_version_by_alias(name, "best-quick")
    (run,) = runs_of(client, two)
    assert (version.run_id, version.source) == (run.info.run_id, f"models:/{run.outputs.model_outputs[0].model_id}")
    assert version.tags == {
        record.TAG_STUDY: "tables",
        record.TAG_PRESET: "quick",
        record.TAG_SEED: str(two.seed),
        record.TAG_STAGE_KEY: two.key,
        "validation/psnr": "22",
    }
    assert version.description == f"{two.title}: steps 1 to 4, from fresh weights.\n\nNot for sale."
    links = json.loads(client.get_logged_model(run.outputs.model_outputs[0].model_id).tags["mlflow.modelVersions"])
    assert links == [{"name": name, "version": str(version.version)}]


@pytest.mark.parametrize("other", ["sqlite:///elsewhere.db", None])
def test_a_registration_leaves_the_process_s_own_store_as_it_is(store, client, stage, tmp_path, monkeypatch, other):
    tracker, name = driver(store), f"row-{stage.seed}"
    train(tracker, tmp_path, stage, 20.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other) if other else monkeypatch.delenv("MLFLOW_TRACKING_URI", False)
    before = mlflow.get_tracking_uri()
    tracker.register([Row(name=name, stages=(stage,))], "validation/psnr")
    assert os.environ.get("MLFLOW_TRACKING_URI") == other
    assert mlflow.get_tracking_uri() == before


def test_what_is_not_trained_failed_or_trained_a_second_time_is_not_registered(store, client, stage, tmp_path):
    tracker, name = driver(store), f"row-{stage.seed}"
    failed, again = seeds_of(stage, 1, 2)
    tracker.start(failed, [])
    tracker.end(failed, None, "NaN")
    copy = replace(again, copy=name)
    train(tracker, tmp_path, copy, 20.0)
    degraded = replace(stage, steps=0)
    tracker.start(degraded, [])
    tracker.end(degraded, result(tmp_path / "degraded"), None)
    tracker.register([Row(name=name, stages=(failed, copy, degraded))], "validation/psnr")
    assert client.search_registered_models(f"name = '{name}'") == []


def test_a_registry_that_refuses_is_a_store_s_error(store, stage, tmp_path, monkeypatch):
    tracker = driver(store)
    train(tracker, tmp_path, stage, 20.0)

    def refuse(*_, **__):
        raise MlflowException("nobody may")

    monkeypatch.setattr(tracker._client, "create_registered_model", refuse)
    with pytest.raises(StoreError, match="nobody may"):
        tracker.register([Row(name=f"row-{stage.seed}", stages=(stage,))], "validation/psnr")


def test_a_version_whose_answer_was_lost_is_not_made_again(store, client, stage, tmp_path, monkeypatch):
    tracker, name = driver(store), f"row-{stage.seed}"
    train(tracker, tmp_path, stage, 20.0)
    real = tracker._client.create_model_version

    def cut_off(*args, **kwargs):
        real(*args, **kwargs)
        raise MlflowException("the answer was lost")

    monkeypatch.setattr(tracker._client, "create_model_version", cut_off)
    with pytest.raises(StoreError, match="the answer was lost"):
        tracker.register([Row(name=name, stages=(stage,))], "validation/psnr")
    driver(store).register([Row(name=name, stages=(stage,))], "validation/psnr")
    assert len(client.search_model_versions(f"name = '{name}'")) == 1
    assert set(aliases(client, name)) == {"best", "best-quick"}


def git(folder, *arguments, **options):
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, **options).stdout


@pytest.fixture
def checkout(tmp_path):
    """A repository of one commit, with files of every kind."""
    folder = tmp_path / "checkout"
    for file, content in {
        "sweeps/code.py": b"one = 1\n",
        "windows.txt": b"first\r\nsecond\r\n",
        "latin.txt": "Stra\u00dfe\n".encode("latin-1"),
        "image.png": bytes(range(256)),
        "gone.txt": b"gone\n",
        ".gitignore": b"ignored.py\n",
        ".gitattributes": b"*.py diff=shouting\n",
    }.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "setting",
    [
        "color.ui=always",
        "diff.noprefix=true",
        "diff.mnemonicPrefix=true",
        "diff.context=0",
        "diff.external=true",
        "diff.shouting.textconv=tr a-z A-Z <",
    ],
)
def test_a_dirty_checkout_s_patch_leads_from_its_commit_to_what_ran(checkout, tmp_path, setting):
    git(checkout, "config", *setting.split("=", 1))
    (checkout / "sweeps" / "code.py").write_bytes(b"one = 2\n")
    (checkout / "windows.txt").write_bytes(b"first\r\nchanged\r\n")
    (checkout / "latin.txt").write_bytes("Stra\u00dfe\nGr\u00f6\u00dfe\n".encode("latin-1"))
    (checkout / "image.png").write_bytes(bytes(reversed(range(256))))
    (checkout / "gone.txt").unlink()
    commit, dirty, diff = git_state(checkout)
    assert dirty
    git(tmp_path, "clone", "checkout", "clone")
    git(tmp_path / "clone", "checkout", commit)
    git(tmp_path / "clone", "apply", "-", input=diff)
    assert contents(tmp_path / "clone") == contents(checkout)


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("sweeps/new.py", True),
        ("sweeps/deblurring/new.py", True),
        ("model_zoo/new.py", True),
        ("datasets/new.py", True),
        ("sweeps/ignored.py", False),
        ("sweeps/new.txt", False),
        ("docs/new.py", False),
        ("new.py", False),
    ],
)
def test_untracked_source_makes_a_checkout_dirty(checkout, file, dirty):
    clean = (git(checkout, "rev-parse", "HEAD").decode().strip(), False, b"")
    assert git_state(checkout) == clean
    (checkout / file).parent.mkdir(parents=True, exist_ok=True)
    (checkout / file).write_text("new")
    assert git_state(checkout) == (clean[0], dirty, b"")


def test_outside_a_checkout_the_commit_is_unknown(tmp_path):
    assert git_state(tmp_path) == ("unknown", False, b"")


def test_provenance_is_that_of_this_checkout():
    commit, dirty, diff = git_state()
    assert commit == "unknown" or len(commit) == 40
    assert diff == b"" or (dirty and diff.startswith(b"diff --git a/"))
    assert code_digest() == code_digest()
    assert f"mlflow {mlflow.__version__}" in versions().split(", ")

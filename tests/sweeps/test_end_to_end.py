"""The whole product, tiny: a sweep through Ray Tune and MLflow on disk, run again, reported, and used on a photo."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import load_file
from tiny import WORKER, ablation, command, options, processes_below, python

from sweeps import record
from sweeps.deblurring.restore import load_restorer
from sweeps.job import STATE, WEIGHTS
from sweeps.resources import processor
from sweeps.train import load_state


@pytest.fixture(scope="module")
def swept(cache, faces_folder, tmp_path_factory):
    """A folder of runs after one sweep through Ray Tune, and what was printed."""
    runs = tmp_path_factory.mktemp("swept") / "runs"
    done = ablation(cache, faces_folder, runs)
    assert done.returncode == 0, done.stderr
    return runs, done


@pytest.fixture(scope="module")
def client(swept):
    return MlflowClient(f"sqlite:///{swept[0] / 'mlflow.db'}")


@pytest.fixture(scope="module")
def by_stage(client):
    experiment = client.get_experiment_by_name("tables")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 6
    return {run.data.tags[record.TAG_STAGE]: run for run in runs}


def test_the_sweep_says_where_everything_is(swept):
    runs, done = swept
    licence = "The terms of the folder's owner apply."
    for text in (
        licence,
        "http://127.0.0.1:",
        "token",
        "make ui",
        str(runs),
        "5 stages trained (80 steps), 1 only evaluated",
    ):
        assert text in done.stdout
    assert "Failed" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_one_finished_run_per_stage_with_tags_params_and_lineage(by_stage, client):
    assert set(by_stage) == {
        "blurred input",
        "1 scale · content",
        "2 scales · content",
        "multi-task · content",
        "multi-task · +perceptual",
        "multi-task · +adversarial",
    }
    assert {run.info.status for run in by_stage.values()} == {"FINISHED"}
    run = client.get_run(by_stage["multi-task · +adversarial"].info.run_id)  # a search leaves out the models
    parent = by_stage["multi-task · +perceptual"]
    assert run.data.tags[record.TAG_PARENT_KEY] == parent.data.tags[record.TAG_STAGE_KEY]
    assert [model.model_id for model in run.inputs.model_inputs] == [parent.outputs.model_outputs[0].model_id]
    assert run.data.tags[record.TAG_ROWS] == "loss-adversarial"
    assert run.data.tags[record.TAG_SEED] == "1"
    assert run.data.tags[record.TAG_PRESET] == "quick"
    assert run.data.tags[record.TAG_DIRTY] in ("true", "false")
    assert len(run.data.tags[record.TAG_CODE_DIGEST]) == 16
    assert record.protocol_tag("Made up") in run.data.tags
    assert run.data.params["generator.width"] == "6"
    assert run.data.params["losses.adversarial"] == "0.003"
    assert by_stage["1 scale · content"].data.params["generator.scales"] == "1"
    names = {each.dataset.name: each.dataset.digest for each in run.inputs.dataset_inputs}
    assert {name.split(" ")[0] for name in names} == {"train", "kernels", "test"}
    assert client.get_logged_model(run.outputs.model_outputs[0].model_id).status == "READY"


def test_curves_continue_the_parent_s_steps_without_gaps_or_duplicates(by_stage, client):
    expected = {
        "multi-task · content": [10, 20],
        "multi-task · +perceptual": [30],
        "multi-task · +adversarial": [40],
    }
    for name, steps in expected.items():
        history = client.get_metric_history(by_stage[name].info.run_id, "loss/total")
        assert [point.step for point in history] == steps
    history = client.get_metric_history(by_stage["multi-task · +adversarial"].info.run_id, "validation/psnr")
    assert [point.step for point in history] == [40]


def test_per_image_metrics_and_strips(by_stage, client, tmp_path):
    for name, run in by_stage.items():
        file = client.download_artifacts(run.info.run_id, record.per_image_file("Made up"), str(tmp_path))
        table = pq.read_table(file)
        assert table.num_rows == 4 * 2
        pairs = set(zip(table["image"].to_pylist(), table["condition"].to_pylist(), strict=True))
        assert len(pairs) == 8
        for metric in ("psnr", "ssim", "ssim_2d", "psnr_aligned"):
            mean = np.mean(table[metric].to_numpy())
            assert run.data.metrics[record.test_metric("Made up", metric)] == pytest.approx(mean, rel=1e-6), name
        shown = [each.path for each in client.list_artifacts(run.info.run_id, "strips/Made up")]
        assert shown == [record.strip_file("Made up", *pair) for pair in ((0, 0), (1, 0), (2, 1), (3, 1))]
        strip = client.download_artifacts(run.info.run_id, shown[0], str(tmp_path))
        with Image.open(strip) as image:
            assert image.size == (3 * 32, 32)
    restored = [
        Path(
            client.download_artifacts(by_stage[name].info.run_id, record.strip_file("Made up", 0, 0), str(tmp_path))
        ).read_bytes()
        for name in ("blurred input", "multi-task · +adversarial")
    ]
    assert restored[0] != restored[1]


def test_a_run_says_what_it_cost_on_what(by_stage):
    for name, run in by_stage.items():
        assert run.data.metrics[record.EVALUATION_SECONDS] > 0
        assert (run.data.metrics[record.TRAINING_SECONDS] > 0) == (name != "blurred input")
        assert re.fullmatch(r"1 core|\d+ cores", run.data.tags[record.TAG_DEVICES])
        assert f"torch {torch.__version__.partition('+')[0]}" in run.data.tags[record.TAG_VERSIONS]


def test_a_run_s_page_says_what_it_is(by_stage):
    note = by_stage["multi-task · +adversarial"].data.tags["mlflow.note.content"]
    for text in (
        "**multi-task · +adversarial · seed 1**: steps 31 to 40, on from multi-task · +perceptual · seed 1.",
        "Row `loss-adversarial` of study `tables`, preset `quick`",
        "test Made up",
        "models:/loss-adversarial@best",
        "The terms of the folder's owner apply.",
    ):
        assert text in note
    assert "models:/" not in by_stage["blurred input"].data.tags["mlflow.note.content"]


def test_each_row_s_model_is_registered_and_loads_by_its_alias(by_stage, swept, tmp_path, monkeypatch):
    uri = f"sqlite:///{swept[0] / 'mlflow.db'}"
    client = MlflowClient(uri)
    names = {"scales-1", "scales-2", "multi-task", "loss-perceptual", "loss-adversarial"}
    assert {model.name for model in client.search_registered_models()} == names
    best = client.get_model_version_by_alias("loss-adversarial", "best")
    run = by_stage["multi-task · +adversarial"]
    assert best.run_id == run.info.run_id
    assert best.version == client.get_model_version_by_alias("loss-adversarial", "best-quick").version
    assert best.tags[record.TAG_STAGE_KEY] == run.data.tags[record.TAG_STAGE_KEY]
    assert float(best.tags["validation/psnr"]) == pytest.approx(run.data.metrics["validation/psnr"], rel=1e-5)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    folder = mlflow.artifacts.download_artifacts("models:/loss-adversarial@best", dst_path=str(tmp_path))
    assert {path.name for path in Path(folder).iterdir()} >= {WEIGHTS, "config.json"}
    assert load_restorer(Path(folder)).scales == 2


def test_nothing_of_a_finished_stage_is_left_outside_the_store(swept):
    assert list((swept[0] / "stages").iterdir()) == []


def test_the_model_in_the_store_loads_and_restores_a_photo(swept, cache, by_stage, client, faces_folder, tmp_path):
    runs, _ = swept
    folder = Path(
        client.get_logged_model(
            by_stage["multi-task · content"].outputs.model_outputs[0].model_id
        ).artifact_location.removeprefix("file://")
    )
    assert {path.name for path in folder.iterdir()} >= {WEIGHTS, STATE, "config.json"}
    assert load_state(folder / STATE)["stage"] == by_stage["multi-task · content"].data.tags[record.TAG_STAGE_KEY]
    assert load_restorer(folder).scales == 2
    photo = tmp_path / "photo.jpg"
    with Image.open(next(faces_folder.iterdir())) as image:
        image.resize((75, 51)).save(photo)
    out = tmp_path / "out.png"
    done = python(cache, "sweeps.deblur", photo, "--row", "multi-task", "--runs", runs, "--out", out)
    assert done.returncode == 0, done.stderr
    with Image.open(out) as image, Image.open(photo) as original:
        assert image.size == (75, 51)
        difference = np.abs(np.asarray(image, float) - np.asarray(original, float))
    assert 0 < difference.mean() < 40
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    for arguments, part in (
        (["--row", "blurred"], "scales-1, scales-2, multi-task, loss-perceptual, loss-adversarial"),
        (["--seed", "2"], "seed"),
        (["--preset", "paper"], "quick"),
        (["--study", "none"], "study"),
        (["--out", full], f"--out must be a file that can be written, got {full} (No space left on device)"),
    ):
        failed = python(cache, "sweeps.deblur", photo, "--runs", runs, *arguments)
        assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
        assert part in failed.stderr


def test_a_second_sweep_trains_nothing_and_says_so(swept, cache, faces_folder, client):
    runs, _ = swept
    before = {run.info.run_id: run.info.end_time for run in all_runs(client)}
    named = [(each.name, each.version, each.last_updated_timestamp) for each in client.search_model_versions()]
    done = ablation(cache, faces_folder, runs)
    assert done.returncode == 0, done.stderr
    assert "Nothing to train: all 6 stages are in the store already." in done.stdout
    assert {run.info.run_id: run.info.end_time for run in all_runs(client)} == before
    assert len(named) == 5
    again = client.search_model_versions()
    assert [(each.name, each.version, each.last_updated_timestamp) for each in again] == named


def test_a_registry_that_refuses_costs_a_line_and_no_more(swept, cache, faces_folder, tmp_path):
    runs, _ = swept
    file = tmp_path / "mlflow.db"
    shutil.copy(runs / "mlflow.db", file)
    with closing(sqlite3.connect(file)) as database, database:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions", "registered_models"):
            database.execute(f"DELETE FROM {table}")
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON registered_models BEGIN SELECT RAISE(ABORT, 'read only'); END"
        )
    done = ablation(cache, faces_folder, runs, "--tracking-uri", f"sqlite:///{file}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing to train: all 6 stages are in the store already." in done.stdout
    assert "The rows' models could not be registered: MlflowException: " in done.stdout


def test_the_report_needs_the_store_alone(swept, tmp_path):
    runs, _ = swept
    written = [report(runs, tmp_path / "one")]
    moved = tmp_path / "kept"
    moved.mkdir()
    for path in runs.iterdir():
        if path.name not in ("mlflow.db", "artifacts"):
            shutil.move(path, moved / path.name)
    written.append(report(runs, tmp_path / "two"))
    assert written[0] == written[1]
    assert {name.split(".")[-1] for name in written[0]} == {"md", "html", "tex", "csv", "json", "pdf", "svg"}
    page = written[0]["tables-quick.md"].decode()
    for text in ("Table 1", "Table 2", "Blurred input", "Multi-scale (1 scale)", "+ Adversarial loss"):
        assert text in page
    assert "Quick preset: 32×32 faces" in page
    figures = {name.removeprefix("figures/tables-quick-") for name in written[0] if name.endswith(".pdf")}
    axes = {f"made-up-{metric}-kernel-size.pdf" for metric in ("psnr", "ssim")}
    assert figures == {*axes, "learning-curves.pdf", *(f"table-{table}-made-up-images.pdf" for table in (1, 2))}
    assert "Not here, as another study trains them and it has not: Content loss, as long as + Perceptual" in page


def test_rows_that_the_store_has_in_another_precision_are_told(swept, cache, faces_folder, tmp_path):
    runs, done = swept
    used = re.search(r"Training +(\w+) on cpu", done.stdout)[1]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[used]
    shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns("ray", "tune"))
    again = ablation(
        cache, faces_folder, tmp_path / "runs", "--engine", "in-process", "--precision", other, "--no-fused"
    )
    assert again.returncode == 0, again.stderr
    assert f"Training        {other} on cpu, not fused" in again.stdout
    said = f"The store has 5 stages of this sweep in {used}; with --precision {used} it goes on from there."
    assert said in again.stdout
    assert "5 stages trained" in again.stdout
    assert "The store has" not in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tables")
    hardware = [run.data.tags[record.TAG_HARDWARE] for run in client.search_runs([experiment.experiment_id])]
    assert sum(each.endswith(", not fused") for each in hardware) == 5
    assert all(each.startswith(f"{processor()}, threads: ") for each in hardware)


def test_a_failed_stage_is_named_its_descendants_are_skipped_and_a_rerun_tries_again(cache, faces_folder, tmp_path):
    runs, diverging = tmp_path / "runs", {"optimiser.learning_rate": 1e30}
    for attempt in (1, 2):
        done = ablation(cache, faces_folder, runs, "--engine", "in-process", **diverging)
        assert done.returncode == 1, done.stderr
        assert "NonFiniteError: multi-task · content · seed 1, steps 1 to 10: loss/" in done.stdout
        for text in ("failed:  multi-task · content · seed 1", "skipped: multi-task · +perceptual · seed 1"):
            assert text in done.stdout
        assert ("1 were in the store" in done.stdout) == (attempt == 2)
        client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
        statuses = {run.data.tags[record.TAG_STAGE]: run.info.status for run in all_runs(client)}
        assert len(all_runs(client)) == 4
        assert statuses.pop("blurred input") == "FINISHED"
        assert set(statuses.values()) == {"FAILED"}
    failed = next(run for run in all_runs(client) if run.info.status == "FAILED")
    traceback = Path(failed.data.tags[record.TAG_FAILURE].split("traceback: ")[1].rstrip(")"))
    assert "_require_finite" in traceback.read_text()


def kill_in_mid_stage(cache, faces, runs, victims):
    """Start a sweep, wait for the first progress within a stage, and kill what `victims` finds."""
    with subprocess.Popen(**command(cache, *options(faces, runs)), stdout=subprocess.PIPE, bufsize=1) as driver:
        for line in driver.stdout:
            if "multi-task · content · seed 1: running, step" in line:
                for pid in victims(driver.pid):
                    os.kill(pid, signal.SIGKILL)
                break
        driver.stdout.read()
    return driver.returncode


def final_states(runs):
    """Final weights by stage; every run must be finished, its curve whole and without duplicates."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    states = {}
    for run in all_runs(client):
        assert run.info.status == "FINISHED"
        if run.outputs and run.outputs.model_outputs:
            model = client.get_logged_model(run.outputs.model_outputs[0].model_id)
            folder = Path(model.artifact_location.removeprefix("file://"))
            states[run.data.tags[record.TAG_STAGE]] = load_file(folder / WEIGHTS)
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss/total")]
            first = int(run.data.params["first_step"])
            assert steps == list(range(first + 10, first + int(run.data.params["steps"]) + 1, 10))
    return states


@pytest.mark.parametrize("victim", ["driver", "workers"])
def test_killed_in_mid_stage_it_goes_on_to_the_same_bits(swept, cache, faces_folder, tmp_path, victim):
    runs = tmp_path / "runs"
    victims = {"driver": lambda pid: [pid], "workers": lambda pid: processes_below(pid, WORKER)}[victim]
    code = kill_in_mid_stage(cache, faces_folder, runs, victims)
    assert code == (-signal.SIGKILL if victim == "driver" else 0)
    if victim == "driver":
        done = ablation(cache, faces_folder, runs)
        assert done.returncode == 0, done.stderr
    states, undisturbed = final_states(runs), final_states(swept[0])
    assert states.keys() == undisturbed.keys()
    assert len(states) == 5
    for stage, weights in undisturbed.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, states[stage][name]), (stage, name)


@pytest.mark.parametrize("engine", ["in-process", "ray"])
def test_a_plain_kill_closes_what_is_open_also_in_the_background_of_a_script(cache, faces_folder, tmp_path, engine):
    """A shell without job control starts such commands with SIGINT ignored."""
    runs = tmp_path / "runs"
    start = command(cache, *options(faces_folder, runs, **{"schedule.content": 3000}), "--engine", engine)
    background = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), "stderr": subprocess.STDOUT}
    with subprocess.Popen(**start, **background, stdout=subprocess.PIPE, bufsize=1) as driver:
        for line in driver.stdout:
            if "multi-task · content · seed 1: running" in line:
                driver.terminate()
                break
        rest = driver.stdout.read()
    assert driver.returncode == 130, rest
    assert "Interrupted. The same command goes on from the last checkpoints." in rest
    statuses = {run.info.status for run in all_runs(MlflowClient(f"sqlite:///{runs / 'mlflow.db'}"))}
    assert "RUNNING" not in statuses
    assert "KILLED" in statuses


def report(runs, out):
    done = python(runs, "analysis", "report", "--runs", runs, "--out", out)
    assert done.returncode == 0, done.stderr
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def all_runs(client):
    return client.search_runs([client.get_experiment_by_name("tables").experiment_id])

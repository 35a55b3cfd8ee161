"""The search as a person runs it: through Ray Tune and MLflow on disk, killed half way, and its weights in a table."""

import json
import os
import signal
import subprocess

import pytest
import tiny
from mlflow import MlflowClient

from sweeps import record

TRIALS = 6
LONGER = {"schedule.adversarial": 90}
"""Rungs at 10, 30 and 90 steps."""


def arguments(faces, runs, module, *more):
    # With one thread each, whatever the machine: bits are compared.
    return [module, *tiny.options(faces, runs, **LONGER)[1:], "--cpus-per-trial", 1, *more]


@pytest.fixture(scope="module")
def searched(cache, faces_folder, tmp_path_factory):
    """A folder of runs after a search that was killed once, when most trials had reached a rung."""
    runs = tmp_path_factory.mktemp("searched") / "runs"
    command = arguments(faces_folder, runs, "sweeps.search", "--row", "loss-adversarial", "--trials", TRIALS)
    with subprocess.Popen(**tiny.command(cache, *command), stdout=subprocess.PIPE, bufsize=1) as driver:
        for line in driver.stdout:
            if "trial 3 · seed 1: paused" in line:
                os.kill(driver.pid, signal.SIGKILL)
                break
        driver.stdout.read()
    assert driver.returncode == -signal.SIGKILL
    done = tiny.python(cache, *command)
    assert done.returncode == 0, done.stderr
    return runs, done, command


@pytest.fixture(scope="module")
def trials(searched):
    """MLflow runs of the search, by trial; the row itself is trial 0."""
    client = MlflowClient(f"sqlite:///{searched[0] / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tables-search").experiment_id])
    varied = {int(run.data.tags[record.label_tag("trial")]): run for run in runs if "whetstone.trial" in run.data.tags}
    [default] = [run for run in runs if run.data.tags[record.TAG_ROWS] == "loss-adversarial"]
    return {0: default, **varied}


def last_value(runs, run):
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    return max(client.get_metric_history(run.info.run_id, "validation/psnr"), key=lambda point: point.step).value


def test_it_has_as_many_trials_as_were_asked_for_in_spite_of_the_kill(trials):
    assert sorted(trials) == list(range(TRIALS))


def test_pruned_trials_are_neither_finished_nor_failed_and_the_row_is_never_pruned(trials):
    pruned = [number for number, run in trials.items() if record.TAG_PRUNED in run.data.tags]
    assert {trials[number].info.status for number in pruned} == {"KILLED"}
    assert {run.info.status for number, run in trials.items() if number not in pruned} == {"FINISHED"}
    assert len(pruned) == 4  # of five, two reach the second rung and one the end
    assert 0 not in pruned


def test_the_best_is_no_worse_than_the_row_was(searched, trials):
    runs, done, _ = searched
    found = json.loads((runs / "search" / "tables-quick.json").read_text())["rows"]["loss-adversarial"]
    assert found["value"] >= last_value(runs, trials[0])
    finished = [run for run in trials.values() if run.info.status == "FINISHED"]
    assert found["value"] == max(last_value(runs, run) for run in finished)
    assert found["trials"] == TRIALS
    assert "generator.width=6" in found["settings"]
    assert "--set generator.width=6 --set" in done.stdout
    assert set(found["values"]) == {"losses.perceptual", "losses.adversarial"}
    assert "Importance at the first rung (fANOVA): losses." in done.stdout
    assert "240 steps in place of 540 (44%)" in done.stdout  # 90 + 5 × 10 + 2 × 20 + 60


def published(runs):
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(record.search_experiment("tables"))
    return client, experiment, record.searches_from_tags(experiment.tags, "quick")


def test_the_store_says_what_was_varied_and_what_came_out(searched, trials):
    runs, done, _ = searched
    found = json.loads((runs / "search" / "tables-quick.json").read_text())["rows"]["loss-adversarial"]
    _, _, [search] = published(runs)
    assert (search.id, search.row, search.trials) == (found["search"], "loss-adversarial", TRIALS)
    assert (search.metric, search.first_step, search.rungs) == ("validation/psnr", 30, [10, 30, 90])
    assert search.ranges == {"losses.perceptual": (1e-5, 1e-2), "losses.adversarial": (1e-4, 1e-1)}
    assert search.best == found["values"]
    assert search.default_key == trials[0].data.tags[record.TAG_STAGE_KEY]
    assert search.defaults == {field: float(trials[0].data.params[field]) for field in search.ranges}
    assert sum(search.importances.values()) == pytest.approx(1)
    for field, share in search.importances.items():
        assert f"{field} {share:.0%}" in " ".join(done.stdout.split())  # lines are wrapped


def test_a_search_that_was_not_published_is_so_when_it_is_repeated(searched, cache):
    runs, _, command = searched
    client, experiment, [before] = published(runs)
    client.delete_experiment_tag(experiment.experiment_id, before.to_tag()[0])
    assert published(runs)[2] == []
    assert tiny.python(cache, *command).returncode == 0
    assert published(runs)[2] == [before]


def test_again_it_does_nothing(searched, cache):
    runs, _, command = searched
    before = (runs / "search" / "tables-quick.json").read_bytes()
    again = tiny.python(cache, *command)
    assert again.returncode == 0, again.stderr
    assert "0 of them now" in again.stdout
    assert "running" not in again.stdout
    assert (runs / "search" / "tables-quick.json").read_bytes() == before


def test_its_weights_train_the_row_and_stand_in_tags_and_caption(searched, cache, faces_folder, tmp_path):
    runs, _, _ = searched
    file = runs / "search" / "tables-quick.json"
    search = json.loads(file.read_text())["rows"]["loss-adversarial"]["search"]
    done = tiny.python(cache, *arguments(faces_folder, runs, "sweeps.ablation", "--weights", file))
    assert done.returncode == 0, done.stderr
    # The parents and the best trial are in the store; they are only evaluated.
    assert "2 stages trained (40 steps), 4 only evaluated" in done.stdout
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(ids, "tags.`whetstone.weights` LIKE '%'")
    assert search in run.data.tags["whetstone.weights"]
    assert run.data.tags[record.TAG_ROWS] == "loss-adversarial"
    # The trial that has become a row has a name; the others, and the row as it was, have none.
    versions = client.search_model_versions("name = 'loss-adversarial'")
    assert [version.run_id for version in versions] == [run.info.run_id]
    assert client.get_model_version_by_alias("loss-adversarial", "best").run_id == run.info.run_id
    assert "`loss-adversarial`" in run.data.tags["mlflow.note.content"]
    report = tiny.python(cache, "analysis", "report", "--runs", runs, "--out", tmp_path)
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "tables-quick.md").read_text()
    assert "Loss weights tuned on validation data of seed 1: loss-adversarial: " in page
    assert f"of {TRIALS} trials, search {search}" in page
    assert "### Search of loss-adversarial, preset quick" in page
    slices = (tmp_path / "figures" / f"tables-quick-search-loss-adversarial-{search}.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in slices[1:]} == {"losses.perceptual", "losses.adversarial"}
    assert len(slices) == 1 + 2 * (TRIALS - 1)  # but for the row as it was, which is no trial's run


def test_a_tuned_row_trained_from_scratch_ends_with_the_same_bits(searched, cache, faces_folder):
    runs, _, _ = searched
    file = runs / "search" / "tables-quick.json"
    done = tiny.python(cache, *arguments(faces_folder, runs, "sweeps.ablation", "--weights", file, "--flat"))
    assert done.returncode == 0, done.stderr
    for row in ("scales-1", "scales-2", "multi-task", "loss-perceptual", "loss-adversarial"):
        assert f"{row}: the same bits as with shared prefixes" in done.stdout

"""Nothing is lost: kills, a full disk, an infinite metric, a parent's state that is cut off."""

import math
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from chaos import Tally, chaos, digests_of, examine, runs_of, undisturbed
from mlflow import MlflowClient
from tiny import command, options

from sweeps import record
from sweeps.deblurring.learner import TrainingLearner
from sweeps.engine import InProcessEngine
from sweeps.provenance import Provenance
from sweeps.sweep import LongestChainFirst, State, Sweep
from sweeps.tracking import MLflowTracker


def test_three_kills_change_nothing(cache, faces_folder, tmp_path):
    """The driver, the raylet and the tracking server; a worker is killed in test_end_to_end.py."""
    victims = ("driver", "raylet", "server")
    schedule = {"schedule.content": 100, "schedule.perceptual": 50, "schedule.adversarial": 20}
    tally = chaos(kills=3, seed=1, work=tmp_path, faces=faces_folder, cache=cache, victims=victims, schedule=schedule)
    assert tally.holds(), str(tally)
    assert tally.killed == dict.fromkeys(victims, 1)
    assert tally.restarts in (1, 2)  # a quick sweep may end before its driver notices that the raylet is gone
    assert tally.stages == 6 * tally.sweeps


@dataclass
class Notes:
    """A view that keeps the last note of each stage."""

    last: dict = field(default_factory=dict)

    def update(self, stage, state, step, metrics, note):
        self.last[stage.name] = note


@pytest.fixture
def sweep_in(tiny_study, settings):
    """Runs the tiny study's stages (or those of some names) in this process, with a store in a folder."""

    def run(folder, names=None):
        stages = [stage for stage in tiny_study.stages() if names is None or stage.name in names]
        tracker = MLflowTracker(
            uri=f"sqlite:///{folder / 'mlflow.db'}",
            artifacts=folder / "artifacts",
            experiment="tables",
            provenance=Provenance(
                study="tables",
                preset="quick",
                data={"train faces": "abc"},
                fingerprints={test.name: test.fingerprint for test in tiny_study.tests},
                owner=str(folder),
                hardware="none",
                commit="c0ffee",
                dirty=False,
                code="code",
            ),
            downloads=folder / "downloads",
        )
        notes = Notes()
        sweep = Sweep(
            stages=stages,
            tests=tiny_study.tests,
            tracker=tracker,
            view=notes,
            folder=folder / "stages",
            schedule=LongestChainFirst(stages),
            rows={},
        )
        InProcessEngine(settings).run(sweep)
        return sweep, tracker, notes.last

    return run


def by_stage(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    return {run.data.tags[record.TAG_STAGE]: run for run in runs_of(client)}


def all_digests(folder):
    return {name: digests_of(run) for name, run in by_stage(folder).items()}


def names_in(sweep, state):
    return {stage.name for stage in sweep.all_in(state)}


@pytest.fixture
def whole(sweep_in, tmp_path):
    """Digests by stage."""
    sweep_in(tmp_path / "undisturbed")
    digests = all_digests(tmp_path / "undisturbed")
    assert len(digests) == 6
    return digests


def test_an_infinite_metric_fails_its_stage_only_and_is_not_stored(tiny_study, sweep_in, whole, tmp_path, monkeypatch):
    """As the PSNR of an image that is restored without any error."""
    spoilt = next(stage for stage in tiny_study.stages() if stage.name == "multi-task · +perceptual")
    honest = TrainingLearner.evaluate

    def evaluate(self, test):
        evaluation = honest(self, test)
        if self._config == spoilt.config:
            per_image = {**evaluation.per_image, "psnr": [math.inf, *evaluation.per_image["psnr"][1:]]}
            evaluation = replace(evaluation, per_image=per_image)
        return evaluation

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLearner, "evaluate", evaluate)
        sweep, _, notes = sweep_in(tmp_path)
    assert names_in(sweep, State.FAILED) == {"multi-task · +perceptual"}
    assert names_in(sweep, State.SKIPPED) == {"multi-task · +adversarial"}
    assert len(sweep.all_in(State.DONE)) == 4
    reason = "NonFiniteError: multi-task · +perceptual · seed 1: test/Made up/psnr is inf"
    assert notes["multi-task · +perceptual"].startswith(reason)
    failed = by_stage(tmp_path)["multi-task · +perceptual"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags[record.TAG_FAILURE].startswith(reason)
    assert failed.data.metrics
    assert max(map(abs, failed.data.metrics.values())) < 1e6
    again, _, _ = sweep_in(tmp_path)
    assert len(again.all_in(State.DONE)) == 6
    assert all_digests(tmp_path) == whole


def test_a_parent_s_state_that_is_cut_off_fails_its_child_by_name(sweep_in, whole, tmp_path):
    parent = "multi-task · content"
    sweep, tracker, _ = sweep_in(tmp_path, [parent])
    (stage,) = sweep.all_in(State.DONE)
    state = tracker.find(stage).state_file()
    content = state.read_bytes()
    for damaged in (content[: len(content) // 2], b""):
        state.write_bytes(damaged)
        sweep, _, notes = sweep_in(tmp_path)
        assert names_in(sweep, State.FAILED) == {"multi-task · +perceptual"}
        assert names_in(sweep, State.SKIPPED) == {"multi-task · +adversarial"}
        assert len(sweep.all_in(State.DONE)) == 4
        line = notes["multi-task · +perceptual"]
        assert line.startswith(f"IncompleteStateError: {state} is not a complete state file")
        assert "\n" not in line
    state.write_bytes(content)
    sweep, _, _ = sweep_in(tmp_path)
    assert len(sweep.all_in(State.DONE)) == 6
    assert all_digests(tmp_path) == whole


MOUNT = 'mount -t tmpfs -o size="$SIZE" none "$DISK"'
RUN_TWICE = """
"$@" > "$WORK/full.txt" 2>&1; echo $? >> "$WORK/codes"
mount -o remount,size=64m "$DISK"
"$@" > "$WORK/freed.txt" 2>&1; echo $? >> "$WORK/codes"
"""
FILL_AND_FREE = """
"$@" > "$WORK/waiting.txt" 2>&1 &
until grep -q ": running" "$WORK/waiting.txt"; do kill -0 $! && sleep 0.1 || exit; done
cat /dev/zero > "$DISK/ballast"
until ls -d "$WORK"/runs/stages/*/result; do kill -0 $! && sleep 0.1 || exit; done
rm "$DISK/ballast"
wait $!; echo $? >> "$WORK/codes"
cp -r "$DISK" "$WORK/kept"
"""


def on_a_disk_of_its_own(script, sweep, *, disk, size, work):
    """Run a shell script with a sweep's command line as its arguments, and a small disk mounted at a folder; the exit
    codes that it wrote. What is on the disk is gone with the shell."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs `unshare --map-root-user --mount`: a disk of its own")
    disk.mkdir(parents=True)
    environment = {**sweep["env"], "WORK": str(work), "DISK": str(disk), "SIZE": size}
    shell = [*unshare, "sh", "-c", MOUNT + script, "sh", *sweep["args"]]
    done = subprocess.run(shell, env=environment, cwd=sweep["cwd"], capture_output=True, text=True)
    assert (work / "codes").exists(), done.stderr
    return (work / "codes").read_text().split()


@pytest.fixture(scope="module")
def expected(cache, faces_folder, tmp_path_factory):
    """Digests of the tiny sweep."""
    return undisturbed(tmp_path_factory.mktemp("expected"), faces_folder, cache, {})


def tiny_sweep(cache, faces, work):
    more = ["--engine", "in-process", "--cpus-per-trial", 1, "--device", "cpu", "--tracking-uri", store_in(work)]
    return command(cache, *options(faces, work / "runs"), *more)


def store_in(work):
    return f"sqlite:///{work / 'store' / 'mlflow.db'}"


def assert_as_undisturbed(work, expected):
    tally = Tally(Counter())
    examine(MlflowClient(store_in(work)), expected, tally)
    assert tally.holds(), str(tally)
    assert tally.stages == 6


def test_without_room_for_checkpoints_stages_fail_and_the_same_command_goes_on(cache, faces_folder, tmp_path, expected):
    sweep = tiny_sweep(cache, faces_folder, tmp_path)
    disk = tmp_path / "runs" / "stages"
    assert on_a_disk_of_its_own(RUN_TWICE, sweep, disk=disk, size="200k", work=tmp_path) == ["1", "0"]
    full = (tmp_path / "full.txt").read_text()
    for stage in ("1 scale · content · seed 1", "2 scales · content · seed 1", "multi-task · content · seed 1"):
        (line,) = re.findall(rf"^{stage}: failed, .*", full, re.MULTILINE)
        assert "No space left on device" in line
    assert "Traceback" not in full
    assert_as_undisturbed(tmp_path, expected)


def test_a_sweep_waits_for_a_store_without_room_and_goes_on_by_itself(cache, faces_folder, tmp_path, expected):
    sweep = tiny_sweep(cache, faces_folder, tmp_path)
    disk = tmp_path / "store"
    assert on_a_disk_of_its_own(FILL_AND_FREE, sweep, disk=disk, size="8m", work=tmp_path) == ["0"]
    said = (tmp_path / "waiting.txt").read_text()
    assert "not recorded yet" in said
    assert "database or disk is full" in said
    assert "Traceback" not in said
    shutil.copytree(tmp_path / "kept", disk, dirs_exist_ok=True)
    assert_as_undisturbed(tmp_path, expected)

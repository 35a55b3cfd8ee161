"""What a person types, run as they would: exit codes, one clear line, nothing written where nothing should be."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from sweeps.weights import Found, RowFound

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def ablation(*arguments, cwd=ROOT, **environment):
    return python("-m", "sweeps.ablation", *arguments, cwd=cwd, **environment)


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def assert_one_line(done, *parts):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "generator.scales=9"], ["generator.scales", "3", "9"]),
        (["--set", "generator.width=0"], ["generator.width", "1", "got 0"]),
        (["--set", "generator.width=-1"], ["generator.width", "1", "got -1"]),
        (["--set", "generator.width=4"], ["generator", "6", "got 4"]),
        (["--set", "generator.depth=3"], ["generator.width", "'generator.depth'"]),
        (["--set", "generator.scales=3"], ["study 'tables'", "generator.scales"]),
        (["--set", "generator.widht=3"], ["did you mean generator.width?"]),
        (["--plan", "--train-faces", "nowhere"], ["celeba-sample", "nowhere"]),
        (["--cpus-per-trial", "1000"], ["--cpus-per-trial", "got 1000"]),
        (["--gpus-per-trial", "0.5", "--device", "cpu"], ["--gpus-per-trial", "got 0.5"]),
        (["table"], ["tables, controls", "'table'"]),
        (["--preset", "slow"], ["quick, paper", "'slow'"]),
        (["--seeds", "0"], ["0"]),
        (["--seed", "3"], ["--seed"]),
        (["--test-faces", "Helen"], ["--test-faces NAME=DIR", "'Helen'"]),
        (["--test-faces", "../up=faces"], ["letters", "'../up'"]),
        (["--device", "cuda"], ["--device", "cuda"]),
        (["--device", "cpu", "--compile"], ["--compile", "no-such-compiler"]),
        (["--budget", "0"], ["--budget", "0"]),
        (["--weights", "nowhere.json"], ["--weights", "nowhere.json", "No such file"]),
        (["--address", "ray://127.0.0.1:10001"], ["--address", "HOST:PORT", "ray://"]),
        (["--address", "127.0.0.1"], ["--address", "HOST:PORT"]),
        (["--address", "127.0.0.1:1"], ["--address", "127.0.0.1:1"]),
        (["--address", "127.0.0.1:1", "--engine", "in-process"], ["--address", "in-process"]),
    ],
)
def test_a_mistake_is_one_line(arguments, parts, runs, tmp_path):
    environment = {"CUDA_VISIBLE_DEVICES": "", "CXX": "no-such-compiler"}
    done = ablation(*arguments, "--runs", runs, WHETSTONE_CACHE=str(tmp_path / "cache"), **environment)
    assert_one_line(done, *parts)
    if "--address" not in arguments:  # a cluster is joined when the data are prepared
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--trials", "1"], ["--trials", "1"]),
        (["--row", "none"], ["--row must be one of scales-1, ", "loss-adversarial; got 'none'"]),
        (["--over", "losses.structure=0.1..10"], ["--over needs one --row whose fields it names, got none"]),
        (["--row", "multi-task", "--over", "losses.structure"], ["FIELD=LOW..HIGH", "'losses.structure'"]),
        (["--row", "multi-task", "--over", "losses.structure=2..1"], ["LOW < HIGH", "2..1"]),
        (["--row", "multi-task", "--over", "losses.structure=-1..1"], ["0 <= LOW", "-1..1"]),
        (["--row", "multi-task", "--over", "losses.structure=1..inf"], ["LOW < HIGH", "1..inf"]),
        (["--row", "multi-task", "--over", "generator.width=6..12"], ["real-valued", "generator.width"]),
        (
            ["--row", "multi-task", "--over", "losses.strcture=1..2"],
            ["real-valued", "losses.strcture", "did you mean losses.structure?", "optimiser.learning_rate"],
        ),
        (["--row", "scales-1", "--over", "losses.structure=1..2"], ["makes a difference", "'losses.structure'"]),
        (["--row", "multi-task", "--over", "losses.perceptual=1..2"], ["makes a difference", "'losses.perceptual'"]),
        (["--row", "multi-task"], ["--row multi-task needs --over", "loss-perceptual, loss-adversarial"]),
        (["--row", "multitask", "--over", "losses.structure=1..2"], ["did you mean multi-task?"]),
        (["--row", "multi-task", "--over", "optimiser.beta1=0..2"], ["optimiser.beta1", "1", "2"]),
        (["--cpus-per-trial", "1000"], ["--cpus-per-trial", "got 1000"]),
        (["--row", "blurred", "--over", "losses.structure=1..2"], ["--row must be one of", "'blurred'"]),
    ],
)
def test_a_mistake_in_a_search_is_one_line(arguments, parts, runs, tmp_path):
    assert_one_line(
        python("-m", "sweeps.search", *arguments, "--runs", runs, WHETSTONE_CACHE=str(tmp_path / "cache")), *parts
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_an_empty_and_an_unreadable_face_folder(runs, tmp_path):
    def with_faces(folder):
        return ablation("--train-faces", folder, "--runs", runs, WHETSTONE_CACHE=str(tmp_path / "cache"))

    assert_one_line(with_faces(tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    assert_one_line(with_faces(tmp_path / "empty"), "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/face.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert_one_line(with_faces(tmp_path / "broken"), "broken")


SMALL = [f"--set=data.{name}" for name in ("test_faces=4", "validation_faces=4", "kernels_per_size=4")]


@pytest.mark.parametrize("command", [["ablation"], ["ablation", "--plan"], ["search"]])
def test_too_few_faces_are_refused_before_one_is_read(command, runs, faces_folder, tmp_path):
    module, *more = command
    faces = ["--train-faces", faces_folder, "--test-faces", f"Made up={faces_folder}"]
    done = python("-m", f"sweeps.{module}", *faces, *more, "--runs", runs, WHETSTONE_CACHE=str(tmp_path / "cache"))
    assert_one_line(done, "--train-faces must hold more than the 150 faces", "got 24")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["ablation"], ["search"], ["doctor"], ["deblur", "photo.png"]])
def test_an_empty_name_is_not_the_current_folder(command):
    module, *more = command
    done = python("-m", f"sweeps.{module}", *more, "--runs", "")
    assert_one_line(done, "--runs", "a folder's name is needed, got ''")


def test_a_cache_that_cannot_be_written(runs, faces_folder, tmp_path):
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "cache"
    faces = ["--train-faces", faces_folder, "--test-faces", f"Made up={faces_folder}", *SMALL]
    done = ablation(*faces, "--runs", runs, WHETSTONE_CACHE=str(cache))
    assert_one_line(
        done, f"WHETSTONE_CACHE must be a folder that can be read and written, got {cache} (Not a directory)"
    )


def test_one_bad_image_among_many_is_named_and_counted(runs, faces_folder, cache, tmp_path):
    folder = tmp_path / "faces"
    shutil.copytree(faces_folder, folder)
    whole = (folder / "05.png").read_bytes()
    (folder / "05.png").write_bytes(whole[: len(whole) // 2])
    # The store can't be reached, so that nothing is trained: the faces come first.
    options = ["--tracking-uri", "http://127.0.0.1:1", "--runs", runs, *SMALL]
    done = ablation("--train-faces", folder, "--test-faces", f"A={folder}", *options, WHETSTONE_CACHE=str(cache))
    assert "1 of 24 images skipped" in done.stdout
    assert "05.png" in done.stdout
    assert_one_line(done, "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:1", "Connection refused"),
        ("nothing://here", "unsupported URI"),
        ("sqlite:////proc/nowhere/mlflow.db", "No such file"),
        ("postgresql+psycopg2://me@127.0.0.1:1/mlflow", "Connection refused"),
    ],
)
def test_a_tracking_store_that_cannot_be_reached(uri, reason, faces_folder, cache, runs):
    faces = ["--train-faces", faces_folder, "--test-faces", f"Made up={faces_folder}"]
    done = ablation("--tracking-uri", uri, "--runs", runs, *faces, *SMALL, WHETSTONE_CACHE=str(cache))
    assert_one_line(done, uri, reason)


def test_a_store_that_does_not_exist_is_not_made_by_reading(runs, faces_folder):
    photo = next(faces_folder.iterdir())
    assert_one_line(python("-m", "sweeps.deblur", photo, "--runs", runs), "run a sweep first")
    assert_one_line(python("-m", "sweeps.deblur", "nowhere.png", "--runs", runs), "nowhere.png")
    assert not runs.exists()


def test_an_asset_that_cannot_be_had(runs, tmp_path):
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "WHETSTONE_CACHE": str(tmp_path / "cache")}
    done = ablation("--runs", runs, **nowhere)
    assert_one_line(done, "celeba-sample", "--train-faces")


@pytest.mark.parametrize("name", ["datasets", "model_zoo"])
def test_another_package_in_the_way_is_named(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the other package was imported')")
    done = ablation("--plan", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert_one_line(done, str(tmp_path / name), str(ROOT / name))


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        ([], "5 stages, 400,000 iterations in place of 750,000"),
        (["--seeds", "3"], "15 stages, 1,200,000 iterations in place of 2,250,000"),
    ],
)
def test_a_plan_prints_the_tree_and_writes_nothing(arguments, total, tmp_path):
    environment = {"WHETSTONE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    environment["COLUMNS"] = "160"
    # Of the paper's lengths, but small: a few steps are timed.
    small = ["generator.width=6", "generator.blocks=1", "data.image_size=32", "discriminator_width=4", "batch_size=1"]
    settings = [text for each in (*small, "backbone=vgg16", "data.kernel_sizes=[3]") for text in ("--set", each)]
    done = ablation("--preset", "paper", "--plan", "--runs", tmp_path / "runs", *settings, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert total in done.stdout
    line = r"multi-task · \+adversarial · seed 1: 50,000 steps, \d.* (min|h|days), state \d\.\d MiB"
    assert re.search(line, done.stdout)
    assert re.search(r"About \d+(\.\d)? (min|h|days) with \d+ at a time; [\d,]+ MiB kept", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_the_budget_is_refused_and_one_within_it_is_done(runs, faces_folder, cache):
    arguments = tiny.options(faces_folder, runs)
    refused = tiny.python(cache, *arguments, "--engine", "in-process", "--budget", "1e-9")
    assert_one_line(refused, "--budget must be at least", "6 stages", "got 1e-09")
    assert not list((runs / "stages").glob("*"))
    done = tiny.python(cache, *arguments, "--engine", "in-process", "--budget", "10")
    assert done.returncode == 0, done.stderr
    again = tiny.python(cache, *arguments, "--engine", "in-process", "--budget", "1e-9")
    assert again.returncode == 0, again.stderr


def test_a_field_that_two_options_give(runs, tmp_path):
    found = RowFound(values={"losses.perceptual": 0.1}, metric="validation/psnr", value=23.0, trials=16, search="abc")
    file = tmp_path / "weights.json"
    Found(preset="quick", seed=1, rows={"loss-perceptual": found}).write(file)
    done = ablation("--weights", file, "--set", "losses.perceptual=0.2", "--runs", runs)
    assert_one_line(done, "--set", "--weights", "got losses.perceptual")


def test_help_is_help():
    done = ablation("--help")
    assert done.returncode == 0
    assert "--test-faces" in done.stdout


def test_two_drivers_do_not_share_a_folder(runs, tmp_path):
    import fcntl

    runs.mkdir()
    with (runs / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("1234 on this machine")
        lock.flush()
        refused = ablation("--runs", runs, WHETSTONE_CACHE=str(tmp_path / "cache"))
        assert_one_line(refused, "no other sweep", str(runs), "process 1234 on this machine")

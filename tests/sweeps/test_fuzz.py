"""Hostile and damaged input to the commands: one line and exit code 2, a failed stage that says why, or accepted.

Never a traceback, a file outside the folders that were given, or the loss of a finished stage. All cases are drawn from
fixed seeds; each test says how many it tries, and `test_there_are_enough_of_them` adds them up.
"""

import json
import random
import shutil
import signal
import socket
import sys
from dataclasses import replace

import fuzz
import pytest
import tiny
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from sweeps import ablation, cli, deblur, search
from sweeps.checkup import Level, head, tracking_store
from sweeps.deblurring.data import check_sources, prepare_data
from sweeps.deblurring.restore import load_restorer, open_photo, restore_photo
from sweeps.engine import attempt
from sweeps.job import CONFIG, STATE, WEIGHTS, Job, checkpoints
from sweeps.launch import Launch
from sweeps.learner import Execution
from sweeps.overrides import apply_overrides, field_names
from sweeps.presets import quick
from sweeps.provenance import Provenance
from sweeps.tracking import MLflowTracker, connect
from sweeps.train import IncompleteStateError, load_state, state_digest
from sweeps.weights import Found, RowFound

TRIED = {
    "settings": 2000,
    "columns": 300,
    "weights": 400,
    "ablation": 300,
    "search": 200,
    "deblur": 100,
    "photos": 200,
    "models": 120,
    "states": 400,
    "resumptions": 30,
    "backbone": 30,
    "store": 40,
}


def test_there_are_enough_of_them():
    assert sum(TRIED.values()) >= 1000


def cases(name):
    """A generator with the test's own seed, as often as it is to try."""
    for index in range(TRIED[name]):
        yield random.Random(f"{name} {index}")


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """Home and current folder within a folder that can be watched, and a folder of faces without a face."""
    for name in ("home", "here", "empty"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "WHETSTONE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def typed(monkeypatch, capfd):
    """Types a command in this process; its exit code, stdout and stderr."""

    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        return cli.exit_code(command), *capfd.readouterr()

    return run


def assert_one_line(code, err):
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def junk(rng):
    return rng.choice(rng.choice([fuzz.NAMES, fuzz.NUMBERS, fuzz.JSON]))


def refusal(error, *parts):
    """1 for what was refused as it should be: in words, in one line once `cli.exit_code` has it, with these parts."""
    assert len(str(error).strip()) > 10
    for part in parts:
        assert str(part) in str(error)
    return 1


# What is typed.


def test_settings(sandbox):
    fields, request = field_names(quick().config), tiny.request(sandbox)
    refused = 0
    before = fuzz.listing(sandbox)
    for rng in cases("settings"):
        field = rng.choice(fields) if rng.random() < 0.9 else rng.choice(fuzz.NAMES)
        try:
            Launch(replace(request, assignments=(f"{field}={junk(rng)}",)))
        except ValueError as error:
            refused += refusal(error)
    assert TRIED["settings"] * 0.6 < refused < TRIED["settings"]
    assert fuzz.listing(sandbox) == before


def test_numbers_beyond_all_bounds_are_in_no_config():
    for name in ("generator.width", "generator.blocks", "batch_size", "schedule.content", "data.test_faces"):
        with pytest.raises(ValueError, match=name):
            apply_overrides(quick().config, [f"{name}={'9' * 30}"])
    for value in ("NaN", "inf", "-1", "1e400"):
        with pytest.raises(ValueError, match=r"losses\.content"):
            apply_overrides(quick().config, [f"losses.content={value}"])


def test_names_and_folders_of_columns(sandbox):
    request = tiny.request(sandbox)
    for rng in cases("columns"):
        name, folder = rng.choice([*fuzz.NAMES, "A"]), rng.choice([*fuzz.NAMES, str(sandbox / "empty")])
        try:
            launch = Launch(replace(request, test_faces=(f"{name}={folder}",)))
        except (ValueError, OSError) as error:
            refusal(error)
        else:
            [column] = launch.study(launch.planned(), seeds=[1]).tests
            assert column.name.isalnum()
    with pytest.raises(FileNotFoundError, match="faces must be a folder"):
        check_sources("", {})


def test_command_lines_of_ablation(sandbox, typed):
    """There are no faces: nothing is trained, whatever is accepted."""
    fields, runs = field_names(quick().config), sandbox / "runs"
    before = fuzz.listing(sandbox, runs)
    for rng in cases("ablation"):
        value = junk(rng)
        choices = [
            [value],
            ["--preset", value],
            ["--set", f"{rng.choice(fields)}={value}"],
            ["--test-faces", f"{value}={sandbox / 'empty'}"],
            ["--weights", value],
            ["--seeds", value],
            ["--budget", value],
            ["--engine", value],
            ["--device", value],
            ["--cpus-per-trial", value],
            ["--gpus-per-trial", value],
            ["--tracking-uri", value],
            [f"--{value}"],
        ]
        code, _, err = typed(
            ablation.main,
            "--train-faces",
            sandbox / "empty",
            "--runs",
            runs,
            "--engine",
            "in-process",
            *rng.choice(choices),
        )
        if code:  # `--help` is a name too
            assert_one_line(code, err)
    assert fuzz.listing(sandbox) == before


def test_command_lines_of_search(sandbox, typed):
    runs = sandbox / "runs"
    before = fuzz.listing(sandbox, runs)
    for rng in cases("search"):
        value, other = junk(rng), junk(rng)
        over = f"{rng.choice(['losses.structure', 'optimiser.beta1', value])}={value}..{other}"
        choices = [
            ["--row", value],
            ["--row", "multi-task", "--over", over],
            ["--row", "multi-task", "--over", value],
            ["--trials", value],
            ["--factor", value],
            ["--rungs", value],
            ["--seed", value],
            ["--weights", value],
            [value],
        ]
        code, _, err = typed(search.main, "--train-faces", sandbox / "empty", "--runs", runs, *rng.choice(choices))
        if code:
            assert_one_line(code, err)
    assert fuzz.listing(sandbox, runs, sandbox / "cache") == before


def test_command_lines_of_deblur(sandbox, typed, faces_folder):
    photo = sandbox / "photo.png"
    shutil.copy(faces_folder / "00.png", photo)
    before = fuzz.listing(sandbox)
    for rng in cases("deblur"):
        value = junk(rng)
        choices = [[value], [photo, "--row", value], [photo, "--out", value], [photo, "--out", f"{value}.png"]]
        choices += [[photo, "--seed", value], [photo, "--runs", value], [photo, "--preset", value]]
        code, _, err = typed(deblur.main, *rng.choice(choices))
        if code:
            assert_one_line(code, err)
    assert fuzz.listing(sandbox) == before


@pytest.mark.parametrize(
    "address", [*fuzz.NAMES[1:], "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:x", "[::1", ":1", "a:b:c"]
)
def test_addresses(address, monkeypatch):
    def only_here(host, *arguments, **options):
        raise socket.gaierror(f"no name is looked up in a test, got {host!r:.40}")

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    assert head(address).level == Level.WRONG


@pytest.mark.parametrize("port", [99999, -1, 1])
def test_ports(port):
    assert head(f"127.0.0.1:{port}").level == Level.WRONG


URIS = (
    "nothing",
    "nothing://here",
    "://",
    ":",
    "../x",
    "/abs/x",
    "file:",
    "file:/nonsense",
    "file:///proc/x",
    "http:",
    "http://[",
    "http://[::1",
    "http://@",
    "http:// ",
    "http://\0",
    "http://127.0.0.1:x",
    "http://127.0.0.1:99999",
    "mysql://127.0.0.1:1/x",
    "s3://x/y",
    "sqlite:",
    "sqlite://",
    "sqlite:///",
    "sqlite:////",
    "sqlite:///.",
    "sqlite:///:memory:",
    "sqlite:///a\0b",
    f"sqlite:///{'x' * 5000}",
    "sqlite:////proc/x.db",
    "sqlite+x:///y",
    "\0",
)


@pytest.mark.parametrize("uri", URIS)
def test_tracking_uris(uri, sandbox):
    before = fuzz.listing(sandbox)
    with pytest.raises(ValueError, match="tracking URI must be a store that answers") as error:
        connect(uri)
    assert "\n" not in str(error.value)
    assert tracking_store(uri).level == Level.WRONG or uri.startswith("sqlite")
    assert fuzz.listing(sandbox) == before


# Files.


WEIGHTS_FILE = Found(preset="quick", seed=1, rows={}).with_row(
    "loss-perceptual",
    RowFound(values={"losses.perceptual": 0.002}, metric="validation/psnr", value=23.5, trials=16, search="abc"),
)


def test_files_of_weights(tiny_study, tmp_path):
    file = tmp_path / "weights.json"
    WEIGHTS_FILE.write(file)
    whole = file.read_bytes()
    refused = 0
    for index, rng in enumerate(cases("weights")):
        if index % 2:
            file.write_bytes(fuzz.damaged(whole, rng))
        else:
            file.write_text(json.dumps(fuzz.mutated(json.loads(whole), rng)))
        try:
            Found.read(file, "quick").apply(tiny_study)
        except ValueError as error:
            refused += refusal(error)
    assert TRIED["weights"] * 0.6 < refused < TRIED["weights"]


@pytest.mark.parametrize(
    "content", [b"[" * 10_000_000, b"\0" * 10_000_000, b'"' + b"x" * 10_000_000 + b'"', b"1" * 10_000_000]
)
def test_ten_megabytes_of_weights(content, tmp_path):
    (tmp_path / "weights.json").write_bytes(content)
    with pytest.raises(ValueError, match="--weights must be a file of") as error:
        Found.read(tmp_path / "weights.json", "quick")
    assert len(str(error.value)) < 1000


def test_weights_of_unknown_fields_are_refused(tmp_path):
    content = json.loads(json.dumps({"preset": "quick", "seed": 1, "rows": {}, "more": 1}))
    (tmp_path / "weights.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="more"):
        Found.read(tmp_path / "weights.json", "quick")


def stage_of(study, row):
    return next(each for each in study.rows if each.name == row).stages[0]


def train(job, settings):
    return attempt(job, settings, lambda *_: None)


@pytest.fixture(scope="module")
def trained(tiny_study, cache, tmp_path_factory):
    """A row's folder after training: two checkpoints and a result."""
    from sweeps.job import Settings

    folder = tmp_path_factory.mktemp("trained")
    settings = Settings(cache=cache, log_every=1, validate_every=2, checkpoint_every=1)
    assert train(Job(stage=stage_of(tiny_study, "multi-task"), tests=(), folder=folder), settings) is None
    return folder


def test_a_damaged_state_is_refused_or_the_same(trained, tmp_path):
    """Bits that are flipped in a tensor too."""
    whole = (trained / "result" / "model" / STATE).read_bytes()
    expected = state_digest(load_state(trained / "result" / "model" / STATE))
    file, refused = tmp_path / "state.pt", 0
    for rng in cases("states"):
        file.write_bytes(fuzz.damaged(whole, rng))
        try:
            content = load_state(file)
        except IncompleteStateError as error:
            refused += refusal(error, file)
        else:
            assert state_digest(content) == expected
    assert refused > TRIED["states"] * 0.7


def test_a_damaged_newest_checkpoint_costs_a_step_and_nothing_else(trained, tiny_study, settings, tmp_path):
    stage = stage_of(tiny_study, "multi-task")
    undisturbed = (trained / "result" / "digests.json").read_text()
    for rng in cases("resumptions"):
        folder = tmp_path / str(rng.random())
        folder.mkdir()
        for path in checkpoints(trained):
            shutil.copy(path, folder)
        newest = checkpoints(folder)[-1]
        newest.write_bytes(fuzz.damaged(newest.read_bytes(), rng))
        assert train(Job(stage=stage, tests=(), folder=folder), settings) is None
        assert (folder / "result" / "digests.json").read_text() == undisturbed


def foreign_states(whole, other):
    """Complete state files that are not this parent's."""
    state = whole["state"]
    yield {**whole, "stage": "another"}
    yield {**whole, "state": other["state"]}
    yield {**whole, "state": {**state, "generator": {}}}
    yield {**whole, "state": {**state, "generator": None}}
    yield {**whole, "state": {**state, "draws": {"state": torch.zeros(3), "device": "cpu"}}}
    yield {**whole, "state": {**state, "optimiser": {}}}
    yield {**whole, "state": [1, 2]}
    yield {**whole, "state": None}
    yield {"stage": whole["stage"], "step": "many"}
    yield [1, 2]
    yield None


def test_a_foreign_parent_s_state_fails_the_stage_and_says_why(trained, tiny_study, settings, tmp_path):
    parent = stage_of(tiny_study, "multi-task")
    child = replace(parent, parent=parent, steps=1)
    assert train(Job(stage=stage_of(tiny_study, "scales-1"), tests=(), folder=tmp_path / "other"), settings) is None
    other = load_state(tmp_path / "other" / "result" / "model" / STATE)
    whole = load_state(trained / "result" / "model" / STATE)
    start = tmp_path / "start.pt"
    for content in foreign_states(whole, other):
        torch.save(content, start)
        before = start.read_bytes()
        failure = train(Job(stage=child, tests=(), folder=tmp_path / "child", start=start), settings)
        assert failure is not None
        assert "\n" not in failure
        assert start.read_bytes() == before
        assert not (tmp_path / "child" / "result").exists()


def test_a_foreign_checkpoint_is_no_checkpoint(trained, tiny_study, settings, tmp_path):
    """Of this stage by its name, but with other content: the one before is taken, or the stage fails and says why."""
    stage = stage_of(tiny_study, "multi-task")
    newest = checkpoints(trained)[-1]
    for index, content in enumerate(foreign_states(load_state(newest), {"state": {}})):
        folder = tmp_path / str(index)
        folder.mkdir()
        shutil.copy(checkpoints(trained)[0], folder)
        torch.save(content, folder / newest.name)
        failure = train(Job(stage=stage, tests=(), folder=folder), settings)
        assert (failure is None) == (folder / "result").exists()


def test_damaged_weights_of_the_perceptual_network_are_named(tiny_study, cache, tmp_path):
    stage = stage_of(tiny_study, "loss-perceptual")
    weights = next(cache.glob("vgg16-*"))
    for name in ("faces", "kernels"):
        (tmp_path / name).symlink_to(cache / name)
    whole, refused = weights.read_bytes(), 0
    for index, rng in enumerate(cases("backbone")):
        near = 5000 if index % 2 else len(whole)  # the header, or all of it
        (tmp_path / weights.name).write_bytes(fuzz.damaged(whole[:near], rng) + whole[near:])
        try:
            stage.config.learner(seed=1, execution=Execution(), cache=tmp_path)
        except ValueError as error:
            refused += refusal(error, f"remove {tmp_path / weights.name}")
    assert refused > TRIED["backbone"] / 2


def test_damaged_models(trained, tmp_path):
    """A flipped bit of a weight is not to be seen: safetensors has no checksum."""
    model = trained / "result" / "model"
    files = {name: (model / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    refused = 0
    for rng in cases("models"):
        for name, whole in files.items():
            (tmp_path / name).write_bytes(whole)
        name = rng.choice(list(files))
        if name == CONFIG and rng.random() < 0.5:
            (tmp_path / name).write_text(json.dumps(fuzz.mutated(json.loads(files[name]), rng)))
        else:
            (tmp_path / name).write_bytes(fuzz.damaged(files[name], rng))
        try:
            load_restorer(tmp_path)
        except ValueError as error:
            refused += refusal(error, "the row's files must be those of its model")
    assert refused > TRIED["models"] / 2
    foreign = {name: value[:1].clone() for name, value in load_file(model / WEIGHTS).items()}
    save_file(foreign, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_bytes(files[CONFIG])
    with pytest.raises(ValueError, match="size mismatch"):
        load_restorer(tmp_path)


def test_photos(trained, faces_folder, tmp_path):
    whole = (faces_folder / "00.png").read_bytes()
    generator = load_restorer(trained / "result" / "model")
    refused = 0
    for rng in cases("photos"):
        photo = tmp_path / rng.choice(["photo.png", "photo.jpg", "photo"])
        photo.write_bytes(fuzz.damaged(whole, rng))
        try:
            image = open_photo(photo)
        except ValueError as error:
            refused += refusal(error, photo)
        else:
            assert restore_photo(generator, image.crop((0, 0, rng.randint(1, 20), 7))).height == 7
    assert refused > TRIED["photos"] / 2


# What is finished stays.


def test_a_store_of_finished_stages_keeps_them(sandbox, typed, faces_folder, cache, monkeypatch):
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("WHETSTONE_CACHE", str(cache))
    runs, photo = sandbox / "runs", sandbox / "photo.png"
    shutil.copy(faces_folder / "00.png", photo)
    short = {"schedule.content": 2, "schedule.perceptual": 1, "schedule.adversarial": 1}
    good = [*tiny.options(faces_folder, runs, **short)[1:], "--engine", "in-process"]
    assert typed(ablation.main, *good)[0] == 0
    signal.signal(signal.SIGTERM, handler)

    def finished():
        client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
        found = client.search_runs([each.experiment_id for each in client.search_experiments()], "status = 'FINISHED'")
        return {run.info.run_id: (run.data.metrics, run.data.tags, run.data.params) for run in found}

    untouched = (runs / "mlflow.db", runs / "downloads")
    kept, before = finished(), fuzz.listing(sandbox, *untouched)
    assert len(kept) == 6
    WEIGHTS_FILE.write(sandbox / "weights.json")
    before = fuzz.listing(sandbox, *untouched)
    for rng in cases("store"):
        value = rng.choice(fuzz.NAMES)
        choices = [
            (ablation.main, [*good, "--set", f"losses.perceptual={value}"]),
            (ablation.main, [*good, "--weights", value]),
            (ablation.main, [*good, "--test-faces", f"{value}={sandbox / 'empty'}"]),
            (ablation.main, [*good, "--test-faces", f"B={sandbox / 'empty'}"]),
            (ablation.main, [*good, "--set", f"data.test_faces={10**8}"]),
            (search.main, ["--runs", runs, "--train-faces", sandbox / "empty", "--row", value]),
            (deblur.main, [photo, "--runs", runs, "--row", value]),
            (deblur.main, [photo, "--runs", runs, "--study", value]),
            (deblur.main, [photo, "--runs", runs, "--preset", value]),
            (deblur.main, [photo, "--runs", runs, "--out", sandbox / "nowhere" / "x.png"]),
        ]
        code, _, err = typed(*_flat(rng.choice(choices)))
        assert_one_line(code, err)
    assert finished() == kept
    assert fuzz.listing(sandbox, *untouched) == before
    code, out, _ = typed(ablation.main, *good)
    assert (code, "Nothing to train" in out) == (0, True)
    assert typed(deblur.main, photo, "--runs", runs)[0] == 0
    assert finished() == kept
    assert list((sandbox / "home").iterdir()) == []


def _flat(choice):
    command, arguments = choice
    return command, *arguments


@pytest.mark.parametrize(
    "name", ["faces (2)", "a:b", "\udcff", "a\nb", "\N{GRINNING FACE} e\N{COMBINING ACUTE ACCENT}", "x" * 250]
)
def test_a_face_folder_of_any_name_can_be_recorded_and_taken_up_again(
    name, tiny_study, tiny_config, faces_folder, cache, tmp_path, empty_store
):
    folder = tmp_path / name
    shutil.copytree(faces_folder, folder)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    data = prepare_data(tiny_config.data, train=str(folder), tests={"A": str(folder)}, cache=cache, tell=print)
    provenance = Provenance(
        study="tables",
        preset="quick",
        data=data.names,
        fingerprints={},
        owner="here",
        hardware="",
        commit="",
        dirty=False,
        code="code",
    )
    stage = stage_of(tiny_study, "scales-1")
    for _ in range(2):
        tracker = MLflowTracker(
            uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
            artifacts=tmp_path / "artifacts",
            experiment="tables",
            provenance=provenance,
            downloads=tmp_path / "downloads",
        )
        assert tracker.start(stage, []) == -1


@pytest.mark.parametrize("name", ["%2e%2e%2fx", "x?mode=ro", "a\0b", "x" * 300])
def test_folders_that_can_hold_no_store(name, sandbox, typed):
    folder = sandbox / "given" / name
    options = ["--train-faces", sandbox / "empty", "--runs", folder, "--engine", "in-process"]
    assert_one_line(*typed(ablation.main, *options)[::2])
    if "\0" not in name and len(name) < 255:
        with pytest.raises(ValueError, match="--runs must be a path without"):
            cli.own_store(folder)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """MLflow takes seconds to make a database, so it makes one."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{file}")
    return file

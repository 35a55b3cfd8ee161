"""Each check of the doctor finds the fault that is injected here, and says nothing where there is none."""

import fcntl
import importlib.util
import json
import os
import re
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
import tiny
from rich.console import Console

from sweeps import checkup
from sweeps.checkup import Finding, Level, NodeReport
from sweeps.examine import examine
from sweeps.launch import Launch
from sweeps.lock import only_driver
from sweeps.resources import this_machine

ROOT = Path(__file__).resolve().parents[2]
MEND = "the mend"


def is_ok(finding):
    return finding.level == Level.OK and not finding.mend


def is_wrong(finding, *parts, level=Level.WRONG):
    """The level, a mend, and what the line must say."""
    assert all(part in f"{finding.found}; {finding.mend}" for part in parts), finding
    return finding.level == level and bool(finding.mend)


# Packages.


def test_own_packages_are_found_first_here():
    assert is_ok(checkup.own_packages())


@pytest.mark.parametrize("name", ["datasets", "model_zoo"])
def test_another_package_of_the_same_name(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('the other package was imported')")
    done = doctor(cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 1, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("wrong"))
    assert str(tmp_path / name) in line
    assert f"mend: cd {ROOT}" in line


@pytest.mark.parametrize(
    ("version", "good"), [("3.10.14", False), ("3.9.0", False), ("3.11.0", True), ("3.14.0rc1", True)]
)
def test_python(version, good):
    finding = checkup.python(">=3.11", version)
    assert is_ok(finding) if good else is_wrong(finding, version, ">=3.11")


@pytest.fixture
def site(tmp_path):
    """Makes a folder of installed packages: name, version, requirement lines."""

    def install(name, version, *requires):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        return [str(tmp_path)]

    return install


def test_packages_of_the_right_versions(site):
    site("torch", "2.15.0+cpu")
    path = site("mlflow", "3.17.2")
    finding = checkup.packages("packages", ["torch>=2.11", "mlflow>=3.17"], mend=MEND, path=path)
    assert is_ok(finding)
    assert finding.found == "torch 2.15.0+cpu, mlflow 3.17.2"


def test_an_old_and_a_missing_package(site):
    path = site("torch", "2.9.1")
    finding = checkup.packages("packages", ["torch>=2.11", "mlflow>=3.17"], mend=MEND, path=path)
    assert is_wrong(finding, "torch is 2.9.1", ">=2.11", "mlflow is missing", MEND)


def test_the_dashboard_extra(site):
    requires = ['aiohttp>=3; extra == "default"', 'colorful; extra == "default"', 'gymnasium; extra == "rllib"']
    site("ray", "2.60.0", *requires)
    path = site("aiohttp", "2.0")
    assert is_ok(checkup.packages("dashboard", ["ray"], mend=MEND, path=path))
    finding = checkup.packages("dashboard", ["ray[default]"], mend=MEND, path=path)
    assert is_wrong(finding, "aiohttp is 2.0, needed is >=3", "colorful is missing")
    assert "gymnasium" not in finding.found


# Ray on this machine.


@contextmanager
def server(status, body):
    """A server that gives everyone the same answer; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


@pytest.fixture
def closed_port():
    """A port at which nothing listens, and nothing will: it is bound."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_a_free_dashboard_port(closed_port):
    assert is_ok(checkup.dashboard_port(closed_port))


def test_a_dashboard_port_that_another_ray_holds():
    page = Path(importlib.util.find_spec("ray").origin).parent / "dashboard/client/build/index.html"
    with server(200, page.read_bytes()) as port:
        assert is_ok(checkup.dashboard_port(port))


@pytest.mark.parametrize(("status", "body"), [(200, b"<title>Grafana</title>"), (404, b"")])
def test_a_dashboard_port_that_another_program_holds(status, body):
    with server(status, body) as port:
        assert is_wrong(checkup.dashboard_port(port), str(port), "ss -ltnp", level=Level.WARNING)


SECRET = "0123456789abcdef"


@pytest.fixture
def home(tmp_path):
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(SECRET)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("joins", [True, False])
def test_a_token_that_only_its_user_can_read(home, joins):
    assert is_ok(checkup.token({"HOME": str(home.parents[1])}, joins=joins))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_token_that_others_can_read(home, mode):
    home.chmod(mode)
    finding = checkup.token({"HOME": str(home.parents[1])}, joins=False)
    assert is_wrong(finding, f"chmod 600 {home}", level=Level.WARNING)
    assert SECRET not in f"{finding}"


def test_authentication_switched_off(home):
    finding = checkup.token({"HOME": str(home.parents[1]), "RAY_AUTH_MODE": "disabled"}, joins=False)
    assert is_wrong(finding, "RAY_AUTH_MODE=disabled", "unset RAY_AUTH_MODE", level=Level.WARNING)


@pytest.mark.parametrize("content", [None, ""])
def test_a_token_path_without_a_token(content, home, tmp_path):
    given = tmp_path / "token"
    if content is not None:
        given.write_text(content)
    finding = checkup.token({"HOME": str(tmp_path), "RAY_AUTH_TOKEN_PATH": str(given)}, joins=False)
    assert is_wrong(finding, str(given), "unset RAY_AUTH_TOKEN_PATH")


def test_no_token_for_a_cluster_that_asks_for_one(tmp_path):
    environment = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    assert is_wrong(checkup.token(environment, joins=True), str(tmp_path / ".ray/auth_token"), "copy")
    assert is_ok(checkup.token(environment, joins=False))  # Ray makes one
    finding = checkup.token({**environment, "RAY_AUTH_TOKEN": SECRET}, joins=True)
    assert is_ok(finding)
    assert SECRET not in f"{finding}"


# Where results go.


@pytest.fixture(scope="module")
def made_store(tmp_path_factory):
    """A SQLite store, made by MLflow."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(made_store, tmp_path):
    return Path(shutil.copy(made_store, tmp_path))


def sql(file, *statements):
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_store_that_is_up_to_date(store):
    before = store.read_bytes()
    assert is_ok(checkup.tracking_store(f"sqlite:///{store}"))
    assert store.read_bytes() == before
    assert list(store.parent.iterdir()) == [store]


def test_a_store_that_does_not_exist_yet_is_not_made(tmp_path):
    finding = checkup.tracking_store(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert is_ok(finding)
    assert "will be made" in finding.found
    assert list(tmp_path.iterdir()) == []


def test_an_empty_database(tmp_path):
    (tmp_path / "empty.db").touch()
    assert is_ok(checkup.tracking_store(f"sqlite:///{tmp_path}/empty.db"))
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_a_store_of_an_older_mlflow(store):
    from alembic.script import ScriptDirectory

    migrations = Path(importlib.util.find_spec("mlflow").origin).parent / "store/db_migrations"
    older = list(ScriptDirectory(str(migrations)).walk_revisions())[5].revision
    sql(store, f"UPDATE alembic_version SET version_num = '{older}'")
    uri = f"sqlite:///{store}"
    assert is_wrong(checkup.tracking_store(uri), "older", f"mlflow db upgrade '{uri}'")
    connection = sqlite3.connect(store)
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]  # not migrated
    connection.close()


def test_a_store_of_a_newer_mlflow(store):
    sql(store, "UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert is_wrong(checkup.tracking_store(f"sqlite:///{store}"), "pip install --upgrade mlflow")


def test_a_database_of_another_program(tmp_path):
    sql(tmp_path / "other.db", "CREATE TABLE cats (name TEXT)")
    assert is_wrong(checkup.tracking_store(f"sqlite:///{tmp_path}/other.db"), "not an MLflow store", "--tracking-uri")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "junk.db").write_bytes(b"not a database" * 100)
    assert is_wrong(checkup.tracking_store(f"sqlite:///{tmp_path}/junk.db"), "not a database", "--tracking-uri")


def test_a_store_in_a_folder_that_cannot_be_written_to():
    assert is_wrong(checkup.tracking_store("sqlite:////proc/nowhere/mlflow.db"), "/proc/nowhere", "--tracking-uri")


@pytest.fixture
def no_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.mark.usefixtures("no_retries")
def test_a_server_that_answers():
    with server(200, b'{"experiments": []}') as port:
        assert is_ok(checkup.tracking_store(f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.usefixtures("no_retries")
def test_a_server_that_wants_other_credentials(status):
    with server(status, b"You are not authenticated.") as port:
        finding = checkup.tracking_store(f"http://me:{SECRET}@127.0.0.1:{port}")
    assert is_wrong(finding, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", f"http://me:***@127.0.0.1:{port}")
    assert SECRET not in f"{finding}"


@pytest.mark.usefixtures("no_retries")
def test_a_server_of_another_kind():
    with server(200, b"<title>Grafana</title>") as port:
        assert is_wrong(checkup.tracking_store(f"http://127.0.0.1:{port}"), str(port), "--tracking-uri")


@pytest.mark.usefixtures("no_retries")
def test_a_server_that_does_not_answer(closed_port):
    for scheme in ("http", "postgresql"):
        finding = checkup.tracking_store(f"{scheme}://me:{SECRET}@127.0.0.1:{closed_port}/x")
        assert is_wrong(finding, f"{scheme}://me:***@127.0.0.1:{closed_port}/x", "--tracking-uri")
        assert SECRET not in f"{finding}"
        assert "\n" not in finding.found


def test_a_folder_that_can_be_written_to(tmp_path):
    assert is_ok(checkup.writable("runs", tmp_path, mend=MEND))
    absent = checkup.writable("runs", tmp_path / "a" / "b", mend=MEND)
    assert is_ok(absent)
    assert "will be made" in absent.found
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "runs", Path("/proc/nowhere")):
        assert is_wrong(checkup.writable("runs", folder, mend=MEND), str(folder), MEND)


def test_a_full_disk(tmp_path):
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    free = shutil.disk_usage(tmp_path).free
    assert all(map(is_ok, checkup.disk({runs: free // 4, cache: free // 4})))
    # Each would fit, but they share a file system.
    (finding,) = checkup.disk({runs: free * 3 // 4, cache: free * 3 // 4})
    assert is_wrong(finding, str(runs), str(cache), "--runs")
    assert not list(tmp_path.iterdir())


def test_two_disks(tmp_path):
    findings = checkup.disk({Path("/proc/x"): 1, tmp_path: 1})
    assert [finding.level for finding in findings] == [Level.WRONG, Level.OK]  # /proc has no room at all


def test_an_asset_that_must_be_downloaded(tmp_path):
    file = tmp_path / "vgg16.safetensors"
    assert is_wrong(checkup.cached("vgg16", file, instead="take another"), "take another", level=Level.WARNING)
    file.touch()
    assert is_ok(checkup.cached("vgg16", file, instead="take another"))


# What computes.


@pytest.mark.parametrize(
    ("asked", "gpus", "build", "visible", "level", "part"),
    [
        ("cpu", 0, None, "", Level.OK, ""),
        ("auto", 0, "13.0", None, Level.OK, "there is no GPU"),
        ("auto", 2, "13.0", "0,1", Level.OK, "2"),
        ("cuda", 1, "13.0", None, Level.OK, "1"),
        ("auto", 0, "13.0", "", Level.WARNING, "unset CUDA_VISIBLE_DEVICES"),
        ("cuda", 0, "13.0", "", Level.WRONG, "unset CUDA_VISIBLE_DEVICES"),
        ("cuda", 0, "13.0", "-1", Level.WRONG, "unset CUDA_VISIBLE_DEVICES"),
        ("cuda", 0, None, None, Level.WRONG, "CUDA build"),
        ("cuda", 0, "13.0", None, Level.WRONG, "nvidia-smi"),
    ],
)
def test_the_device(asked, gpus, build, visible, level, part):
    finding = checkup.device(asked, gpus=gpus, build=build, visible=visible)
    assert part in f"{finding.found}; {finding.mend}"
    assert is_ok(finding) if level == Level.OK else is_wrong(finding, level=level)


def test_what_is_refused_becomes_a_line():
    def refuse():
        raise FileNotFoundError("no such\nfolder")

    assert is_wrong(checkup.attempt("faces", refuse, mend=MEND), "no such folder", MEND)
    assert is_ok(checkup.attempt("faces", lambda: "here", mend=MEND))


# A cluster.

HERE = NodeReport(
    name="here",
    python="3.11.7",
    versions={"torch": "2.15.0", "ray": "2.60.0", "mlflow": "3.17.2"},
    code="0123",
    clock=0.0,
    sees_runs=True,
)


@pytest.mark.parametrize(
    "same",
    [
        HERE,
        replace(HERE, clock=4.0),
        replace(HERE, clock=-4.0),
        replace(HERE, versions={**HERE.versions, "torch": "2.15.0+cu130"}),
    ],
)
def test_a_node_like_the_driver(same):
    assert is_ok(checkup.node(same, HERE, Path("/shared/runs")))


@pytest.mark.parametrize(
    ("faulty", "parts"),
    [
        (replace(HERE, python="3.12.1"), ["Python 3.12.1, here 3.11.7", "install Python 3.11.7"]),
        (replace(HERE, versions={**HERE.versions, "torch": "2.14.1"}), ["torch 2.14.1", "pip install torch==2.15.0"]),
        (replace(HERE, versions={**HERE.versions, "ray": "2.59.0"}), ["ray 2.59.0", "pip install ray==2.60.0"]),
        (
            replace(HERE, versions={"torch": "2.15.0", "ray": "2.60.0"}),
            ["mlflow missing", "pip install mlflow==3.17.2"],
        ),
        (replace(HERE, code="4567"), ["other source", "same commit"]),
        (replace(HERE, clock=6.0), ["clock +6 s", "chronyc"]),
        (replace(HERE, clock=-3600.0), ["clock -3600 s", "chronyc"]),
        (replace(HERE, sees_runs=False), ["does not see /shared/runs", "mount /shared/runs"]),
    ],
)
def test_a_faulty_node(faulty, parts):
    finding = checkup.node(replace(faulty, name="10.0.0.2"), HERE, Path("/shared/runs"))
    assert is_wrong(finding, "10.0.0.2: ", "on 10.0.0.2: ", *parts)
    assert ";" not in finding.found  # that fault and no other


def test_an_address_at_which_nothing_listens(closed_port):
    address = f"127.0.0.1:{closed_port}"
    assert is_wrong(checkup.head(address), f"nothing answers at {address}", "ray start --head")


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:port"])
def test_an_address_that_can_be_none(address):
    assert is_wrong(checkup.head(address), f"an address is HOST:PORT, got {address}", "ray start --head")


def test_an_address_of_another_program():
    with server(200, b"<title>Ray Dashboard</title>") as port:
        assert is_wrong(checkup.head(f"127.0.0.1:{port}"), "not the port of a Ray head", "ray start --head")


# What a person sees.

FINDINGS = [
    Finding(name="Python", level=Level.OK, found="3.11.7"),
    Finding(name="a rather long name", level=Level.WARNING, found="x" * 200, mend="y" * 200),
    Finding(name="store", level=Level.WRONG, found="several words " * 20, mend="[bold] isn't markup " * 5),
]


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_cut_off(terminal, width):
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)
    assert checkup.show(console, FINDINGS) == 1
    lines = console.file.getvalue().splitlines()
    assert not terminal or max(map(len, lines)) <= width
    assert terminal or len(lines) == len(FINDINGS) + 1
    printed = "".join("".join(lines).split())
    for finding in FINDINGS:
        for text in (finding.level, finding.found, finding.mend):
            assert "".join(text.split()) in printed
    assert lines[-1].strip() == "1 ok, 1 warning, 1 wrong"


def test_warnings_are_not_wrong():
    assert checkup.show(Console(file=StringIO()), FINDINGS[:2]) == 0


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_", "CUDA_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **changes}


def doctor(*arguments, cwd=ROOT, **changes):
    return subprocess.run(
        [sys.executable, "-m", "sweeps.doctor", *map(str, arguments)],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
    )


def doctor_in_terminal(*arguments, columns, **changes):
    """Exit code and what a terminal of that width is sent."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "sweeps.doctor", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(**changes), stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        sent = bytearray()
        try:
            while part := os.read(ours, 4096):
                sent += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return process.returncode, sent.decode()


def faces_options(folder):
    held_out = ["--set", "data.test_faces=4", "--set", "data.validation_faces=4"]
    return ["--train-faces", folder, "--test-faces", f"Made up={folder}", *held_out]


def test_a_good_setup(faces_folder, cache, tmp_path):
    faces = faces_options(faces_folder)
    changes = {"WHETSTONE_CACHE": str(cache), "HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": "-1"}
    before = sorted(cache.rglob("*"))
    done = doctor("--runs", tmp_path / "runs", "--device", "cpu", *faces, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, counts = done.stdout.splitlines()
    assert counts.endswith(", 0 wrong")
    assert all(line.startswith(("ok  ", "warning  ")) for line in lines)
    names = [line.split(maxsplit=1)[1].partition(":")[0] for line in lines]
    assert names == [
        *("own packages", "Python", "packages", "dashboard", "dashboard port", "token", "tracking store"),
        *("runs", "lock", "cache", "faces", "vgg16", "device", "resources", "training", "disk"),
    ]
    assert f"{faces_folder}: 24 images" in done.stdout
    assert not (tmp_path / "runs").exists()
    assert not list(tmp_path.rglob("*.db"))
    assert sorted(cache.rglob("*")) == before


def test_a_bad_setup_in_a_terminal_of_80_columns(tmp_path, closed_port):
    (tmp_path / "empty").mkdir()
    address = f"127.0.0.1:{closed_port}"
    code, sent = doctor_in_terminal(
        *("--runs", "/proc/nowhere", "--tracking-uri", f"http://me:{SECRET}@{address}", "--seeds", "2"),
        *("--train-faces", tmp_path / "empty", "--address", address, "--preset", "paper"),
        columns=80,
        WHETSTONE_CACHE=str(tmp_path / "cache"),
        HOME=str(tmp_path),
        RAY_AUTH_MODE="token",
        TERM="xterm",
    )
    sent = re.sub(r"\x1b\[[0-9;]*m", "", sent)
    assert code == 1, sent
    assert "Traceback" not in sent
    assert SECRET not in sent
    lines = sent.splitlines()
    assert max(map(len, lines)) <= 80
    wrong = [line.removeprefix("wrong").strip() for line in lines if line.startswith("wrong")]
    for name in ("token", "tracking store", "runs", "faces", "cluster"):
        assert any(line.startswith(name) for line in wrong), sent
    assert len(wrong) == sum("mend: " in line for line in lines) - sum(line.startswith("warning") for line in lines)


@pytest.fixture
def request_of(tmp_path, monkeypatch):
    """`tiny.request` in an environment with nothing of its own."""
    monkeypatch.setenv("WHETSTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    return partial(tiny.request, tmp_path)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"cpus_per_trial": 1000}, ["resources", "--cpus-per-trial must be at most"]),
        ({"gpus_per_trial": 0.5}, ["resources", "--gpus-per-trial must be at most 0"]),
        ({"train_faces": "nowhere"}, ["faces", "nowhere"]),
        ({"test_faces": ("../up=/tmp",)}, ["faces", "letters"]),
        ({"device": "cuda"}, ["device", "unset CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_what_the_sweep_would_refuse(changes, parts, request_of, tmp_path):
    findings = list(examine(request_of(**changes), seeds=[1]))
    (wrong,) = [finding for finding in findings if finding.level == Level.WRONG]
    assert is_wrong(wrong, *parts[1:])
    assert wrong.name == parts[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "has_bfloat16", "words"),
    [
        ({"precision": "float32"}, True, "float32"),
        ({"precision": "bfloat16", "fused": False}, True, "bfloat16, not fused"),
        ({}, True, "bfloat16"),
        ({}, False, "float32"),
    ],
)
def test_how_it_would_train(changes, has_bfloat16, words, request_of, monkeypatch):
    machine = replace(this_machine(), cpu_bfloat16=has_bfloat16)
    monkeypatch.setattr("sweeps.launch.this_machine", lambda: machine)
    (training,) = [finding for finding in examine(request_of(**changes), seeds=[1]) if finding.name == "training"]
    assert is_ok(training)
    assert training.found == words


def test_a_precision_that_the_processor_lacks_is_a_warning(request_of, monkeypatch, capsys):
    machine = replace(this_machine(), cpu_bfloat16=False)
    monkeypatch.setattr("sweeps.launch.this_machine", lambda: machine)
    request = request_of(precision="bfloat16")
    (training,) = [finding for finding in examine(request, seeds=[1]) if finding.name == "training"]
    assert is_wrong(training, "bfloat16 is not known to be", "leave --precision out", level=Level.WARNING)
    capsys.readouterr()
    Launch(request).say_where()
    assert f"{training.found}." in capsys.readouterr().out
    Launch(replace(request, precision="auto")).say_where()
    assert "not known" not in capsys.readouterr().out


def test_compiling_takes_a_compiler(request_of, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (training,) = [finding for finding in examine(request_of(compiled=True), seeds=[1]) if finding.name == "training"]
    assert is_wrong(training, "no-such-compiler")
    assert "--compile" in training.mend


def test_too_few_faces(request_of, faces_folder):
    findings = examine(request_of(train_faces=str(faces_folder)), seeds=[1])
    (wrong,) = [finding for finding in findings if finding.level == Level.WRONG]
    assert is_wrong(wrong, "more than the 150 faces that are held out", "got 24")


def test_weights_of_a_search(request_of, tmp_path):
    file = tmp_path / "weights.json"

    def finding(**request):
        found = examine(request_of(**request), seeds=[1], weights=file)
        return next(each for each in found if each.name == "weights")

    assert is_wrong(finding(), "No such file")
    file.write_text('{"preset": "paper", "seed": 1, "rows": {}}')
    assert is_wrong(finding(), "one of preset 'paper'")
    row = {"values": {"losses.perceptual": 0.1}, "metric": "m", "value": 1.0, "trials": 2, "search": "s"}
    file.write_text(json.dumps({"preset": "quick", "seed": 1, "rows": {"none": row}}))
    assert is_wrong(finding(), "'none'")
    file.write_text(json.dumps({"preset": "quick", "seed": 1, "rows": {"loss-perceptual": row}}))
    assert is_ok(finding())
    assert is_wrong(finding(assignments=("losses.perceptual=0.2",)), "--set", "got losses.perceptual")


def test_another_sweep_in_the_same_folder(request_of, tmp_path):
    with only_driver(tmp_path / "runs"):
        findings = examine(request_of(), seeds=[1])
        (wrong,) = [finding for finding in findings if finding.level == Level.WRONG]
        assert is_wrong(wrong, str(tmp_path / "runs"), f"process {os.getpid()} on ")
    assert is_ok(checkup.lock(tmp_path / "runs"))


def test_a_runs_folder_that_is_a_file(request_of, tmp_path):
    (tmp_path / "runs").touch()
    findings = list(examine(request_of(), seeds=[1]))
    assert "disk" in [finding.name for finding in findings]
    assert {finding.name for finding in findings if finding.level == Level.WRONG} == {"tracking store", "runs"}


def test_assets_that_the_sweep_would_download(request_of):
    absent = {finding.name for finding in examine(request_of(), seeds=[1]) if finding.level == Level.WARNING}
    assert absent == {"celeba-sample", "vgg16"}


def test_more_seeds_need_more_disk(request_of):
    def needed(seeds):
        (finding,) = [each for each in examine(request_of(), seeds=seeds) if each.name == "disk"]
        return float(re.search(r"about ([\d.]+) GiB", finding.found)[1])

    assert needed(range(1, 201)) > needed([1]) + 1


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "object_store_memory": 100 * 2**20})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_a_real_cluster(faces_folder, cache, tmp_path):
    changes = environment(HOME=str(tmp_path), PYTHONPATH=str(ROOT), RAY_USAGE_STATS_ENABLED="0")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=changes, **pipes) as cluster:
        address = cluster.stdout.readline().strip()
        faces = faces_options(faces_folder)
        options = [
            "--address",
            address,
            "--runs",
            tmp_path / "runs",
            "--device",
            "cpu",
            "--cpus-per-trial",
            "3",
            *faces,
        ]
        done = doctor(*options, WHETSTONE_CACHE=str(cache), HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok       cluster: {address}, nodes: 1" in done.stdout
    assert re.search(r"^ok       node: .*: as here$", done.stdout, re.MULTILINE)
    assert "trials at once: 1; each has cores: 3" in done.stdout  # the cluster's, not this machine's
    assert not (tmp_path / "runs").exists()


def test_a_usage_error_is_not_a_finding():
    done = doctor("table")
    assert done.returncode == 2
    assert done.stderr.startswith("error: study must be one of tables")

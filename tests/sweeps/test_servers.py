"""Sweeps whose results go to a real MLflow server: with PostgreSQL behind it, and with users and passwords."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mlflow import MlflowClient
from nodes import HEAD, LIMIT, ray_node, wait_for
from tiny import command, missing, options, python

PASSWORD = "correct-horse-battery"
PLACES = 4


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def program_of_postgresql(name):
    """Debian keeps these outside the PATH."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    return found or missing(f"{name} is not installed: apt-get install postgresql")


@pytest.fixture(scope="module")
def postgresql():
    """Port of a PostgreSQL of its own, whose user `mlflow` has the password."""
    initdb, server = program_of_postgresql("initdb"), program_of_postgresql("postgres")
    psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install psycopg2-binary")
    # It refuses to run as root, and another user can't enter pytest's folders.
    user = "nobody" if os.geteuid() == 0 else os.geteuid()
    port = free_port()
    with TemporaryDirectory() as folder:
        shutil.chown(folder, user)
        password = Path(folder) / "password"
        password.write_text(PASSWORD)
        who = ["--username=mlflow", f"--pwfile={password}", "--auth=scram-sha-256"]
        subprocess.run(
            [initdb, "-D", f"{folder}/data", *who, "--no-sync", "--no-locale", "--encoding=UTF8"],
            user=user,
            check=True,
            capture_output=True,
        )
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                [server, "-D", f"{folder}/data", "-p", str(port), *(f"--{setting}" for setting in settings)],
                user=user,
                stdout=log,
                stderr=log,
            )
        try:

            def answers():
                assert process.poll() is None, (Path(folder) / "log").read_text()
                try:
                    psycopg2.connect(f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}/postgres").close()
                except psycopg2.OperationalError:
                    return False
                return True

            wait_for(answers, "PostgreSQL")
            yield port
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT)


@contextmanager
def tracking_server(folder, store, *more, **environment):
    """A real `mlflow server` over a store, artifacts through it; yields its address."""
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    behind = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *where, *behind, *more],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers():
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200
        except urllib.error.URLError:
            return False

    try:
        wait_for(answers, "the MLflow server")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(LIMIT)


def report(cache, uri, out, **environment):
    given = command(cache, "analysis", "report", "--tracking-uri", uri, "--out", out)
    return subprocess.run(**{**given, "env": {**given["env"], **environment}}, capture_output=True)


@pytest.fixture(scope="module")
def swept(postgresql, cache, faces_folder, tmp_path_factory):
    """Address of a server over PostgreSQL after a sweep on a cluster of four cores, and the folder of its files."""
    folder, runs = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("swept") / "runs"
    store = f"postgresql+psycopg2://mlflow@127.0.0.1:{postgresql}/postgres"
    with (
        tracking_server(folder, store, PGPASSWORD=PASSWORD) as uri,
        ray_node(tmp_path_factory.mktemp("ray"), ip=HEAD, cpus=PLACES) as head,
    ):
        places = ["--seeds", "2", "--address", head.address, "--cpus-per-trial", "1"]
        arguments = [*options(faces_folder, runs), *places, "--tracking-uri", uri]
        done = python(cache, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "10 stages trained (160 steps), 1 only evaluated" in done.stdout
        yield uri, folder, runs


def test_all_runs_end_and_four_are_open_at_once(swept):
    client = MlflowClient(swept[0])
    runs = client.search_runs([client.get_experiment_by_name("tables").experiment_id])
    assert Counter(run.info.status for run in runs) == {"FINISHED": 11}
    spans = [(run.info.start_time, run.info.end_time) for run in runs]
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == PLACES


def test_models_are_registered_with_the_server_and_linked_once(swept):
    client = MlflowClient(swept[0])
    versions = client.search_model_versions()
    assert Counter(version.name for version in versions) == dict.fromkeys(
        ["scales-1", "scales-2", "multi-task", "loss-perceptual", "loss-adversarial"], 2
    )
    for version in versions:
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        [link] = json.loads(model.tags["mlflow.modelVersions"])
        assert (link["name"], str(link["version"])) == (version.name, str(version.version))


def test_runs_are_in_postgresql_and_artifacts_with_the_server(swept, postgresql):
    _, folder, runs = swept
    psycopg2 = pytest.importorskip("psycopg2")
    connection = psycopg2.connect(f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{postgresql}/postgres")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT status, count(*) FROM runs GROUP BY status")
        assert cursor.fetchall() == [("FINISHED", 11)]
    connection.close()
    assert len(list(folder.glob("artifacts/**/weights.safetensors"))) == 10
    assert not (runs / "artifacts").exists()
    assert not (runs / "mlflow.db").exists()


def test_the_report_reads_from_the_server(swept, cache, tmp_path):
    done = report(cache, swept[0], tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "tables-quick.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 2 * 4 * 2  # tables, rows, metrics
    for cell in cells:
        assert cell["status"] == "complete"
        assert float(cell["mean"]) > 0
        assert cell["seeds"] == ("" if cell["row"] == "blurred" else "1 2")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Address of a server that asks for a password."""
    pytest.importorskip("flask_wtf", reason="Flask-WTF is not installed: pip install 'mlflow[auth]'")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndatabase_uri = sqlite:///{folder / 'users.db'}\nadmin_username = admin\ndefault_permission = READ\n"
        "auth_cache_ttl_seconds = 60\n"  # else every request takes the time of a password's hash
    )
    secrets = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test",
    }
    with tracking_server(folder, f"sqlite:///{folder / 'mlflow.db'}", "--app-name", "basic-auth", **secrets) as uri:
        yield uri


def sweep(cache, faces, runs, uri, **environment):
    given = command(cache, *options(faces, runs), "--engine", "in-process", "--tracking-uri", uri)
    return subprocess.run(**{**given, "env": {**given["env"], **environment}}, capture_output=True)


def with_user(uri, password):
    return uri.replace("://", f"://admin:{password}@")


REFUSED = "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD), got 401"


@pytest.mark.parametrize("password", [None, "hunter2-hunter2"], ids=["no", "wrong"])
def test_without_credentials_there_is_one_line(guarded, cache, faces_folder, tmp_path, password):
    uri = with_user(guarded, password) if password else guarded
    for done in (sweep(cache, faces_folder, tmp_path / "runs", uri), report(cache, uri, tmp_path / "report")):
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert REFUSED in line
        assert guarded.removeprefix("http://") in line
        assert "Traceback" not in done.stdout
        assert not password or password not in done.stdout + done.stderr
    assert not (tmp_path / "report").exists()


def test_with_credentials_a_sweep_and_its_report_work(guarded, cache, faces_folder, tmp_path):
    user = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    done = sweep(cache, faces_folder, tmp_path / "runs", guarded, **user)
    assert done.returncode == 0, done.stderr
    assert "5 stages trained (80 steps)" in done.stdout
    # A name and a password in the address do as well, and the password is shown nowhere.
    uri = with_user(guarded, PASSWORD)
    again = sweep(cache, faces_folder, tmp_path / "runs", uri)
    assert again.returncode == 0, again.stderr
    assert "Nothing to train: all 6 stages are in the store already." in again.stdout
    reported = report(cache, uri, tmp_path / "report")
    assert reported.returncode == 0, reported.stderr
    shown = "".join(each.stdout + each.stderr for each in (done, again, reported))
    assert "admin:***@" in shown
    assert PASSWORD not in shown
    for file in (*tmp_path.glob("report/*"), *tmp_path.glob("runs/**/*")):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


def test_the_password_of_a_server_that_is_gone_is_not_shown(cache, faces_folder, tmp_path):
    uri = f"http://admin:{PASSWORD}@127.0.0.1:{free_port()}"
    for done in (sweep(cache, faces_folder, tmp_path / "runs", uri), report(cache, uri, tmp_path / "report")):
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "admin:***@" in line
        assert PASSWORD not in done.stdout + done.stderr

"""The services of compose.yaml, as far as can be checked without a container engine."""

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import mlflow.environment_variables
import pytest
import sqlalchemy
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docker"
README = (FOLDER / "README.md").read_text()
SECRETS = ["POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY", "RAY_AUTH_TOKEN"]
NODES = ["ray-head", "ray-worker", "ablation"]

compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
services = compose["services"]


@pytest.fixture(scope="module")
def program(tool):
    """Compose 2 where it is installed, else Debian's docker-compose; neither needs an engine to check a file."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return [tool("docker-compose", "apt-get install docker-compose")]


@pytest.fixture(scope="module")
def config(program):
    """A function that has Compose check and resolve the given files, with exactly these variables set."""

    def run(variables, *files, cwd=FOLDER):
        environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
        chosen = [word for file in files for word in ("--file", file)]
        command = [*program, *chosen, "--profile", "run", "config"]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder, without anyone's .env."""
    return Path(shutil.copytree(FOLDER, tmp_path / "docker", ignore=shutil.ignore_patterns(".env")))


def commands_of_the_readme(start):
    return [shlex.split(line, comments=True) for line in re.findall(rf"^    {start} ?(.*)$", README, re.MULTILINE)]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]], ids=" ".join)
def test_compose_accepts_the_files(config, folder, files):
    done = config(dict.fromkeys(SECRETS, "secret"), *files, cwd=folder)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    assert resolved.keys() == services.keys()
    assert ("resources" in resolved["ray-worker"]["deploy"]) == ("compose.gpu.yaml" in files)
    assert "/faces" in str(resolved["ray-worker"]["volumes"])


def test_choices_reach_the_services(config, folder):
    chosen = {"RAY_WORKERS": "3", "RAY_WORKER_CPUS": "2", "FACES": "/data/my faces", "TARGET": "cpu"}
    done = config({**dict.fromkeys(SECRETS, "secret"), **chosen}, "compose.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    worker = yaml.safe_load(done.stdout)["services"]["ray-worker"]
    assert worker["deploy"]["replicas"] == 3
    assert float(worker["cpus"]) == 2
    assert worker["image"] == "whetstone:cpu"
    assert "/data/my faces" in str(worker["volumes"])


@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_starts_without_a_secret(config, folder, secret):
    done = config({name: "secret" for name in SECRETS if name != secret}, "compose.yaml", cwd=folder)
    assert done.returncode != 0
    assert "set it in .env" in done.stderr


def test_the_script_makes_the_env_file_that_compose_reads_once(config, folder):
    assert "\n    sh secrets.sh\n" in README
    subprocess.run(["sh", folder / "secrets.sh"], check=True)
    before = (folder / ".env").read_bytes()
    assert subprocess.run(["sh", folder / "secrets.sh"]).returncode == 1
    assert (folder / ".env").read_bytes() == before
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", (folder / ".env").read_text(), re.MULTILINE))
    assert values.pop("COMPOSE_PROJECT_NAME") == "whetstone"
    assert values.keys() == set(SECRETS)
    assert len(set(values.values())) == len(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values.values())
    done = config({}, "compose.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert values["RAY_AUTH_TOKEN"] in done.stdout


def test_the_env_file_is_not_committed():
    assert ".env" in (FOLDER / ".gitignore").read_text().split()


def test_every_variable_is_named_in_the_example():
    used = set(re.findall(r"\$\{(\w+):", (FOLDER / "compose.yaml").read_text()))
    named = set(re.findall(r"^#?([A-Z_]+)=", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    assert used == named - {"COMPOSE_PROJECT_NAME", "COMPOSE_FILE"}


@pytest.mark.parametrize(("service", "option"), [("mlflow", "port"), ("ray-head", "dashboard_port")])
def test_the_port_a_server_listens_on_is_published_on_loopback_only(parse, service, option):
    port = parse(services[service]["command"])[option]
    assert services[service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/" in services[service]["healthcheck"]["test"][-1]


def test_nothing_else_is_published():
    assert {name for name, service in services.items() if "ports" in service} == {"mlflow", "ray-head"}
    assert not any("network_mode" in service for service in services.values())


def test_the_server_answers_to_the_names_that_are_used(parse):
    from mlflow.server.security_utils import is_allowed_host_header

    allowed = parse(services["mlflow"]["command"])["allowed_hosts"].split(",")
    tracking = urlsplit(services["ablation"]["environment"]["MLFLOW_TRACKING_URI"])
    assert tracking.hostname in services
    for host in (tracking.netloc, "127.0.0.1:5000", "localhost:5000"):
        assert is_allowed_host_header(allowed, host)
    assert not is_allowed_host_header(allowed, "elsewhere.example:5000")


def test_the_server_keeps_runs_users_and_artifacts_in_the_services_beside_it(parse):
    options = parse(services["mlflow"]["command"])
    users = configparser.ConfigParser()
    users.read(FOLDER / "basic_auth.ini")
    store = sqlalchemy.make_url(options["backend_store_uri"])
    assert store == sqlalchemy.make_url(users["mlflow"]["database_uri"])
    # SQLAlchemy 2.1 takes a bare postgresql:// to mean another driver than the one that MLflow's users install.
    assert (store.get_driver_name(), store.host, store.password) == ("psycopg2", "postgres", None)
    assert store.username == services["postgres"]["environment"]["POSTGRES_USER"] == store.database
    assert options["serve_artifacts"]
    assert options["artifacts_destination"] == f"s3://{services['bucket']['command'][-1]}"
    assert urlsplit(services["mlflow"]["environment"]["MLFLOW_S3_ENDPOINT_URL"]).hostname == "minio"
    assert options["app_name"] == "basic-auth"


def test_mlflow_knows_its_settings():
    settings = {name for each in services.values() for name in each.get("environment", {}) if name.startswith("MLFLOW")}
    assert len(settings) >= 7
    assert all(hasattr(mlflow.environment_variables, name) for name in settings)


def test_mlflow_reads_the_users_file(package):
    package("flask_wtf", "pip install 'mlflow[auth]'")
    code = "from mlflow.server.auth.config import read_auth_config; print(*read_auth_config())"
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(FOLDER / "basic_auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": "from-outside"}
    settings["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "key"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    assert "READ postgresql+psycopg2://mlflow@postgres/mlflow admin from-outside" in done.stdout


def test_all_nodes_share_the_token_the_folders_and_the_image():
    assert services.keys() - {"postgres", "minio", "bucket", "mlflow"} == set(NODES)
    for name in NODES:
        node = services[name]
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
        assert node["volumes"] == services["ray-head"]["volumes"]
        assert node["image"] == services["ray-head"]["image"]


def test_workers_join_the_head_and_the_head_trains_nothing(parse):
    head, worker = parse(services["ray-head"]["command"]), parse(services["ray-worker"]["command"])
    assert (head["head"], head["num_cpus"], head["num_gpus"]) == (True, 0, 0)
    assert worker["address"] == f"ray-head:{head['port']}" == services["ablation"]["environment"]["RAY_ADDRESS"]
    assert (worker["num_cpus"], worker["num_gpus"]) == (None, None)  # all that there are
    assert (head["block"], worker["block"]) == (True, True)
    memory = int(services["ray-head"]["shm_size"].removesuffix("gb")) * 2**30
    assert head["object_store_memory"] == worker["object_store_memory"] < memory


@pytest.fixture
def stub_ray(tmp_path):
    """A folder with a `ray` that notes its arguments, and leaves with the exit code in STATUS."""
    stub = tmp_path / "bin" / "ray"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" ray "$@" > {tmp_path}/noted\nexit "$STATUS"\n')
    stub.chmod(0o755)
    return stub.parent


def join(stub_ray, *command, status=0):
    """Run the sweep's entry point with the stub, as the engine would."""
    entrypoint = [word.replace("$$", "$") for word in services["ablation"]["entrypoint"]]
    environment = {"PATH": f"{stub_ray}:{os.environ['PATH']}", "STATUS": str(status), "RAY_ADDRESS": "ray-head:6379"}
    return subprocess.run([*entrypoint, *command], env=environment, capture_output=True, text=True)


def test_the_sweeps_container_becomes_a_node_without_resources_and_runs_the_command_as_given(parse, stub_ray):
    done = join(stub_ray, "printf", "<%s>", "--runs", "a folder", "$HOME")
    assert done.stdout == "<--runs><a folder><$HOME>"
    options = parse((stub_ray.parent / "noted").read_text().splitlines())
    assert (options["address"], options["num_cpus"], options["num_gpus"]) == ("ray-head:6379", 0, 0)
    assert not options["head"]


def test_no_sweep_starts_when_the_cluster_refuses(stub_ray):
    done = join(stub_ray, "echo", "swept", status=1)
    assert done.returncode == 1
    assert done.stdout == ""


def test_what_is_waited_for_can_be_waited_for():
    waits = [(on, how["condition"]) for each in services.values() for on, how in each.get("depends_on", {}).items()]
    assert len(waits) == 7
    for on, condition in waits:
        assert ("healthcheck" in services[on]) == (condition == "service_healthy")
        assert ("restart" in services[on]) == (condition != "service_completed_successfully")


def test_volumes_are_declared_and_those_of_the_nodes_belong_to_the_user():
    mounts = [mount.split(":", 1) for service in services.values() for mount in service.get("volumes", [])]
    named = {volume for volume, _ in mounts if not volume.startswith("$")} | {"faces"}
    assert named == compose["volumes"].keys()
    dockerfile = (FOLDER / "Dockerfile").read_text()
    owned = re.search(r"install --directory --owner=whetstone --group=whetstone (.*)", dockerfile)[1].split()
    assert {mount.split(":")[1] for mount in services["ablation"]["volumes"] if "faces" not in mount} == set(owned)


def test_the_sweep_writes_to_its_volumes(parse):
    mounts = dict(mount.split(":", 1) for mount in services["ablation"]["volumes"] if "faces" not in mount)
    dockerfile = (FOLDER / "Dockerfile").read_text()
    [home] = re.findall(r"^WORKDIR (.*)$", dockerfile, re.MULTILINE)
    assert mounts["runs"] == f"{home}/{parse(services['ablation']['command'])['runs']}"
    assert f"WHETSTONE_CACHE={mounts['cache']}\n" in dockerfile


@pytest.fixture
def object_store():
    """An S3 store that knows enough to list and make buckets: (its address, the buckets, the requests made)."""
    buckets, requests = ["other"], []

    class Store(BaseHTTPRequestHandler):
        def answer(self, body=""):
            requests.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self):
            entries = "".join(f"<Bucket><Name>{name}</Name></Bucket>" for name in buckets)
            self.answer(f"<ListAllMyBucketsResult><Buckets>{entries}</Buckets></ListAllMyBucketsResult>")

        def do_PUT(self):
            buckets.append(self.path.strip("/"))
            self.answer()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", buckets, requests
        server.shutdown()


def test_the_bucket_is_made_once(package, object_store):
    package("boto3", "pip install boto3")
    address, buckets, requests = object_store
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    settings = {name: services["bucket"]["environment"][name] for name in names} | {"MLFLOW_S3_ENDPOINT_URL": address}
    for _ in range(2):
        command = [sys.executable, *services["bucket"]["command"][1:]]
        done = subprocess.run(command, cwd=FOLDER, env={**os.environ, **settings}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert buckets == ["other", "mlflow"]
    assert [request.split()[0] for request in requests] == ["GET", "PUT", "GET"]


@pytest.mark.parametrize("command", commands_of_the_readme("docker compose run --rm ablation"), ids=" ".join)
def test_the_readmes_commands_have_options_that_exist(parse, command):
    parse(command or services["ablation"]["command"])

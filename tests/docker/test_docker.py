"""The image and the services, as far as can be checked without a container engine: what they name must exist."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
import warnings
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
README = (ROOT / "docker" / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

compose = yaml.safe_load(COMPOSE.read_text())
services = compose["services"]


def arguments(name):
    """Arguments of the Dockerfile's instructions of that name."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [rest for instruction, rest in lines if instruction == name]


def build_context():
    """What .dockerignore lets through: everything is ignored, then single entries are not."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


def readme_commands():
    """The words that follow `docker compose run ... ablation` in the README, where they are a command of ours."""
    lines = re.findall(r"^    docker compose run .*?\bablation (python .+|analysis .+)$", README, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def readme_override():
    return re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]


def shell_words(command):
    """A service's command; of `sh -c`, what it ends up executing."""
    return shlex.split(command[2].split("exec ")[1]) if command[:2] == ["sh", "-c"] else command


def parse(command):
    """Have a command's own program read its options; nothing is run. Raises for an unknown one."""
    match command:
        case ["python", "-m", "sweeps.ablation", *options]:
            from sweeps.ablation import main as program
        case ["analysis", name, *options]:
            from analysis.cli import main

            program = main.commands[name]
        case ["mlflow", "server", *options]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MLflow's own, when its server is imported
                from mlflow.cli import server as program
        case ["ray", "start", *options]:
            from ray.scripts.scripts import start as program
        case _:
            raise AssertionError(f"no test knows the command {command}")
    return program.make_context(program.name, list(options)).params


def command_of(service):
    return parse(shell_words(services[service]["command"]))


def compose_tool():
    """Compose 2 or newer; its `config` needs no engine. (Version 1 rejects the `name` of a project.)"""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            version = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
            if version.returncode == 0 and not version.stdout.startswith("1."):
                return command
    pytest.skip("Docker Compose 2 is not installed")


def test_compose_accepts_the_file_and_the_readmes_override(tmp_path):
    override = tmp_path / "compose.override.yaml"
    override.write_text(readme_override())
    files = ["--file", str(COMPOSE), "--file", str(override)]
    command = [*compose_tool(), *files, "--profile", "run", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == services.keys()


@pytest.mark.parametrize(("service", "option"), [("mlflow", "port"), ("ray-head", "dashboard_port")])
def test_the_port_a_server_listens_on_is_published_on_loopback_only(service, option):
    port = command_of(service)[option]
    assert services[service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/" in services[service]["healthcheck"]["test"][-1]


def test_nothing_else_is_published():
    assert {name for name, service in services.items() if "ports" in service} == {"mlflow", "ray-head"}


def test_the_server_answers_to_the_names_that_are_used():
    allowed = command_of("mlflow")["allowed_hosts"].split(",")
    from mlflow.server.security_utils import is_allowed_host_header

    tracking = urlsplit(services["ablation"]["environment"]["MLFLOW_TRACKING_URI"])
    assert tracking.hostname in services
    for host in (tracking.netloc, "127.0.0.1:5000", "localhost:5000"):
        assert is_allowed_host_header(allowed, host)
    assert not is_allowed_host_header(allowed, "elsewhere.example:5000")


def test_the_server_keeps_everything_on_its_volume():
    options = command_of("mlflow")
    assert options["serve_artifacts"]
    [folder] = [mount.split(":")[1] for mount in services["mlflow"]["volumes"]]
    assert options["backend_store_uri"].startswith(f"sqlite:///{folder}/")
    assert options["artifacts_destination"].startswith(f"{folder}/")


def test_ray_has_made_a_token_before_it_starts(tmp_path):
    head = services["ray-head"]
    assert head["environment"]["RAY_AUTH_MODE"] == "token"
    before, _ = head["command"][2].split("exec ray start")
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    environment = {**os.environ, **head["environment"], "HOME": str(tmp_path), "PATH": path}
    # `true` stands for the start that the shell would go on to.
    subprocess.run(["sh", "-c", f"{before} true"], env=environment, check=True, capture_output=True)
    assert (tmp_path / ".ray" / "auth_token").read_text().strip()


def test_the_sweep_waits_for_services_that_have_a_healthcheck():
    assert all("healthcheck" in services[name] for name in services["ablation"]["depends_on"])


def test_volumes_are_declared_and_belong_to_the_user():
    mounts = [mount.split(":") for service in services.values() for mount in service["volumes"]]
    assert {volume for volume, _ in mounts} == compose["volumes"].keys()
    [user] = arguments("USER")
    [made] = [line for line in arguments("RUN") if f"install --directory --owner={user}" in line]
    assert {folder for _, folder in mounts} <= set(made.split())


def test_the_sweep_writes_to_its_volumes():
    mounts = dict(mount.split(":") for mount in services["ablation"]["volumes"])
    [home] = arguments("WORKDIR")
    assert mounts["runs"] == f"{home}/{command_of('ablation')['runs']}"
    assert f"WHETSTONE_CACHE={mounts['cache']}" in " ".join(arguments("ENV")).split()


def test_the_image_holds_what_the_project_installs():
    project, setuptools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    copied = {name for line in arguments("COPY") for name in line.split()[:-1]} - {"."}
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *setuptools["packages"], *copied}
    assert build_context() == needed
    assert all((ROOT / name).exists() for name in needed)


def test_the_base_image_has_a_python_that_is_supported():
    [base] = arguments("FROM")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(re.match(r"python:([\d.]+)", base)[1])


@pytest.mark.parametrize("command", readme_commands(), ids=" ".join)
def test_the_readmes_commands_have_options_that_exist(command):
    parse(command)

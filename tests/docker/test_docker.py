"""The image and the services, as far as can be checked without a container engine: what they name must exist."""

import json
import re
import shlex
import shutil
import subprocess
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


def instructions():
    """The Dockerfile as (instruction, arguments) pairs."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def arguments(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def build_context():
    """What .dockerignore lets through: everything is ignored, then single entries are not."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    return {line[1:] for line in lines if line.startswith("!")}


def readme_commands():
    """The words of each `docker compose` line of the README, up to a pipe."""
    lines = re.findall(r"^    docker compose (.+?)(?: \| .*)?$", README, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def readme_override():
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])


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
    override.write_text(yaml.safe_dump(readme_override()))
    files = ["--file", str(COMPOSE), "--file", str(override)]
    command = [*compose_tool(), *files, "--profile", "run", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == services.keys()


def test_the_readmes_override_gives_the_sweep_a_gpu():
    (name, override), *others = readme_override()["services"].items()
    assert not others
    assert name == "ablation"
    assert override["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_services_run_the_one_image_that_is_built_here():
    built = {json.dumps([service["image"], service["build"]]) for service in services.values()}
    assert len(built) == 1
    build = services["ablation"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_published_ports_are_local_and_listened_on():
    published = {name: port for name, service in services.items() for port in service.get("ports", [])}
    assert published.keys() == {"mlflow", "ray-head"}
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published.values())
    for name, listening in (("mlflow", "port"), ("ray-head", "dashboard_port")):
        port = published[name].rsplit(":")[-1]
        assert command_of(name)[listening] == int(port)
        assert f"http://127.0.0.1:{port}/" in services[name]["healthcheck"]["test"][-1]
        assert f"<http://127.0.0.1:{port}>" in README


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
    [(volume, folder)] = [mount.split(":") for mount in services["mlflow"]["volumes"]]
    assert volume == "mlflow"
    assert options["backend_store_uri"].startswith(f"sqlite:///{folder}/")
    assert options["artifacts_destination"].startswith(f"{folder}/")


def test_ray_does_not_start_without_a_token():
    assert services["ray-head"]["environment"]["RAY_AUTH_MODE"] == "token"
    assert services["ray-head"]["command"][2].startswith("ray get-auth-token --generate")


def test_the_sweep_waits_for_a_service_that_has_a_healthcheck():
    for name, condition in services["ablation"]["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in services[name]


def test_volumes_are_declared_and_belong_to_the_user():
    mounts = [mount.split(":") for service in services.values() for mount in service["volumes"]]
    assert {volume for volume, _ in mounts} == compose["volumes"].keys()
    [made] = [line for line in arguments("RUN") if "install --directory --owner=whetstone" in line]
    assert {folder for _, folder in mounts} <= set(made.split())
    assert arguments("USER") == ["whetstone"]


def test_the_sweep_writes_to_its_volumes():
    mounts = dict(mount.split(":") for mount in services["ablation"]["volumes"])
    [home] = arguments("WORKDIR")
    assert mounts["runs"] == f"{home}/{command_of('ablation')['runs']}"
    assert f"WHETSTONE_CACHE={mounts['cache']}" in " ".join(arguments("ENV")).split()


def test_what_is_copied_is_there_and_nothing_else_is_sent():
    project, setuptools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    named = {name for line in arguments("COPY") for name in line.split()[:-1]} - {"."}
    assert named <= build_context()
    assert all((ROOT / name).exists() for name in build_context())
    assert build_context() == {
        "pyproject.toml",
        "constraints.txt",
        project["readme"],
        *project["license-files"],
        *setuptools["packages"],
    }


def test_dependencies_come_before_the_source():
    steps = [rest for instruction, rest in instructions() if instruction in ("COPY", "RUN")]
    [dependencies] = [index for index, step in enumerate(steps) if "--constraint constraints.txt" in step]
    assert dependencies < steps.index(". .")


def test_the_packages_are_run_from_their_folder():
    [install] = [line for line in arguments("RUN") if line.endswith(".")]
    assert "--no-deps --editable ." in install


def test_the_base_image_has_a_python_that_is_supported():
    [base] = arguments("FROM")
    assert re.fullmatch(r"python:3\.\d+-slim", base)
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(base[len("python:") : -len("-slim")])


def test_the_readmes_commands_name_services_and_options_that_exist():
    parsed = 0
    for words in readme_commands():
        named = [index for index, word in enumerate(words) if word in services]
        if named and words[0] == "run":
            assert words[named[0]] == "ablation"
            if (command := words[named[0] + 1 :]) and command[0] != "tar":
                parse(command)
                parsed += 1
        else:
            assert words[0] in ("build", "up")
    assert parsed == 4


def test_the_licence_is_apaches():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "Copyright 2026 The whetstone authors" in text

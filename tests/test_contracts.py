"""The import contracts hold, and would catch a module that breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sweeps", "model_zoo", "datasets", "analysis")


@pytest.fixture
def copy(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder):
    command = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as c; c()"
    return subprocess.run([sys.executable, "-c", command, "--no-cache"], cwd=folder, capture_output=True, text=True)


def test_the_contracts_hold(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("model_zoo/generator.py", "import datasets.blur"),
        ("datasets/blur.py", "from model_zoo import quality"),
        ("model_zoo/losses.py", "import ray"),
        ("datasets/faces.py", "import mlflow"),
        ("analysis/tables.py", "from sweeps import train"),
        ("analysis/report.py", "import torch"),
        ("sweeps/stages.py", "import analysis.tables"),
        ("sweeps/train.py", "import mlflow"),
        ("sweeps/sweep.py", "import ray"),
        ("sweeps/deblurring/learner.py", "from ray import tune"),
        ("sweeps/stages.py", "from sweeps.deblurring import config"),
        ("sweeps/tracking.py", "from sweeps.deblurring import config"),
        ("sweeps/job.py", "from sweeps.deblurring import config"),
        ("sweeps/measure.py", "from sweeps.deblurring import config"),
    ],
)
def test_a_forbidden_import_is_caught(copy, module, line):
    path = copy / module
    path.write_text(path.read_text() + f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout

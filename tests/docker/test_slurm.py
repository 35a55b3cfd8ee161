"""The batch script: run with a `srun` that only notes what it was asked, and read by the programs it would start."""

import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docker" / "slurm.sh"
ADDRESS = "192.0.2.7:6379"


@pytest.mark.parametrize(
    "script", [SCRIPT, ROOT / "docker" / "secrets.sh", ROOT / ".ci" / "run"], ids=lambda path: path.name
)
def test_shellcheck_finds_nothing(tool, script):
    done = subprocess.run([tool("shellcheck", "apt-get install shellcheck"), script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def submit(tmp_path):
    """A function that runs the script as a job on three nodes: (what srun was asked to run, its environment)."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in {
        "srun": f'printf "%s\\0" "$@" > {tmp_path}/asked; env -0 > {tmp_path}/environment',
        "hostname": "echo 192.0.2.7 198.51.100.7",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
    job = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_PER_TASK": "16"}

    def run(*options):
        environment = {**os.environ, **job, "PATH": f"{programs}:{os.environ['PATH']}"}
        # Slurm runs a copy of the script, from a folder of its own.
        subprocess.run(["bash", SCRIPT, *options], env=environment, cwd="/", check=True)
        asked = (tmp_path / "asked").read_text().split("\0")[:-1]
        lines = (tmp_path / "environment").read_text().split("\0")[:-1]
        return asked, dict(line.split("=", 1) for line in lines)

    return run


def test_every_node_starts_ray_and_the_head_runs_the_sweep(parse, submit):
    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args, symmetric_run

    asked, _ = submit("controls", "--preset", "paper", "--set", "data.note=a b")
    ray = asked.index("ray")
    assert asked[:ray] == ["--nodes=3", "--ntasks=3", "--cpus-per-task=16"]
    assert asked[ray + 1] == "symmetric-run"
    separator = asked.index("--")
    of_ray, sweep = asked[ray + 2 : separator], asked[separator + 1 :]
    options = symmetric_run.make_context("symmetric-run", list(of_ray)).params
    assert (options["address"], options["min_nodes"]) == (ADDRESS, 3)
    assert parse(["ray", "start", *curate_and_validate_ray_start_args(of_ray)])["num_cpus"] == 16
    read = parse(sweep)
    assert (read["address"], read["study"], read["preset"]) == (ADDRESS, "controls", "paper")
    assert sweep[-1] == "data.note=a b"


def test_each_job_has_a_token_of_its_own_that_no_command_line_shows(submit):
    asked, first = submit()
    _, second = submit()
    assert first["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", first["RAY_AUTH_TOKEN"])
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
    assert first["RAY_AUTH_TOKEN"] not in " ".join(asked)


def test_the_commands_in_the_script_and_the_readme_have_options_that_exist(parse):
    text = SCRIPT.read_text() + (ROOT / "docker" / "README.md").read_text()
    lines = re.findall(r"^#?     ?sbatch .*docker/slurm.sh (.*)$", text, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        parse(["python", "-m", "sweeps.ablation", *shlex.split(line)])

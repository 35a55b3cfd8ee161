"""How a sweep starts: Ray starts beside the tracking store and the import of Tune (`Launch.tracker`)."""

import json
import os
import subprocess
import sys

import pytest
from tiny import ROOT, command, options

from sweeps.ray_engine import WAITS
from sweeps.resources import may_have_gpus

PROBE = """
import json, sweeps, sys
from pathlib import Path
from sweeps import launch
for name in launch.IMPORTED_BY_BOTH:
    __import__(name)
before, folder = set(sys.modules), Path(sys.argv[1])
{start}
print(json.dumps(sorted(set(sys.modules) - before)))
"""

BESIDE = """
from sweeps.tracking import MLflowTracker
uri = f"sqlite:///{folder}/mlflow.db"
MLflowTracker(uri=uri, artifacts=folder, experiment="e", provenance=None, downloads=folder)
import sweeps.ray_engine
"""


def imported_by(start, folder):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(start=start), folder], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_their_threads_import_nothing_in_common(tmp_path):
    """Of two threads that import at once packages whose modules import each other, one can see a half-made module."""
    ray = imported_by("sweeps.ray_cluster.start_ray(folder)", tmp_path)
    other = imported_by(BESIDE, tmp_path)
    assert ray
    assert other
    assert {name for name in ray & other if name.split(".")[0] not in sys.stdlib_module_names} == set()


PAGES = """
import sys, urllib.request
from pathlib import Path
import ray
from sweeps.ray_cluster import start_ray
url = start_ray(Path(sys.argv[1]))
LOGS = f"api/v0/logs?node_id={ray.get_runtime_context().get_node_id()}"
for page in ("", "api/jobs/", "nodes?view=summary", "logical/actors", "api/v0/tasks", "api/cluster_status", LOGS):
    urllib.request.urlopen(f"http://{url}/{page}", timeout=60)  # a page that is not there is an error
for log in Path(ray._private.worker._global_node.get_logs_dir_path()).iterdir():
    print("log:", log.stem)
"""


def test_ray_starts_without_what_a_sweep_does_not_use(tmp_path):
    """The pages on jobs, nodes, actors, tasks and logs are there."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", PAGES, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    logs = {line.removeprefix("log: ") for line in done.stdout.splitlines() if line.startswith("log: ")}
    assert {"raylet", "dashboard", "dashboard_NodeHead", "dashboard_StateHead"} <= logs
    unused = ("DataHead", "EventHead", "MetricsHead", "ServeHead", "TrainHead")
    assert not {"log_monitor", *(f"dashboard_{name}" for name in unused)} & logs


def test_objects_of_an_import_are_left_to_stay():
    """In a process of its own: it would spare other tests' objects too."""
    code = """
import gc
from sweeps.imports import importing
with importing("fractions"):
    assert not gc.isenabled()
    import fractions
frozen = gc.get_freeze_count()
with importing("fractions"):
    assert gc.isenabled()
print(gc.isenabled(), frozen > 1000, gc.get_freeze_count() == frozen)
try:
    with importing("no_such_package"):
        import no_such_package
except ImportError:
    print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 4, done.stderr


SWEEP = """
import sys
from sweeps import cli
from sweeps.ablation import main
code = cli.exit_code(main)
print(code, "torch" in sys.modules)
"""

WAITED = """
import sys
from sweeps import cli
from sweeps.ablation import main
from sweeps.ray_engine import tune_controller
from ray.air.execution._internal.actor_manager import RayActorManager
waited, look = [], RayActorManager.next
def note(manager, timeout=None):
    waited.append(timeout)
    return look(manager, timeout)
RayActorManager.next = note
code = cli.exit_code(main)
print(code, min(waited), tune_controller.RayActorManager is RayActorManager)
"""


def test_tune_waits_for_events_and_is_left_as_it_was(cache, faces_folder, tmp_path):
    arguments = [*map(str, options(faces_folder, tmp_path / "runs"))][1:]
    start = command(cache, "sweeps.ablation")
    done = subprocess.run(
        **{**start, "args": [sys.executable, "-c", WAITED, *arguments]}, capture_output=True, timeout=600
    )
    assert done.stdout.splitlines()[-1] == f"0 {WAITS} True", done.stderr


@pytest.mark.skipif(may_have_gpus(), reason="PyTorch is asked about the GPUs that there may be")
def test_a_driver_that_trains_nothing_itself_does_without_pytorch(cache, faces_folder, tmp_path):
    """Its import takes longer than all else that is imported."""
    arguments = [*map(str, options(faces_folder, tmp_path / "runs"))][1:]
    for trained in ("5 stages trained", "Nothing to train"):
        start = command(cache, "sweeps.ablation")
        done = subprocess.run(
            **{**start, "args": [sys.executable, "-c", SWEEP, *arguments]}, capture_output=True, timeout=600
        )
        assert trained in done.stdout, done.stderr
        assert done.stdout.splitlines()[-1] == "0 False"


def test_what_a_driver_imports_does_not_import_pytorch():
    modules = "sweeps.run_ablation, sweeps.run_search, sweeps.ray_engine, sweeps.tracking"
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; sys.exit('torch' in sys.modules)"], cwd=ROOT)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("sys/bus/pci/devices/0000:65:00.0/vendor", "0x10de\n", True),
        ("sys/bus/pci/devices/0000:65:00.0/vendor", "0x1002\n", True),
        ("sys/bus/pci/devices/0000:00:1f.6/vendor", "0x8086\n", False),
        ("dev/nvidiactl", "", True),
        ("dev/kfd", "", True),
        ("dev/dxg", "", True),
        ("dev/nvhost-gpu", "", True),
        ("dev/null", "", False),
    ],
)
def test_where_a_gpu_may_be(tmp_path, file, content, expected):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert may_have_gpus(tmp_path) == expected

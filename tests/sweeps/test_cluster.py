"""A sweep on a Ray cluster that is there already: two nodes on this machine, one of which is lost."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from nodes import HEAD, LIMIT, SECOND, ray_node, wait_for
from tiny import ROOT, WORKER, command, options, processes_below

from sweeps import record
from sweeps.deblurring.data import files_of

CONTENT = 120
"""Steps of a content stage; there is a checkpoint every 50, and a point in the log every 10."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Folder of Ray's logs. Its name is short because the names of sockets, which lie there too, must be."""
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def head(logs):
    """A cluster of one node with one core."""
    with ray_node(logs, ip=HEAD, cpus=1) as node:
        yield node


def steps_by_worker(logs):
    """For each worker's process id, the steps that it reported, by stage."""
    found = {}
    for file in logs.glob("session_2*/logs/worker-*.out"):
        steps = found.setdefault(int(file.stem.rsplit("-", 1)[1]), {})
        for title, step in re.findall(r"^(.+): step (\d+)$", file.read_text(), re.MULTILINE):
            steps.setdefault(title, []).append(int(step))
    return found


def in_mid_stage(logs, node):
    """The stage that a node trains, its last step and its worker, if it is beyond a checkpoint."""
    known = steps_by_worker(logs)
    for pid in processes_below(node.pid, WORKER):
        for title, steps in known.get(pid, {}).items():
            if 60 <= steps[-1] < CONTENT:
                return title, steps[-1], pid
    return None


def digests(runs):
    """Digests of every stage; all runs must be finished, their curves whole and without duplicates."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    found = {}
    for run in client.search_runs([client.get_experiment_by_name("tables").experiment_id]):
        assert run.info.status == "FINISHED"
        first, steps = int(run.data.params["first_step"]), int(run.data.params["steps"])
        curve = [point.step for point in client.get_metric_history(run.info.run_id, "loss/total")]
        assert curve == list(range(first + 10, first + steps + 1, 10))
        found[run.data.tags[record.TAG_STAGE]] = {
            tag: digest for tag, digest in run.data.tags.items() if tag.startswith(record.TAG_DIGEST_PREFIX)
        }
    return found


def test_the_stage_of_a_lost_node_goes_on_elsewhere_from_its_checkpoint(head, logs, cache, faces_folder, tmp_path):
    sweep = {"faces": faces_folder, "schedule.content": CONTENT}
    there = [*options(runs=tmp_path / "there", **sweep), "--address", head.address, "--cpus-per-trial", "1"]
    with ray_node(logs, ip=SECOND, cpus=1, joins=head.address) as second, (tmp_path / "out").open("w+") as out:
        driver = subprocess.Popen(**command(cache, *there), stdout=out, stderr=out)
        try:
            title, reached, lost = wait_for(lambda: in_mid_stage(logs, second), "a stage on the second node")
            for pid in (*processes_below(second.pid, "raylet"), *processes_below(second.pid, "")):
                os.kill(pid, signal.SIGKILL)
            assert driver.wait(LIMIT) == 0, (tmp_path / "out").read_text()
        finally:
            driver.kill()
    elsewhere = [steps[title] for pid, steps in steps_by_worker(logs).items() if pid != lost and title in steps]
    assert elsewhere == [[*range(50 if reached < 100 else 100, CONTENT + 1, 10)]]
    here = [*options(runs=tmp_path / "here", **sweep), "--engine", "in-process", "--cpus-per-trial", "1"]
    here += ["--precision", "float32"]  # as a cluster's processors have, whatever they are
    undisturbed = subprocess.run(**command(cache, *here), capture_output=True)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert len(digests(tmp_path / "there")) == 6
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


@pytest.fixture
def joined(head, tmp_path):
    """This process, joined to the cluster as a driver joins it."""
    from sweeps import ray_cluster

    ray_cluster.start_ray(tmp_path, head.address)
    yield ray_cluster
    ray_cluster.ray.shutdown()


def test_a_node_without_the_files_is_sent_them(joined, tiny_data, cache, tmp_path):
    files = files_of(tiny_data, "vgg16", cache)
    assert {name.split("/")[0] for name in files} >= {"faces", "kernels"}
    ray, empty = joined.ray, tmp_path / "cache"
    sent = {name: ray.put(path.read_bytes()) for name, path in files.items()}
    from sweeps.ray_engine import _fetch

    fetch = ray.remote(_fetch)
    ray.get(fetch.remote(sent, empty))
    there = {str(path.relative_to(empty)): path for path in empty.rglob("*") if path.is_file()}
    assert there.keys() == files.keys()
    for name, path in there.items():
        assert path.read_bytes() == files[name].read_bytes()
    kept = dict.fromkeys(files, ray.put(b"other"))
    ray.get(fetch.remote(kept, empty))
    assert all(path.read_bytes() == files[name].read_bytes() for name, path in there.items())


def test_what_a_cluster_is(joined, tmp_path):
    [node] = joined.survey(tmp_path)
    assert node.sees_runs
    assert abs(node.clock) < 5
    machine = joined.cluster()
    assert (machine.cores, machine.largest_node, machine.gpus) == (1, 1, 0)


def test_nobody_else_can_read_the_token_of_a_ray_of_its_own(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    start = "from pathlib import Path; from sweeps.ray_cluster import start_ray; start_ray(Path.home())"
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=ROOT, env={**environment, "HOME": str(tmp_path)}, timeout=LIMIT
    )
    assert done.returncode == 0
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def refused(cache, faces, runs, address, **environment):
    """The one line with which the command ends."""
    arguments = options(faces, runs)
    asked = command(cache, *arguments, "--address", address)
    asked["env"].update(environment)
    done = subprocess.run(**asked, capture_output=True, timeout=LIMIT)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert "Traceback" not in done.stdout
    return line


def test_an_address_where_nothing_answers(cache, faces_folder, tmp_path):
    with socket.socket() as taken:  # bound but not listening, so that no one else gets it meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"nothing answers at {address}" in refused(cache, faces_folder, tmp_path, address)


def test_an_address_of_ray_s_client_is_refused(cache, faces_folder, tmp_path):
    line = refused(cache, faces_folder, tmp_path, "ray://127.0.0.1:10001")
    assert "--address must be HOST:PORT" in line


@pytest.mark.parametrize("token", ["f" * 32, ""], ids=["another", "none"])
def test_without_the_token_a_cluster_is_closed(head, cache, faces_folder, tmp_path, token):
    line = refused(cache, faces_folder, tmp_path / "runs", head.address, RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    assert head.address in line
    assert "RAY_AUTH_TOKEN" in line
    assert not token or token not in line

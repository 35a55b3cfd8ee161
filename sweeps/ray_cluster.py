"""The Ray that a sweep runs on: started on this machine, or a cluster that is joined and looked over."""

import atexit
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from sweeps import environment  # noqa: F401  # before Ray

# isort: split
import ray
from ray._private import ray_constants, services
from ray._private.node import Node
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps import cli
from sweeps.checkup import Level, NodeReport, head
from sweeps.provenance import code_digest
from sweeps.resources import Machine

DASHBOARD_MODULES = (
    *("JobHead", "NodeHead", "ReportHead", "StateHead", "UsageStatsHead"),
    *("PlatformEventsHead", "TaskEventsHead"),  # only where Ray's settings ask for them
)
"""Most are a process each. Left out are those of Ray Data, Ray Serve and Ray Train, of Ray's files of events, and of
metrics, which are off."""

_start_process = services.start_ray_process


def start_ray(folder: Path, address: str | None = None) -> str | None:
    """Start a Ray on this machine, or join the cluster at `address`; the dashboard's address, without `http://`.

    Raises:
        ConnectionError: no cluster answers there, or it refuses the token.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address:
        return _join(address, quiet)
    _leave_out_unused()
    context = ray.init(
        address="local",  # never another Ray that happens to run on this machine
        num_cpus=len(os.sched_getaffinity(0)),  # Ray would count those too that this process may not use
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        object_store_memory=200 * 2**20,
        **quiet,
        **_session_folder(folder),
    )
    atexit.register(_stop_ray)  # before Ray's own, which waits for what workers print, and that goes to files here
    cli.terminate_as_interrupt()  # Ray sets a handler of its own
    with suppress(OSError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)  # Ray writes it for all users of the machine to read
    return context.dashboard_url or None


def _leave_out_unused() -> None:
    """What runs beside the trials takes its share of their cores; `ray.init` has no options for this."""

    def start(command: list[str], process_type: str, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            command = [*command, f"--modules-to-load={','.join(DASHBOARD_MODULES)}"]
        return _start_process(command, process_type, **options)

    services.start_ray_process = start
    Node.start_log_monitor = lambda _: None  # it reads all logs ten times a second, for a driver that wants none


def _stop_ray() -> None:
    """Shut down, but for waiting a second for the autoscaler's monitor, which takes no notice of a SIGTERM."""
    if ray.is_initialized():
        ray._private.worker._global_node.kill_monitor(check_alive=False)
        ray.shutdown()


def _join(address: str, quiet: dict[str, Any]) -> str | None:
    if address.startswith("ray://"):
        raise ConnectionError(f"--address must be HOST:PORT of a cluster that this machine is a node of, got {address}")
    if address != "auto" and (finding := head(address)).level == Level.WRONG:
        raise ConnectionError(f"--address must be a Ray cluster that answers: {finding.found}")
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # tries; Ray would offer a wrong token 20 times
    try:
        with _silent_stderr():
            context = ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises RuntimeError, ValueError and its own
        reason = " ".join(str(error).split())[:300]
        if "uthentication token" in f"{error} {error.__cause__ or error.__context__}":
            reason = "it wants the token of its head (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or ~/.ray/auth_token)"
        raise ConnectionError(f"--address must be a Ray cluster that answers, got {address}: {reason}") from error
    cli.terminate_as_interrupt()  # Ray sets a handler of its own
    return context.dashboard_url or None


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's compiled part says there what its exceptions say too."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def cluster() -> Machine:
    """What the joined cluster has."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    return Machine(cores=sum(cores), largest_node=max(cores), gpus=sum(int(node.get("GPU", 0)) for node in nodes))


def survey(folder: Path) -> list[NodeReport]:
    """What each node of the cluster has installed, what its clock says, and whether it sees `folder`."""
    reports = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as probe:
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            pinned = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(describe_node).options(num_cpus=0, scheduling_strategy=pinned)
            question = (node["NodeName"], Path(probe.name).resolve())
            ray.get(task.remote(*question))  # starts a process there: that takes longer than a clock may be wrong
            asked = time.time()
            report = ray.get(task.remote(*question))
            reports.append(replace(report, clock=report.clock - (asked + time.time()) / 2))
    return reports


def describe_node(name: str, probe: Path) -> NodeReport:
    """What is installed where this runs; `clock` is the time there."""
    installed = {each.name: each.version for each in distributions()}
    return NodeReport(
        name=name,
        python=platform.python_version(),
        versions={package: installed[package] for package in ("torch", "ray", "mlflow") if package in installed},
        code=code_digest(),
        clock=time.time(),
        sees_runs=probe.exists(),
    )


def _session_folder(folder: Path) -> dict[str, str]:
    # Ray's sockets lie below its session folder, and the name of a Unix socket is at most 107 bytes long.
    inside = folder.resolve() / "ray"
    return {"_temp_dir": str(inside)} if len(str(inside)) <= 40 else {}


def token_hint() -> str:
    """How a person gets past the dashboard's question for a token."""
    if os.environ.get("RAY_AUTH_MODE", "token") == "disabled":
        return ""
    if "RAY_AUTH_TOKEN" in os.environ:
        return "token: RAY_AUTH_TOKEN"
    return f"token: cat {os.environ.get('RAY_AUTH_TOKEN_PATH', '~/.ray/auth_token')}"

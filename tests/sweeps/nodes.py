"""Ray nodes on this machine, each with a loopback address of its own, as `ray start` makes them."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}
"""Of every Ray that a test starts."""
HEAD = "127.0.0.2"  # 127.0.0.1 would become the address of a network card, which others reach
SECOND = "127.0.0.3"
LIMIT = 300.0
"""Seconds after which a wait is given up."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """`pid` is that of `ray start`, which the raylet and its workers are below; `address` leads to the head."""

    pid: int
    address: str


def wait_for(condition, what):
    """The condition's value once it is true."""
    deadline = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for {what}"
        time.sleep(0.05)
    return value


@contextmanager
def ray_node(folder, *, ip, cpus, joins=None):
    """A node that joins the cluster at an address, or else is the head of a new one, with its logs below `folder`."""
    place = [f"--address={joins}"] if joins else ["--head", "--port=0", f"--temp-dir={folder}"]
    log, size = folder / f"{ip}.log", [f"--num-cpus={cpus}", "--num-gpus=0", f"--object-store-memory={100 * 2**20}"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--block", *place, f"--node-ip-address={ip}", *size],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: process.poll() is not None or "Ray runtime started" in log.read_text(), f"Ray at {ip}")
        assert process.poll() is None, log.read_text()
        port = next(folder.glob("session_2*/gcs_server_port_*")).read_text()
        yield Node(pid=process.pid, address=f"{HEAD}:{port}")
    finally:
        process.terminate()
        process.wait(LIMIT)

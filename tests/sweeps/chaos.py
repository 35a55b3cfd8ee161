"""The kill test: sweeps through a real tracking server, killed again and again, must end as if nothing had happened.

`make chaos` runs it in full, test_chaos.py in small. A kill is a SIGKILL. After one of the driver or the raylet the
same command is run again; the loss of a worker or of the tracking server, which is back some seconds later, must not
end it.
"""

import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from mlflow import MlflowClient
from tiny import WORKER, command, make_faces, make_weights, options, processes_below, python

from sweeps import record

VICTIMS = ("driver", "worker", "raylet", "server")
ENDS_THE_COMMAND = ("driver", "raylet")
PROCESSES = {"worker": WORKER, "raylet": "raylet"}
"""How the command lines of the processes below a driver begin, or the names of their programs."""
BEGINNING = re.compile(r"(?P<stage>.+): running(, going on after step (?P<step>[\d,]+))?$")
PROGRESS = re.compile(r"(?P<stage>.+): running, step (?P<step>[\d,]+)/")
REPEATED = re.compile(r"(?P<steps>[\d,]+) of these steps were done again")
LOG_EVERY = 10
"""Steps between two points of a curve, as the quick preset has it."""
LIMIT = 600.0
"""Seconds in which a command must end, else it hangs."""
SCHEDULE = {"schedule.content": 150, "schedule.perceptual": 100, "schedule.adversarial": 100}
"""Long enough for several kills in a sweep; there is a checkpoint every 50 steps."""


def say(line: str) -> None:
    """At once, also into a pipe."""
    print(line, flush=True)


class TrackingServer:
    """A real `mlflow server` on this machine: SQLite behind it, artifacts through it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, again if need be on the same port, and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        store = ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        artifacts = ["--serve-artifacts", "--artifacts-destination", str(self._folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *where],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,  # a kill takes its children too
            )
        deadline = time.monotonic() + LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the tracking server did not start; see {self._folder / 'server.log'}")
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL, and the port is free."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def tracking_server(folder: Path) -> Iterator[TrackingServer]:
    """A tracking server that is gone afterwards."""
    server = TrackingServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Storm:
    """Decides when to kill whom. Every victim has its turn, in a random order; a moment is some lines of progress and
    some seconds after the last kill or restart."""

    def __init__(self, *, kills: int, victims: tuple[str, ...], seed: int) -> None:
        self._random = random.Random(seed)
        self._left = [victims[index % len(victims)] for index in range(kills)]
        self._random.shuffle(self._left)
        self.killed: Counter[str] = Counter()
        self._draw()

    def over(self) -> bool:
        """Whether all kills were done."""
        return not self._left

    def strike(self, driver: int, server: TrackingServer) -> str | None:
        """Told of a line of progress: kill if it is time; the victim."""
        self._lines -= 1
        if self.over() or self._lines > 0:
            return None
        time.sleep(self._random.uniform(0, 2))
        victim = self._left[-1]
        self._draw()
        if not self._kill(victim, driver, server):  # gone meanwhile: another time
            return None
        self._left.pop()
        self.killed[victim] += 1
        return victim

    def _draw(self) -> None:
        self._lines = self._random.randint(1, 5)

    def _kill(self, victim: str, driver: int, server: TrackingServer) -> bool:
        if victim == "server":
            server.kill()
            time.sleep(self._random.uniform(2, 6))
            server.start()
            return True
        processes = [driver] if victim == "driver" else sorted(processes_below(driver, PROCESSES[victim]))
        if not processes:
            return False
        os.kill(self._random.choice(processes), signal.SIGKILL)
        return True


@dataclass
class Tally:
    """What was done, and what is wrong."""

    killed: Counter[str]
    sweeps: int = 0
    restarts: int = 0
    stages: int = 0
    repeated: int = 0
    open_runs: int = 0
    duplicates: int = 0
    digests: int = 0
    digests_equal: int = 0
    problems: list[str] = field(default_factory=list)

    def holds(self) -> bool:
        """Whether everything is as it must be."""
        return not (self.problems or self.open_runs or self.duplicates) and self.digests == self.digests_equal > 0

    def __str__(self) -> str:
        victims = ", ".join(f"{name} {count}" for name, count in sorted(self.killed.items()))
        lines = {
            "kills": f"{self.killed.total()} ({victims})",
            "restarts": self.restarts,
            "sweeps": self.sweeps,
            "stages": self.stages,
            "steps trained again": f"at least {self.repeated}",
            "runs left open": self.open_runs,
            "duplicates": self.duplicates,
            "digests equal": f"{self.digests_equal} of {self.digests}",
        }
        return "\n".join([*(f"{name:<22}{value}" for name, value in lines.items()), *self.problems])


Digests = dict[str, dict[str, str]]
"""For each stage: of each part of its final state and of its per-image metrics."""


def chaos(
    *,
    kills: int,
    seed: int,
    work: Path,
    faces: Path,
    cache: Path,
    victims: tuple[str, ...] = VICTIMS,
    schedule: dict[str, int] = SCHEDULE,
) -> Tally:
    """Run sweeps in fresh folders below `work` until all kills are done and the last sweep is finished."""
    expected = undisturbed(work, faces, cache, schedule)
    say(f"An undisturbed sweep has {sum(map(len, expected.values()))} digests of {len(expected)} stages.")
    storm = Storm(kills=kills, victims=victims, seed=seed)
    tally = Tally(storm.killed)
    while not storm.over() and not tally.problems:
        folder = work / f"sweep-{tally.sweeps + 1}"
        with tracking_server(folder) as server:
            arguments = options(faces, folder / "runs", **schedule)
            arguments += ["--device", "cpu", "--cpus-per-trial", 1, "--tracking-uri", server.uri]
            run_to_the_end(command(cache, *arguments), storm, server, tally, folder / "driver.log")
            examine(MlflowClient(server.uri), expected, tally)
        tally.sweeps += 1
    return tally


def undisturbed(work: Path, faces: Path, cache: Path, schedule: dict[str, int]) -> Digests:
    """The digests of a sweep in one process, with a store of its own."""
    runs = work / "undisturbed"
    own = f"sqlite:///{runs / 'mlflow.db'}"
    arguments = options(faces, runs, **schedule)
    arguments += ["--device", "cpu", "--cpus-per-trial", 1, "--engine", "in-process", "--tracking-uri", own]
    done = python(cache, *arguments)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    client = MlflowClient(own)
    return {run.data.tags[record.TAG_STAGE]: digests_of(run) for run in runs_of(client)}


def run_to_the_end(sweep, storm: Storm, server: TrackingServer, tally: Tally, log: Path) -> None:
    """Run a command again and again until it exits with 0."""
    steps = Steps()
    while not tally.problems:
        code, last_victim = drive(sweep, storm, server, steps, tally, log)
        tally.repeated += steps.repeated()
        if code == 0:
            return
        hung = code == -signal.SIGKILL and last_victim != "driver"
        if hung or last_victim not in ENDS_THE_COMMAND:
            tally.problems.append(f"a sweep ended with exit code {code}, killed last: {last_victim}; see {log}")
        tally.restarts += 1


def drive(
    sweep, storm: Storm, server: TrackingServer, steps: "Steps", tally: Tally, log: Path
) -> tuple[int, str | None]:
    """Run a command once, in the storm; its exit code and who was killed last."""
    victim = None
    begun = False
    with (
        log.open("a") as output,
        subprocess.Popen(**sweep, stdout=subprocess.PIPE, stderr=output, bufsize=1) as driver,
    ):
        watchdog = threading.Timer(LIMIT, driver.kill)
        watchdog.start()
        for line in driver.stdout:
            output.write(line)
            output.flush()
            steps.read(line)
            if not PROGRESS.search(line) or victim in ENDS_THE_COMMAND:
                continue
            if not begun:
                begun = True
                require_one_live_run_per_stage(MlflowClient(server.uri), tally)
            if struck := storm.strike(driver.pid, server):
                victim = struck
                output.write(f"--- killed: {victim}\n")
                say(f"sweep {tally.sweeps + 1}, {line.strip()} ... killed: {victim}")
        watchdog.cancel()
    return driver.returncode, victim


class Steps:
    """How many steps a command did that had been done before: as it says at its end, or, where it was killed, at least
    what its lines of progress show."""

    def __init__(self) -> None:
        self._reached: Counter[str] = Counter()
        self._start: dict[str, int] = {}
        self._here: dict[str, int] = {}
        self._said: int | None = None

    def read(self, line: str) -> None:
        """Told of every line of the command."""
        if found := BEGINNING.match(line):
            self._start[found["stage"]] = number(found["step"] or "0")
        elif found := PROGRESS.match(line):
            self._here[found["stage"]] = number(found["step"])
        elif found := REPEATED.match(line):
            self._said = number(found["steps"])

    def repeated(self) -> int:
        """Steps done again by the command that is over now."""
        shown = sum(max(0, min(step, self._reached[stage]) - self._start[stage]) for stage, step in self._here.items())
        repeated = shown if self._said is None else self._said
        self._reached |= self._here
        self._start, self._here, self._said = {}, {}, None
        return repeated


def number(text: str) -> int:
    """A number as it is printed."""
    return int(text.replace(",", ""))


def require_one_live_run_per_stage(client: MlflowClient, tally: Tally) -> None:
    """A stage must not have a second run that is not deleted, whatever its status."""
    for key, count in Counter(run.data.tags[record.TAG_STAGE_KEY] for run in runs_of(client)).items():
        if count > 1:
            tally.duplicates += count - 1
            tally.problems.append(f"stage {key} has {count} runs after a restart")


def examine(client: MlflowClient, expected: Digests, tally: Tally) -> None:
    """Look at the store of a finished sweep."""
    require_one_live_run_per_stage(client, tally)
    runs = [client.get_run(run.info.run_id) for run in runs_of(client)]  # a search leaves out the models
    for run in runs:
        stage = run.data.tags[record.TAG_STAGE]
        if run.info.status != "FINISHED":
            tally.open_runs += 1
            tally.problems.append(f"{stage} is {run.info.status}")
            continue
        tally.stages += 1
        for name, value in expected[stage].items():
            tally.digests += 1
            tally.digests_equal += digests_of(run).get(name) == value
        for what, count in doubled(client, run).items():
            tally.duplicates += count - 1
            tally.problems.append(f"{stage}: {what} is there {count} times")
        first, steps = int(run.data.params["first_step"]), int(run.data.params["steps"])
        # What an outage held up was written later: the order of writing is not that of the steps.
        found = sorted(point.step for point in client.get_metric_history(run.info.run_id, "loss/total"))
        if found != list(range(first + LOG_EVERY, first + steps + 1, LOG_EVERY)):
            tally.problems.append(f"{stage}: loss/total is not contiguous: {found}")
        if len(run.outputs.model_outputs) != (steps > 0):
            tally.problems.append(f"{stage} has {len(run.outputs.model_outputs)} models")
    missing = expected.keys() - {run.data.tags[record.TAG_STAGE] for run in runs}
    tally.problems += [f"{stage} has no run" for stage in sorted(missing)]
    models = client.search_logged_models([run.info.experiment_id for run in runs[:1]])
    trained = sum(int(run.data.params["steps"]) > 0 for run in runs)
    if len(models) != trained:
        tally.problems.append(f"{len(models)} models of {trained} trained stages")


def doubled(client: MlflowClient, run) -> dict[str, int]:
    """What a run should have once and has more often: points by metric and step, images by test set and number."""
    metrics = [name for name in run.data.metrics if not name.startswith("system/")]
    things = [
        f"{name} at step {point.step}" for name in metrics for point in client.get_metric_history(run.info.run_id, name)
    ]
    images = [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "images")]
    things += [f"image {name.split('+step')[0]}" for name in images if name.endswith(".png")]
    return {thing: count for thing, count in Counter(things).items() if count > 1}


def digests_of(run) -> dict[str, str]:
    return {name: value for name, value in run.data.tags.items() if name.startswith(record.TAG_DIGEST_PREFIX)}


def runs_of(client: MlflowClient):
    """All runs of the study that are not deleted."""
    return client.search_runs([client.get_experiment_by_name("tables").experiment_id])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--work", type=Path, help="an empty folder for all that is written, kept; default: a new one")
    arguments = parser.parse_args()
    work = (arguments.work or Path(tempfile.mkdtemp(prefix="chaos-"))).resolve()
    faces, cache = work / "faces", work / "cache"
    for folder in (faces, cache):
        folder.mkdir(parents=True)
    make_faces(faces)
    make_weights(cache)
    tally = chaos(kills=arguments.kills, seed=arguments.seed, work=work, faces=faces, cache=cache)
    print(tally)
    if not tally.holds():
        print(f"Everything is kept in {work}")
        return 1
    if not arguments.work:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())

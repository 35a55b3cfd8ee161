"""What usually goes wrong before a sweep: one small function for each check, from facts to findings.

A check looks and leaves nothing behind: no folder, no database, no file.
"""

import os
import platform
import re
import shutil
import socket
import stat
import sys
import tempfile
import tomllib
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweeps import cli
from sweeps.lock import holder

CLOCK_TOLERANCE = 5.0
"""Seconds by which a node's clock may differ from the driver's."""
DASHBOARD_PORT = 8265
PATIENCE = 5.0
"""Seconds to wait for something that should answer at once."""
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0" * 5
"""RFC 9113, 3.4: a client begins with this line and a frame of settings (here none); such a frame is the answer."""


class Level(StrEnum):
    """How bad a finding is. A sweep can start with warnings."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.WRONG: "bold red"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found; `mend` is what to type or to change, empty where nothing needs it."""

    name: str
    level: Level
    found: str
    mend: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeReport:
    """What a node of a cluster says of itself."""

    name: str
    python: str
    versions: dict[str, str]
    code: str
    """Digest of the source that trains and evaluates."""
    clock: float
    """Seconds ahead of the driver."""
    sees_runs: bool


def show(console: Console, findings: Sequence[Finding]) -> int:
    """Print the findings and a count: a table that fits the terminal, or a line each where there is none.

    Returns 1 if anything is wrong, else 0.
    """
    if console.is_terminal:
        table = Table.grid(padding=(0, 1))
        table.add_column()
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for finding in findings:
            mend = f"\nmend: {finding.mend}" if finding.mend else ""
            level = Text(finding.level, style=STYLES[finding.level])
            table.add_row(level, Text(finding.name), Text(finding.found + mend))
        console.print(table)
    else:
        for finding in findings:
            mend = f"; mend: {finding.mend}" if finding.mend else ""
            console.print(Text(f"{finding.level:<7}  {finding.name}: {finding.found}{mend}"), soft_wrap=True)
    counts = {level: sum(finding.level == level for finding in findings) for level in Level}
    console.print(", ".join(f"{count} {level}" for level, count in counts.items()), highlight=False)
    return int(counts[Level.WRONG] > 0)


def attempt(name: str, action: Callable[[], str], *, mend: str) -> Finding:
    """What `action` returns, or the line of the ValueError or OSError with which it refuses."""
    try:
        return Finding(name=name, level=Level.OK, found=action())
    except (ValueError, OSError) as error:
        return Finding(name=name, level=Level.WRONG, found=" ".join(str(error).split()), mend=mend)


# Packages.


def installation() -> list[Finding]:
    """Whether Python and the packages are those that `pyproject.toml` asks for."""
    project = tomllib.loads((cli.ROOT / "pyproject.toml").read_text())["project"]
    plain = [re.sub(r"\[.*\]", "", line) for line in project["dependencies"]]
    return [
        own_packages(),
        python(project["requires-python"], platform.python_version()),
        packages("packages", plain, mend="python -m pip install -c constraints.txt -e ."),
    ]


def own_packages() -> Finding:
    """Whether another package has one of our names and is found first."""
    try:
        cli.require_own_packages()
    except ImportError as error:
        mend = f"cd {cli.ROOT}, or pip uninstall the other package"
        return Finding(name="own packages", level=Level.WRONG, found=str(error), mend=mend)
    return Finding(name="own packages", level=Level.OK, found=f"{', '.join(cli.PACKAGES)} are those of {cli.ROOT}")


def python(required: str, version: str) -> Finding:
    """Python's version against a specifier such as `>=3.11`."""
    if SpecifierSet(required).contains(version, prereleases=True):
        return Finding(name="Python", level=Level.OK, found=version)
    mend = "rm -rf .venv && make PYTHON=python3.12 ablation (or any other that fits)"
    return Finding(name="Python", level=Level.WRONG, found=f"{version}, needed is {required}", mend=mend)


def packages(name: str, requirements: Sequence[str], *, mend: str, path: Sequence[str] | None = None) -> Finding:
    """Installed versions against requirement lines and their extras'; `path` is searched in place of Python's."""
    unmet = [problem for line in requirements for problem in _unmet(Requirement(line), "", path)]
    if unmet:
        return Finding(name=name, level=Level.WRONG, found="; ".join(unmet), mend=mend)
    installed = [_find(Requirement(line).name, path) for line in requirements]
    versions = ", ".join(f"{each.name} {each.version}" for each in installed if each)
    return Finding(name=name, level=Level.OK, found=versions)


def _find(name: str, path: Sequence[str] | None) -> Distribution | None:
    return next(iter(distributions(name=name, path=list(sys.path if path is None else path))), None)


def _unmet(requirement: Requirement, extra: str, path: Sequence[str] | None) -> Iterator[str]:
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return
    found = _find(requirement.name, path)
    if found is None:
        yield f"{requirement.name} is missing"
    elif not requirement.specifier.contains(found.version, prereleases=True):
        yield f"{requirement.name} is {found.version}, needed is {requirement.specifier}"
    else:
        for each in requirement.extras:
            for line in found.requires or []:
                yield from _unmet(Requirement(line), each, path)


# Ray on this machine.


def dashboard_port(port: int = DASHBOARD_PORT) -> Finding:
    """Whether the dashboard gets its usual port."""
    name = "dashboard port"
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except OSError:
        return Finding(name=name, level=Level.OK, found=f"{port} is free")
    if _is_ray(port):
        return Finding(
            name=name, level=Level.OK, found=f"{port} is held by another Ray; a sweep's gets the next free one"
        )
    return Finding(
        name=name,
        level=Level.WARNING,
        found=f"{port} is held by a program that is not Ray; the dashboard gets the next free one",
        mend=f"ss -ltnp 'sport = :{port}' names the program",
    )


def _is_ray(port: int) -> bool:
    # No proxy stands between two programs of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as page:
            return b"<title>Ray Dashboard</title>" in page.read(4096)
    except (OSError, HTTPException):
        return False


def token(environment: Mapping[str, str], *, joins: bool) -> Finding:
    """Ray's token: where it is and who can read it, never what it is. `joins`: a cluster that is there already."""
    mode = environment.get("RAY_AUTH_MODE")
    if mode is not None and mode.lower() != "token":
        return Finding(
            name="token",
            level=Level.WARNING,
            found=f"RAY_AUTH_MODE={mode}: whoever reaches Ray's ports can run code as you",
            mend="unset RAY_AUTH_MODE",
        )
    if environment.get("RAY_AUTH_TOKEN"):
        return Finding(name="token", level=Level.OK, found="in RAY_AUTH_TOKEN")
    given = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(given) if given else Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    if file.is_file() and file.stat().st_size:
        return _token_file(file)
    if given:
        found, mend = (
            f"RAY_AUTH_TOKEN_PATH is {file}: missing or empty",
            "unset RAY_AUTH_TOKEN_PATH, or put the token there",
        )
    elif joins and mode:
        found, mend = f"none: no {file}, no RAY_AUTH_TOKEN", f"copy the token of the cluster's head to {file}"
    else:
        found = "none, for a cluster that asks for none" if joins else f"Ray will write {file}"
        return Finding(name="token", level=Level.OK, found=found)
    return Finding(name="token", level=Level.WRONG, found=found, mend=mend)


def _token_file(file: Path) -> Finding:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        found = f"{file} can be read by others: they can run code as you"
        return Finding(name="token", level=Level.WARNING, found=found, mend=f"chmod 600 {file}")
    return Finding(name="token", level=Level.OK, found=str(file))


# Where results go.


def tracking_store(uri: str) -> Finding:
    """Whether the tracking store answers, lets us in and has the tables of this MLflow."""
    name, shown = "tracking store", cli.without_password(uri)
    if file := cli.sqlite_file(uri):
        folder = writable(name, file.parent, mend="name another with --tracking-uri sqlite:///FILE")
        if folder.level == Level.WRONG:
            return folder
        if not os.path.exists(file):  # a name that no file can have is none that exists
            return Finding(name=name, level=Level.OK, found=f"{shown} will be made")
    from sweeps import tracking  # only now: MLflow takes seconds

    try:
        if uri.startswith(("http://", "https://")):
            level, found, mend = _server(tracking.refused(uri))
        else:
            level, found, mend = _database(tracking.schema_state(uri), shown)
    except Exception as error:  # each kind of store raises its own
        level, found = Level.WRONG, f"does not answer: {cli.first_cause(error, hidden=uri)}"
        what = "install that driver" if isinstance(error, ImportError) else "start it"
        mend = f"{what}, or name another with --tracking-uri (sqlite:///FILE or http://HOST:PORT)"
    return Finding(name=name, level=level, found=f"{shown} {found}", mend=mend)


def _server(refused: bool) -> tuple[Level, str, str]:
    if refused:
        mend = "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... (a user of that server)"
        return Level.WRONG, "does not let us in", mend
    return Level.OK, "answers", ""


def _database(schema: str, shown: str) -> tuple[Level, str, str]:
    if schema == "older":
        mend = f"back it up, then: mlflow db upgrade '{shown}'"
        return Level.WRONG, "was made by an older MLflow, and its tables are not up to date", mend
    if schema == "newer":
        return Level.WRONG, "has tables that this MLflow does not know", "pip install --upgrade mlflow"
    if schema == "foreign":
        mend = "name another with --tracking-uri sqlite:///FILE"
        return Level.WRONG, "is a database, but not an MLflow store", mend
    return Level.OK, "is up to date" if schema == "current" else "is empty: tables will be made", ""


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    path = path.expanduser().resolve()
    return next(each for each in (path, *path.parents) if each.exists())


def writable(name: str, folder: Path, *, mend: str) -> Finding:
    """Whether files can be made in a folder, or the folder itself where it is not there yet."""
    try:
        with tempfile.TemporaryFile(dir=existing(folder)):
            pass
    except OSError as error:
        found = f"{folder} can't be written to: {error.strerror}"
        return Finding(name=name, level=Level.WRONG, found=found, mend=mend)
    return Finding(name=name, level=Level.OK, found=f"{folder}" if folder.exists() else f"{folder} will be made")


def lock(runs: Path) -> Finding:
    """Whether another sweep uses the folder."""
    if process := holder(runs):
        mend = "wait for its end, stop it, or choose another folder with --runs DIR"
        return Finding(name="lock", level=Level.WRONG, found=f"{runs} is in use by process {process}", mend=mend)
    return Finding(name="lock", level=Level.OK, found=f"no other sweep uses {runs}")


def disk(needs: Mapping[Path, int]) -> list[Finding]:
    """Free space against the bytes that each folder will take, a finding for each file system."""
    folders = defaultdict(list)
    for folder in needs:
        folders[existing(folder).stat().st_dev].append(folder)
    return [_file_system({folder: needs[folder] for folder in each}) for each in folders.values()]


def _file_system(needs: Mapping[Path, int]) -> Finding:
    free, needed = shutil.disk_usage(existing(next(iter(needs)))).free, sum(needs.values())
    found = f"{_gigabytes(free)} free for {', '.join(map(str, needs))}, about {_gigabytes(needed)} needed"
    if free < needed:
        mend = "make room, or choose other disks with --runs DIR and WHETSTONE_CACHE=DIR"
        return Finding(name="disk", level=Level.WRONG, found=found, mend=mend)
    return Finding(name="disk", level=Level.OK, found=found)


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def cached(name: str, file: Path, *, instead: str) -> Finding:
    """Whether something that would be downloaded on first use is there already."""
    if file.exists():
        return Finding(name=name, level=Level.OK, found=str(file))
    found = "not in the cache: will be downloaded on first use"
    return Finding(name=name, level=Level.WARNING, found=found, mend=f"nothing; where it can't be, {instead}")


# What computes.


def device(asked: str, *, gpus: int, build: str | None, visible: str | None) -> Finding:
    """The device against the GPUs that PyTorch finds.

    `build` is the CUDA version that PyTorch was built for, `visible` the value of CUDA_VISIBLE_DEVICES; None: none.
    """
    if asked == "cpu":
        return Finding(name="device", level=Level.OK, found="cpu, as asked")
    if gpus:
        return Finding(name="device", level=Level.OK, found=f"cuda, GPUs: {gpus}")
    hidden = visible is not None and visible.strip() in ("", "-1")
    if asked == "auto" and not hidden:
        return Finding(name="device", level=Level.OK, found="cpu: there is no GPU")
    if hidden:
        found, mend = f"CUDA_VISIBLE_DEVICES is {visible!r}: PyTorch may see no GPU", "unset CUDA_VISIBLE_DEVICES"
    elif build is None:
        found, mend = (
            "--device cuda, but this PyTorch was built without CUDA",
            "install PyTorch's CUDA build, or --device cpu",
        )
    else:
        found, mend = (
            "--device cuda, but PyTorch finds no GPU",
            "nvidia-smi shows whether the driver does; or --device cpu",
        )
    return Finding(name="device", level=Level.WARNING if asked == "auto" else Level.WRONG, found=found, mend=mend)


# A cluster.


def head(address: str) -> Finding:
    """Whether a server of Ray's kind (gRPC) listens at HOST:PORT: Ray itself would try another for minutes."""
    host, _, port = address.rpartition(":")
    found = ""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as connection:
            connection.sendall(HTTP2_GREETING)
            frame = connection.makefile("rb").read(9)
        if frame[3:4] != HTTP2_SETTINGS:
            found = f"{address} answers, but is not the port of a Ray head"
    except (ValueError, OverflowError):
        found = f"an address is HOST:PORT, got {address}"
    except OSError as error:
        found = f"nothing answers at {address}: {error}"
    if found:
        mend = "ray start --head --port=6379 on the head node, then --address HOST:6379"
        return Finding(name="cluster", level=Level.WRONG, found=found, mend=mend)
    return Finding(name="cluster", level=Level.OK, found=f"{address} answers")


def node(report: NodeReport, here: NodeReport, runs: Path) -> Finding:
    """A node against the driver: versions, source, clock, and whether it sees `runs`."""
    faults = []
    if report.python != here.python:
        faults.append((f"Python {report.python}, here {here.python}", f"install Python {here.python} there"))
    for package, version in here.versions.items():
        theirs = report.versions.get(package, "missing")
        # A node with GPUs has another build ("+cu130") of the same version.
        if theirs.partition("+")[0] != version.partition("+")[0]:
            faults.append(
                (f"{package} {theirs}, here {version}", f"pip install {package}=={version.partition('+')[0]}")
            )
    if report.code != here.code:
        faults.append(("other source than here", "check out the same commit"))
    if abs(report.clock) > CLOCK_TOLERANCE:
        faults.append((f"clock {report.clock:+.0f} s from here", "sudo chronyc makestep"))
    if not report.sees_runs:
        faults.append((f"does not see {runs}", f"mount {runs} there too"))
    if not faults:
        return Finding(name="node", level=Level.OK, found=f"{report.name}: as here")
    found = f"{report.name}: {'; '.join(found for found, _ in faults)}"
    mend = f"on {report.name}: {'; '.join(mend for _, mend in faults)}"
    return Finding(name="node", level=Level.WRONG, found=found, mend=mend)

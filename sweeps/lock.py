"""The lock of a runs folder: two drivers would train the same stages twice."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def only_driver(runs: Path) -> Iterator[None]:
    """Hold the folder's lock. A killed driver's lock is gone with it.

    Raises:
        ValueError: another sweep holds it, or the folder can't be written to.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        file = _file(runs).open("a+")
    except OSError as error:
        raise ValueError(f"--runs must be a folder that can be written to, got {runs}: {error.strerror}") from error
    with file as lock:
        if not _take(lock):
            raise ValueError(
                f"--runs must be a folder that no other sweep is using; {runs.resolve()} is in use by process "
                f"{_content(lock)}: wait for its end, stop it, or choose another folder"
            )
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def holder(runs: Path) -> str:
    """The process that holds the folder's lock, as `1234 on name`; empty where none does. Leaves nothing behind."""
    try:
        with _file(runs).open("r+") as lock:  # on NFS only what may be written can be locked
            return "" if _take(lock) else _content(lock)
    except OSError:  # there is none, or a sweep could not open it either
        return ""


def _file(runs: Path) -> Path:
    return runs / ".lock"


def _take(lock: IO[str]) -> bool:
    """Try to get it; it is given back when the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read() or "unknown"

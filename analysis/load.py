"""The tracking store, read: a sweep's record and the run behind each of its stage keys."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname
from tempfile import TemporaryDirectory
from textwrap import shorten
from urllib.parse import quote, unquote

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Experiment, Run

from sweeps import record
from sweeps.record import RowRecord, SweepRecord

FINISHED = "FINISHED"
# MLflow's own defaults retry a dead server for minutes.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """The MLflow run of one stage: its final metrics, tags and files."""

    run_id: str
    status: str
    metrics: dict[str, float]
    tags: dict[str, str]
    tracking_uri: str

    def strips(self, test: str) -> list[bytes]:
        """PNG files (degraded | restored | truth) of a test set's fixed images, in order; maybe none."""
        folder = dirname(record.strip_file(test, 0))
        if not list_artifacts(run_id=self.run_id, artifact_path=folder, tracking_uri=self.tracking_uri):
            return []
        with TemporaryDirectory() as local:
            files = download_artifacts(
                run_id=self.run_id, artifact_path=folder, dst_path=local, tracking_uri=self.tracking_uri
            )
            return [file.read_bytes() for file in sorted(Path(files).iterdir())]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep asked for, and what the store has of it: for each stage key its run, or None."""

    record: SweepRecord
    runs: dict[str, StageRun | None]

    def row_runs(self, row: RowRecord) -> dict[str, StageRun | None]:
        """The run of a row's last stage per seed, in the sweep's order; under "" for a row without seeds."""
        if not row.trained:
            key = next(iter(row.keys.values()), None)
            return {"": self.runs[key] if key else None}
        seeds = map(str, self.record.seeds)
        return {seed: self.runs[row.keys[seed]] if seed in row.keys else None for seed in seeds}


def open_store(tracking_uri: str) -> MlflowClient:
    """A client of an existing tracking store, known to answer.

    Raises:
        FileNotFoundError: the database file does not exist (MLflow would create it).
        ValueError: the store can't be read: no answer in seconds, not MLflow's, of another MLflow's schema.
    """
    if tracking_uri.startswith("sqlite"):
        _check_sqlite(Path(unquote(tracking_uri.partition(":///")[2].partition("?")[0])))
    try:
        with _impatient():
            client = MlflowClient(tracking_uri)
            client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store has its own
        shown = without_password(tracking_uri)
        if getattr(error, "error_code", "") == "UNAUTHENTICATED":
            raise ValueError(
                "the tracking server must be given a user's name and password (MLFLOW_TRACKING_USERNAME, "
                f"MLFLOW_TRACKING_PASSWORD), got 401 Unauthorized from {shown}"
            ) from error
        reason = shorten(without_password(str(error)), 300, placeholder=" ...")
        raise ValueError(f"tracking store {shown} can't be read: {reason}") from error
    return client


def without_password(text: str) -> str:
    """A message as it may be shown: URIs in it without their passwords."""
    return re.sub(r"(://[^/@:]*):\S*@", r"\1:***@", text)


def load_sweep(client: MlflowClient, study: str, preset: str | None = None) -> Sweep:
    """The last sweep of a study with `preset`, or its very last one.

    A stage's run may live in any experiment, and several may carry its key: a finished one is preferred,
    then a running one, then the newest.

    Raises:
        ValueError: the store has no such study, or the study no sweep of that preset; a run is of another schema.
    """
    experiments = _experiments(client)
    studies = {found.name: found for found in experiments if record.TAG_LATEST_PRESET in found.tags}
    if study not in studies:
        known = ", ".join(sorted(studies)) or "none yet"
        raise ValueError(f"study must be one in the store ({known}), got {study!r}")
    sweep = record.from_tags(studies[study].tags, preset)
    keys = sorted({key for table in sweep.tables for row in table.rows for key in row.keys.values()})
    ids = [found.experiment_id for found in experiments]
    return Sweep(record=sweep, runs={key: _stage_run(client, ids, key) for key in keys})


def _check_sqlite(path: Path) -> None:
    """Refuse a file that MLflow would create or turn into a store."""
    if not path.is_file():
        raise FileNotFoundError(f"no tracking store at {path}: run a sweep first, or name another store")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
    except sqlite3.Error as error:
        raise ValueError(f"{path} is not an MLflow store: {error}") from error
    if not found:
        raise ValueError(f"{path} is not an MLflow store: it has no experiments")


@contextmanager
def _impatient() -> Iterator[None]:
    """MLflow requests that fail in seconds, unless the user's environment says otherwise."""
    ours = {name: value for name, value in IMPATIENT.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _experiments(client: MlflowClient) -> list[Experiment]:
    page = client.search_experiments()
    experiments = list(page)
    while page.token:
        page = client.search_experiments(page_token=page.token)
        experiments += page
    return experiments


def _stage_run(client: MlflowClient, experiment_ids: list[str], key: str) -> StageRun | None:
    found = client.search_runs(experiment_ids, filter_string=f"tags.`{record.TAG_STAGE_KEY}` = '{key}'")
    if not found:
        return None
    run = max(found, key=_preference)
    schema = run.data.tags.get(record.TAG_SCHEMA, "none")
    if schema != record.SCHEMA:
        raise ValueError(f"run must be of schema {record.SCHEMA}, got schema {schema} in run {run.info.run_id}")
    return StageRun(
        run_id=run.info.run_id,
        status=run.info.status,
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        tracking_uri=client.tracking_uri,
    )


def _preference(run: Run) -> tuple[int, int, str]:
    return {FINISHED: 2, "RUNNING": 1}.get(run.info.status, 0), run.info.start_time, run.info.run_id

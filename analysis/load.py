"""The tracking store, read: a sweep's record, the run behind each of its stage keys, and their files and curves."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from posixpath import dirname
from tempfile import TemporaryDirectory
from textwrap import shorten
from urllib.parse import quote, unquote, urlparse
from urllib.request import url2pathname

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.entities import Experiment, Run

from analysis.stats import Array, Index, crossed
from sweeps import record
from sweeps.record import RowRecord, SearchRecord, SweepRecord

FINISHED = "FINISHED"
REQUESTS, FILES = 8, 2
"""Under way at once. Most of a request is waiting; of reading a disk little is, and more threads only take turns."""
PAGE = 1000
# MLflow's own defaults retry a dead server for minutes.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """The MLflow run of one stage: its final metrics, parameters, tags, and where its files are. Times are in ms."""

    run_id: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int
    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    artifacts: str
    tracking_uri: str

    def file(self, path: str) -> bytes | None:
        """An artifact's bytes; None where it is not there.

        Raises:
            OSError: it can't be read.
        """
        if self.folder:
            try:
                return Path(self.folder, path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if path not in self.listed(dirname(path)):
            return None
        with TemporaryDirectory() as local, _as_os_error(f"artifact {path} of run {self.run_id}"):
            uri = f"{self.artifacts}/{path}"
            return Path(download_artifacts(uri, dst_path=local, tracking_uri=self.tracking_uri)).read_bytes()

    @property
    def folder(self) -> str:
        """Where the artifacts lie, if they are this machine's files; else ""."""
        location = urlparse(self.artifacts)
        return url2pathname(location.path) if location.scheme in ("", "file") else ""

    def listed(self, folder: str) -> list[str]:
        """Paths of the artifacts in a folder ("" for all the run's); none where there is no such folder.

        Raises:
            OSError: the store does not say.
        """
        if self.folder:
            return [f"{folder}/{path.name}" for path in Path(self.folder, folder).glob("*")]
        with _as_os_error(f"artifacts of run {self.run_id}"):
            found = list_artifacts(f"{self.artifacts}/{folder}".rstrip("/"), tracking_uri=self.tracking_uri)
        return [f"{folder}/{each.path.rpartition('/')[2]}".lstrip("/") for each in found]

    def strips(self, test: str) -> dict[tuple[int, int], bytes]:
        """PNG files (degraded | restored | truth) of a few images of a test set, by (image, condition)."""
        listed = self.listed(dirname(record.strip_file(test, 0, 0)))
        pairs = [pair for path in listed if (pair := record.strip_of(path))]
        found = {pair: self.file(record.strip_file(test, *pair)) for pair in pairs}
        return {pair: png for pair, png in sorted(found.items()) if png is not None}


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """A run's metrics per image on one test set, each (n_images, n_conditions); the numbers of images (n_images,) and
    of conditions (n_conditions,), and what each condition is on the record's axis (n_conditions,), if it has one."""

    metrics: dict[str, Array]
    images: Index
    conditions: Index
    axis: Array | None

    def same_images(self, other: "PerImage") -> bool:
        """Whether both are of the same images under the same conditions."""
        return np.array_equal(self.images, other.images) and np.array_equal(self.conditions, other.conditions)


@dataclass(frozen=True, kw_only=True)
class SearchRuns:
    """A search and its trials: the values that each tried and its curve (value by steps from the trial's start)."""

    record: SearchRecord
    trials: tuple[tuple[dict[str, float], dict[int, float]], ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep asked for, and what the store has of it.

    `runs` maps each stage key of its rows, and of the stages before those, to its run, or None. Files and curves are
    read when they are first asked for.
    """

    record: SweepRecord
    runs: Mapping[str, StageRun | None]
    per_image: Callable[[StageRun, str], PerImage | None]
    curve: Callable[[StageRun], dict[int, float]]
    searches: Sequence[SearchRuns] = ()

    def row_runs(self, row: RowRecord) -> dict[str, StageRun | None]:
        """The run of a row's last stage per seed, in the sweep's order; under "" for a row without seeds."""
        if not row.trained:
            key = next(iter(row.keys.values()), None)
            return {"": self.runs[key] if key else None}
        seeds = map(str, self.record.seeds)
        return {seed: self.runs[row.keys[seed]] if seed in row.keys else None for seed in seeds}

    def chain(self, run: StageRun) -> list[StageRun]:
        """A run and those of the stages before it, as far as the store has them, the first stage first."""
        found = [run]
        while (parent := self.runs.get(found[-1].tags.get(record.TAG_PARENT_KEY, ""))) and parent not in found:
            found.append(parent)
        return found[::-1]


@contextmanager
def _as_os_error(what: str) -> Iterator[None]:
    """Whatever a kind of artifact store raises, as one line."""
    try:
        yield
    except Exception as error:
        reason = shorten(without_password(_first_cause(error)), 200, placeholder=" ...")
        raise OSError(f"{what} can't be read: {reason}") from error


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
        reason = shorten(without_password(_first_cause(error)), 300, placeholder=" ...")
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
    experiments = {found.name: found for found in _experiments(client)}
    studies = {name: found for name, found in experiments.items() if record.TAG_LATEST_PRESET in found.tags}
    if study not in studies:
        known = ", ".join(sorted(studies)) or "none yet"
        raise ValueError(f"study must be one in the store ({known}), got {study!r}")
    sweep = record.from_tags(studies[study].tags, preset)
    trials = experiments.get(record.search_experiment(study))
    found = trials and record.searches_from_tags(trials.tags, sweep.preset)
    runs = _stage_runs(client, [each.experiment_id for each in experiments.values()])
    per_image, curve = _readers(client, sweep)
    return Sweep(
        record=sweep,
        runs=_wanted(runs, {key for table in sweep.tables for row in table.rows for key in row.keys.values()}),
        per_image=per_image,
        curve=curve,
        searches=[_search(client, each, runs) for each in found or ()],
    )


def read_ahead(sweep: Sweep, evaluated: Sequence[tuple[StageRun, str]], curves: Sequence[StageRun]) -> None:
    """Read the per-image metrics of some (run, test set) and some curves, several at once."""
    here = all(run.folder for run, _ in evaluated)
    with ThreadPoolExecutor(FILES if here else REQUESTS) as pool:
        list(pool.map(lambda place: sweep.per_image(*place), evaluated))
    with ThreadPoolExecutor(REQUESTS) as pool:
        list(pool.map(sweep.curve, curves))


def read_per_image(content: bytes, metrics: Sequence[str], axis: str | None) -> PerImage:
    """A per-image file.

    Raises:
        ValueError: it is no such file, lacks a column, or not every image stands once under every condition.
    """
    index = (record.COLUMN_IMAGE, record.COLUMN_CONDITION)
    wanted = [*index, *metrics, *([axis] if axis else [])]
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if axis and axis not in file.schema_arrow.names:
            axis = None
            wanted.pop()
        table = file.read(columns=wanted, use_threads=False)
        columns = {name: table.column(name).to_numpy() for name in wanted}
        images, conditions = (columns[name].astype(np.int64, casting="safe") for name in index)
        values = np.array([columns[name] for name in wanted[len(index) :]], dtype=np.float64)
    except (pa.ArrowException, KeyError, TypeError, OSError) as error:
        raise ValueError(f"not a per-image file: {' '.join(str(error).split())[:200]}") from error
    tables, images, conditions = crossed(values, images, conditions)
    if axis and not np.array_equal(tables[-1], np.broadcast_to(tables[-1][0], tables[-1].shape), equal_nan=True):
        raise ValueError(f"{axis} must be the same for every image under a condition")
    return PerImage(
        metrics=dict(zip(metrics, tables, strict=False)),
        images=images,
        conditions=conditions,
        axis=tables[-1][0] if axis else None,
    )


def _readers(
    client: MlflowClient, sweep: SweepRecord
) -> tuple[Callable[[StageRun, str], PerImage | None], Callable[[StageRun], dict[int, float]]]:
    """What reads a run's per-image metrics on a test set, and its curve; each only once."""
    metrics, axis = [metric.name for metric in sweep.metrics], sweep.axis.column if sweep.axis else None
    read: dict[tuple[str, str], PerImage | None] = {}
    curves: dict[str, dict[int, float]] = {}

    def per_image(run: StageRun, test: str) -> PerImage | None:
        place = run.run_id, test
        if place not in read:
            content = run.file(record.per_image_file(test))
            try:
                read[place] = read_per_image(content, metrics, axis) if content is not None else None
            except ValueError:
                read[place] = None
        return read[place]

    def curve(run: StageRun) -> dict[int, float]:
        if run.run_id not in curves:
            content = run.file(record.HISTORY_FILE) if run.status == FINISHED else None
            known = read_history(content, sweep.curve) if content is not None else None
            curves[run.run_id] = _curve(client, run.run_id, sweep.curve) if known is None else known
        return curves[run.run_id]

    return per_image, curve


def read_history(content: bytes, metric: str) -> dict[int, float] | None:
    """A metric by global step from a history file; None if it is no such file."""
    try:
        points = {int(step): metrics.get(metric) for step, metrics in json.loads(content)}
        return {step: float(points[step]) for step in sorted(points) if points[step] is not None}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _curve(client: MlflowClient, run_id: str, metric: str) -> dict[int, float]:
    points = client.get_metric_history(run_id, metric)
    return {point.step: point.value for point in sorted(points, key=lambda point: point.step)}


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


def _first_cause(error: BaseException) -> str:
    """What went wrong in the operating system's words, where it says so: not a library's account of its retries."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    named = [each for each in seen if isinstance(each, OSError) and each.strerror]
    return str(named[-1].strerror if named else seen[0])


def _experiments(client: MlflowClient) -> list[Experiment]:
    page = client.search_experiments()
    experiments = list(page)
    while page.token:
        page = client.search_experiments(page_token=page.token)
        experiments += page
    return experiments


def _stage_runs(client: MlflowClient, experiment_ids: list[str]) -> list[StageRun]:
    """Every run that carries a stage key, in an order that depends on nothing but the runs."""
    query, token, found = f"tags.`{record.TAG_STAGE_KEY}` LIKE '%'", None, list[Run]()
    while token != "":
        page = client.search_runs(experiment_ids, query, max_results=PAGE, page_token=token)
        found += page
        token = page.token or ""
    return [
        StageRun(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            status=run.info.status,
            start_time=run.info.start_time or 0,
            end_time=run.info.end_time or 0,
            metrics=dict(run.data.metrics),
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            artifacts=run.info.artifact_uri or "",
            tracking_uri=client.tracking_uri,
        )
        for run in sorted(found, key=_preference)
    ]


def _preference(run: Run) -> tuple[int, int, str]:
    return {FINISHED: 2, "RUNNING": 1}.get(run.info.status, 0), run.info.start_time or 0, run.info.run_id


def _wanted(runs: Sequence[StageRun], keys: Collection[str]) -> dict[str, StageRun | None]:
    """The run of each of some stages and of those before them; of several of a stage, the last."""
    by_key = {run.tags[record.TAG_STAGE_KEY]: run for run in runs}
    found: dict[str, StageRun | None] = {}
    waiting = sorted(keys)
    while waiting:
        key = waiting.pop()
        run = found[key] = by_key.get(key)
        if run is None:
            continue
        schema = run.tags.get(record.TAG_SCHEMA, "none")
        if schema != record.SCHEMA:
            raise ValueError(f"run must be of schema {record.SCHEMA}, got schema {schema} in run {run.run_id}")
        parent = run.tags.get(record.TAG_PARENT_KEY)
        if parent and parent not in found:
            waiting.append(parent)
    return found


def _search(client: MlflowClient, search: SearchRecord, runs: Sequence[StageRun]) -> SearchRuns:
    """The trials that the store has, the row as it was among them."""
    label, values = record.label_tag(record.LABEL_SEARCH), record.label_tag(record.LABEL_VALUES)
    found: dict[str, tuple[dict[str, float], dict[int, float]]] = {}
    for run in runs:
        key = run.tags[record.TAG_STAGE_KEY]
        if run.tags.get(label) == search.id or key == search.default_key:
            tried = search.defaults if key == search.default_key else _tried(run.tags.get(values, ""))
            curve = _curve(client, run.run_id, search.metric)
            found[key] = tried, {step - search.first_step: value for step, value in curve.items()}
    return SearchRuns(record=search, trials=tuple(found[key] for key in sorted(found)))


def _tried(text: str) -> dict[str, float]:
    """A trial's values; none where the tag holds something else."""
    try:
        return {str(name): float(value) for name, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return {}

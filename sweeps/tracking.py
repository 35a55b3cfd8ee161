"""The MLflow tracker: an experiment per study, a run per stage. The only file of `sweeps` that knows MLflow.

The driver is the only writer. Runs are found by their stage key, in any experiment of the store.
"""

import json
import logging
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, ParamSpec, TypeVar
from urllib.parse import quote, urlparse
from urllib.request import url2pathname

from sweeps import environment  # noqa: F401  # before MLflow

# isort: split
import mlflow
import requests
import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    Run,
    RunTag,
)
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _use_tracking_uri
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_RUN_NOTE
from PIL import Image

from sweeps import descriptions, record
from sweeps.cli import first_cause, sqlite_file, without_password
from sweeps.job import COSTS, DIGESTS, METRICS, STATE, Point
from sweeps.naming import got
from sweeps.provenance import Provenance
from sweeps.stages import Row, Stage, Values
from sweeps.sweep import StoreError

POINTS_AT_ONCE = 50
"""Steps in one request, which may hold 1,000 metrics."""
ANSWER = 20.0
"""Seconds in which a tracking server must answer."""
STRIP_STEP = 0
"""All runs log their strips at the same step, so that the compare view lines them up."""
JOINED = {
    record.TAG_COMMIT: " + ",
    record.TAG_CODE_DIGEST: "+",
    record.TAG_HARDWARE: " + ",
    record.TAG_DEVICES: " + ",
    record.TAG_VERSIONS: " + ",
}
"""Tags that name all that had a part in a run, and what stands between two of them."""
OF_TRAINING = (record.TAG_HARDWARE, record.TAG_DEVICES)
"""Those of them in which an evaluation of a finished run has no part: they are not what it was trained on."""


P = ParamSpec("P")
T = TypeVar("T")


def answering(method: Callable[P, T]) -> Callable[P, T]:
    """Make whatever a store raises a StoreError of one line."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (MlflowException, OSError) as error:  # those of requests are OSErrors
            reason = without_password(" ".join(str(error).split()))
            raise StoreError(f"{type(error).__name__}: {reason[:300]}") from error

    return call


class MLflowRun:
    """A finished run: what `Sweep` asks of it."""

    def __init__(self, client: MlflowClient, run: Run, downloads: Path) -> None:
        self._client, self._run, self._downloads = client, run, downloads
        self.fingerprints = {
            tag.removeprefix(record.TAG_PROTOCOL_PREFIX): value
            for tag, value in run.data.tags.items()
            if tag.startswith(record.TAG_PROTOCOL_PREFIX)
        }

    @property
    def run_id(self) -> str:
        """MLflow's id."""
        return str(self._run.info.run_id)

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of each metric."""
        return dict(self._run.data.metrics)

    @property
    def has_model(self) -> bool:
        """Whether the final model is there: not of a run in which nothing is trained."""
        return bool(_models(self._run))

    @property
    def model_id(self) -> str:
        """Id of the final model, a LoggedModel.

        Raises:
            ValueError: there is none.
        """
        if not self.has_model:
            raise ValueError(f"run {self.run_id} must have a model, got none: it was deleted")
        return _models(self._run)[-1]

    def model_folder(self) -> Path:
        """The final model's files: where they lie if the store is on this machine, else a copy fetched once."""
        location = self._client.get_logged_model(self.model_id).artifact_location
        if urlparse(location).scheme in ("", "file"):
            return Path(url2pathname(urlparse(location).path))
        folder = self._downloads / self.model_id
        if not folder.exists():
            self._downloads.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self._downloads) as partial:
                copy = mlflow.artifacts.download_artifacts(
                    artifact_uri=location, dst_path=partial, tracking_uri=self._client.tracking_uri
                )
                os.replace(copy, folder)
        return folder

    @answering
    def state_file(self) -> Path:
        """The stage's final training state."""
        return self.model_folder() / STATE


class MLflowTracker:
    """Writes a sweep to an MLflow store.

    Args:
        uri: tracking URI; a local SQLite file is created where it does not exist.
        artifacts: artifact folder for experiments created in a local store (a server decides for itself).
        experiment: name of the study.
        provenance: commit, code digest, preset, data: tags of every run.
        downloads: where models of a remote store are copied to.

    Raises:
        ValueError: the store can't be reached.
    """

    def __init__(self, *, uri: str, artifacts: Path, experiment: str, provenance: Provenance, downloads: Path) -> None:
        self._client, self._downloads = connect(uri), downloads
        self._provenance = provenance
        self._experiment_id = self._open_experiment(uri, artifacts, experiment)
        self._runs: dict[str, str] = {}
        self._logged: dict[str, set[int]] = {}

    @answering
    def publish(self, sweep: record.SweepRecord) -> None:
        """Say in the store what this sweep asks for."""
        for tag, value in record.to_tags(sweep).items():
            self._client.set_experiment_tag(self._experiment_id, tag, value)

    @answering
    def publish_search(self, search: record.SearchRecord) -> None:
        """Say in the store what a search has found."""
        self._client.set_experiment_tag(self._experiment_id, *search.to_tag())

    @answering
    def register(self, rows: Sequence[Row], metric: str) -> None:
        """Make the finished runs of each row the versions of a registered model of the row's name; its aliases are for
        the one of the largest validation `metric`. What is so already stays."""
        for row in rows:
            found = [(stage, self.find(stage)) for stage in row.stages if descriptions.is_registered(stage)]
            if runs := [(stage, run) for stage, run in found if run and run.has_model]:
                self._register(row.name, runs, metric)

    def _register(self, name: str, runs: Sequence[tuple[Stage, MLflowRun]], metric: str) -> None:
        model = self._registered_model(name, metric)
        known = self._client.search_model_versions(f"name = '{name}'")
        versions = {version.run_id: str(version.version) for version in known}
        for stage, run in runs:
            if run.run_id not in versions:
                versions[run.run_id] = self._add_version(name, stage, run, metric)
        best = max((run for _, run in runs), key=lambda run: run.metrics.get(metric, -math.inf))
        for alias in (descriptions.BEST, descriptions.best_of(self._provenance.preset)):
            if str(model.aliases.get(alias)) != versions[best.run_id]:
                self._client.set_registered_model_alias(name, alias, versions[best.run_id])

    def _registered_model(self, name: str, metric: str) -> RegisteredModel:
        try:
            return self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        return self._client.create_registered_model(name, description=descriptions.of_model(name, metric))

    def _add_version(self, name: str, stage: Stage, run: MLflowRun, metric: str) -> str:
        tags = {
            record.TAG_STUDY: self._provenance.study,
            record.TAG_PRESET: self._provenance.preset,
            record.TAG_SEED: str(stage.seed),
            record.TAG_STAGE_KEY: stage.key,
            **({metric: f"{run.metrics[metric]:.6g}"} if metric in run.metrics else {}),
        }
        description = descriptions.of_version(stage, self._provenance)
        with _as_default(self._client.tracking_uri):
            made = self._client.create_model_version(
                name, f"models:/{run.model_id}", run.run_id, tags, description=description, model_id=run.model_id
            )
        self._link(run.model_id, {"name": name, "version": str(made.version)})
        return str(made.version)

    def _link(self, model_id: str, version: dict[str, str]) -> None:
        """Let the pages of runs and models show a version. A server has done so, a database has not."""
        known = json.loads(self._client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
        if version not in ({**each, "version": str(each["version"])} for each in known):
            self._client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps([*known, version])})

    @answering
    def find(self, stage: Stage) -> MLflowRun | None:
        """The newest finished run of a stage."""
        return find_run(self._client, stage.key, self._downloads)

    @answering
    def trials(self, search: str) -> dict[int, Values]:
        """The values of each trial of a search, by its number."""
        query = f"tags.`{record.label_tag(record.LABEL_SEARCH)}` = '{search}'"
        runs = self._client.search_runs(_experiments(self._client), query)
        number, values = record.label_tag(record.LABEL_TRIAL), record.label_tag(record.LABEL_VALUES)
        return {int(run.data.tags[number]): json.loads(run.data.tags[values]) for run in runs}

    @answering
    def curve(self, stage: Stage, metric: str) -> dict[int, float]:
        """Values of a metric by global step, from the stage's run; empty where it has none."""
        run = self._own_run(stage)
        history = self._client.get_metric_history(run.info.run_id, metric) if run else []
        return {point.step: point.value for point in history}

    @answering
    def start(self, stage: Stage, rows: list[str]) -> int:
        """Open a run, or go on with the stage's own: left open by a killed driver, stopped, failed, or (where only
        evaluation is missing) finished."""
        run = self._own_run(stage)
        if run is None:
            run = self._create(stage, rows)
        else:
            self._take_up(stage, run, rows)
        self._runs[stage.key] = run.info.run_id
        return max(self._steps_logged(stage), default=-1)

    def _steps_logged(self, stage: Stage) -> set[int]:
        history = self._client.get_metric_history(self._runs[stage.key], "loss/total")
        self._logged[stage.key] = {point.step for point in history}
        return self._logged[stage.key]

    def _own_run(self, stage: Stage) -> Run | None:
        """The run to go on with. A second open one (its creation was retried, and both tries arrived) is deleted."""
        runs = _runs_of(self._client, stage.key)
        # Another driver's open run is its own business.
        mine = [run for run in runs if run.data.tags.get(record.TAG_OWNER) == self._provenance.owner]
        finished = [run for run in runs if run.info.status == "FINISHED"]
        order = ("RUNNING", "SCHEDULED", "KILLED", "FAILED")
        candidates = finished + [run for status in order for run in mine if run.info.status == status]
        for run in candidates[1:]:
            if run in mine and run.info.status == "RUNNING":
                self._client.delete_run(run.info.run_id)
        return candidates[0] if candidates else None

    @answering
    def adopt(self, stage: Stage, rows: list[str]) -> None:
        """Say of a finished run which rows it now stands for, and where their values are from."""
        run = self._own_run(stage)
        assert run is not None
        self._name(run, stage, rows)

    def _name(self, run: Run, stage: Stage, rows: list[str]) -> None:
        self._client.update_run(run.info.run_id, name=stage.title)
        tags = {**self._naming_tags(stage, rows), **_labels(stage)}
        if run.data.tags.get(record.TAG_ROWS) == tags[record.TAG_ROWS]:
            del tags[MLFLOW_RUN_NOTE]  # a person may have put something else there
        self._set_tags(run, tags)

    def _naming_tags(self, stage: Stage, rows: list[str]) -> dict[str, str]:
        return {
            record.TAG_ROWS: ", ".join(rows),
            MLFLOW_RUN_NOTE: descriptions.of_run(stage, rows, self._provenance),
        }

    def _set_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Those that are not so already, in one request."""
        new = [RunTag(tag, value) for tag, value in tags.items() if run.data.tags.get(tag) != value]
        if new:
            self._client.log_batch(run.info.run_id, tags=new)

    @answering
    def digests(self, stage: Stage) -> dict[str, str]:
        """Digests of a finished stage's final state and per-image metrics; empty where it is not finished."""
        finished = [run for run in _runs_of(self._client, stage.key) if run.info.status == "FINISHED"]
        tags = finished[0].data.tags if finished else {}
        return {name: value for name, value in tags.items() if name.startswith(record.TAG_DIGEST_PREFIX)}

    def _take_up(self, stage: Stage, run: Run, rows: list[str]) -> None:
        run_id = run.info.run_id
        if run.info.status not in ("FINISHED", "RUNNING"):
            self._client.update_run(run_id, status="RUNNING")
        for tag in (record.TAG_FAILURE, record.TAG_PRUNED):
            if tag in run.data.tags:
                self._client.delete_tag(run_id, tag)
        if self._provenance.diff and not self._has_diff(run_id):
            self._log_diff(run_id)
        self._set_tags(run, {**self._joined_tags(run), **self._provenance.data_tags()})
        self._name(run, stage, rows)

    def _joined_tags(self, run: Run) -> dict[str, str]:
        """What had a part in the run until now, and what has from now on."""
        tags, joined = self._provenance.tags(), dict[str, str]()
        for tag, between in JOINED.items():
            if tag in OF_TRAINING and run.info.status == "FINISHED":
                continue
            parts = [*run.data.tags.get(tag, "").split(between), tags[tag]]
            joined[tag] = between.join(dict.fromkeys(filter(None, parts)))
        if self._provenance.dirty:  # a clean checkout does not undo what a dirty one did
            joined[record.TAG_DIRTY] = tags[record.TAG_DIRTY]
        return joined

    @answering
    def close_abandoned(self, keys: Collection[str]) -> None:
        """Mark as stopped the runs that a killed driver of this folder left open, but for `keys`: those go on."""
        mine = f"tags.`{record.TAG_OWNER}` = '{self._provenance.owner}' AND attributes.status = 'RUNNING'"
        for run in self._client.search_runs(_experiments(self._client), mine):
            if run.data.tags[record.TAG_STAGE_KEY] not in keys:
                self._client.set_terminated(run.info.run_id, "KILLED")

    @answering
    def log(self, stage: Stage, points: Sequence[Point]) -> None:
        """Add points at global steps, but for those that are there: from before a resumption, or a lost answer."""
        logged = self._logged.pop(stage.key, None)  # forgotten if what follows raises
        if logged is None:
            logged = self._steps_logged(stage)
        new = [(step, metrics) for step, metrics in points if step not in logged]
        # Whole steps at once: a step is known to be there by one of its metrics.
        for start in range(0, len(new), POINTS_AT_ONCE):
            batch = [
                metric for step, metrics in new[start : start + POINTS_AT_ONCE] for metric in _points(metrics, step)
            ]
            self._client.log_batch(self._runs[stage.key], metrics=batch)
        self._logged[stage.key] = logged | {step for step, _ in new}

    @answering
    def pause(self, stage: Stage) -> None:
        """Mark the run as scheduled: MLflow has no paused."""
        self._client.update_run(self._runs[stage.key], status="SCHEDULED")

    @answering
    def prune(self, stage: Stage, reason: str) -> None:
        """Mark the run as killed, and say that it was pruned."""
        run = self._own_run(stage)
        if run is not None and run.data.tags.get(record.TAG_PRUNED) != reason:
            self._client.set_terminated(run.info.run_id, "KILLED")
            self._client.set_tag(run.info.run_id, record.TAG_PRUNED, reason)

    @answering
    def end(self, stage: Stage, result: Path | None, failure: str | None) -> None:
        """Log the result and finish the run; or mark it failed, with the reason; or as stopped."""
        run_id = self._runs[stage.key]
        if result is None:
            if failure is not None:
                self._client.set_tag(run_id, record.TAG_FAILURE, failure[:1000])
            if self._client.get_run(run_id).info.status != "FINISHED":  # what was trained stays trained
                self._client.set_terminated(run_id, "KILLED" if failure is None else "FAILED")
            return
        run = self._client.get_run(run_id)
        metrics = json.loads((result / METRICS).read_text())
        self._client.log_artifact(run_id, str(result / record.HISTORY_FILE))
        if (result / record.PER_IMAGE_FOLDER).exists():
            self._client.log_artifacts(run_id, str(result / record.PER_IMAGE_FOLDER), record.PER_IMAGE_FOLDER)
        if (result / record.STRIPS_FOLDER).exists():
            self._log_strips(run, result / record.STRIPS_FOLDER)
        if (result / "model").exists() and not _models(run):
            self._log_model(stage, run_id, result / "model")
        tests = {metric.split("/")[1] for metric in metrics}
        metrics |= self._costs(run, result, tests)
        digests = json.loads((result / DIGESTS).read_text())
        tags = [
            *(RunTag(record.protocol_tag(test), self._provenance.fingerprints[test]) for test in sorted(tests)),
            *(RunTag(record.TAG_DIGEST_PREFIX + name, digest) for name, digest in digests.items()),
        ]
        new = {name: value for name, value in metrics.items() if run.data.metrics.get(name) != value}
        self._client.log_batch(run_id, metrics=_points(new, stage.last_step), tags=tags)
        self._client.set_terminated(run_id, "FINISHED")

    def _costs(self, run: Run, result: Path, tests: Collection[str]) -> dict[str, float]:
        """What the run has cost with this result; nothing new where an end that was cut off has said so already."""
        fingerprints = self._provenance.fingerprints
        said = bool(tests) and all(run.data.tags.get(record.protocol_tag(test)) == fingerprints[test] for test in tests)
        if said or not (result / COSTS).exists():  # a result of an earlier version has none
            return {}
        costs: dict[str, float] = json.loads((result / COSTS).read_text())
        costs[record.EVALUATION_SECONDS] += run.data.metrics.get(record.EVALUATION_SECONDS, 0.0)
        return costs

    def _create(self, stage: Stage, rows: list[str]) -> Run:
        tags = {
            record.TAG_SCHEMA: record.SCHEMA,
            record.TAG_STAGE_KEY: stage.key,
            record.TAG_STAGE: stage.name,
            **self._naming_tags(stage, rows),
            record.TAG_SEED: str(stage.seed),
            **self._provenance.tags(),
            **_labels(stage),
        }
        if stage.parent:
            tags[record.TAG_PARENT_KEY] = stage.parent.key
        run = self._client.create_run(self._experiment_id, run_name=stage.title, tags=tags)
        params = {
            **_flatten(asdict(stage.config)),
            "steps": stage.steps,
            "first_step": stage.first_step,
            "seed": stage.seed,
        }
        self._client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in params.items()])
        if self._provenance.diff:
            self._log_diff(run.info.run_id)
        parent = self.find(stage.parent) if stage.parent else None
        self._client.log_inputs(
            run.info.run_id,
            datasets=self._dataset_inputs(),
            models=[LoggedModelInput(parent.model_id)] if parent else None,
        )
        return run

    def _has_diff(self, run_id: str) -> bool:
        return any(file.path == record.DIFF_FILE for file in self._client.list_artifacts(run_id))

    def _log_diff(self, run_id: str) -> None:
        with TemporaryDirectory() as folder:  # MLflow takes bytes from files only
            file = Path(folder) / record.DIFF_FILE
            file.write_bytes(self._provenance.diff)
            self._client.log_artifact(run_id, str(file))

    def _dataset_inputs(self) -> list[DatasetInput]:
        return [
            DatasetInput(
                Dataset(name=name, digest=digest, source_type="digest", source=json.dumps({"digest": digest})),
                [InputTag("mlflow.data.context", name.split(" ")[0])],
            )
            for name, digest in self._provenance.data.items()
        ]

    def _log_strips(self, run: Run, strips: Path) -> None:
        """As files, and as images for MLflow's own page."""
        run_id, tests = run.info.run_id, [path.name for path in strips.iterdir()]
        # MLflow names each image anew, and a test set that has changed has other strips: what was there would stay.
        artifacts: Any = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._client.tracking_uri)
        for folder in ("images", record.STRIPS_FOLDER):
            for old in artifacts.list_artifacts(folder):
                if Path(old.path).name.split("~")[0] in tests:
                    artifacts.delete_artifacts(old.path)
        self._client.log_artifacts(run_id, str(strips), record.STRIPS_FOLDER)
        for path in sorted(strips.glob("*/*.png")):
            with Image.open(path) as image:
                self._client.log_image(run_id, image, key=f"{path.parent.name}/{path.stem}", step=STRIP_STEP)

    def _delete_unfinished_models(self, run_id: str) -> None:
        """Those whose logging was cut off: no run has them as an output."""
        for model in self._client.search_logged_models(
            [self._experiment_id], filter_string=f"source_run_id = '{run_id}'"
        ):
            self._client.delete_logged_model(model.model_id)

    def _log_model(self, stage: Stage, run_id: str, folder: Path) -> None:
        self._delete_unfinished_models(run_id)
        name = re.sub(r"[^\w]+", "-", stage.title)  # MLflow takes no more
        model = self._client.create_logged_model(
            self._experiment_id, name=name, source_run_id=run_id, model_type="stage"
        )
        self._client.log_model_artifacts(model.model_id, str(folder))
        self._client.finalize_logged_model(model.model_id, "READY")
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=stage.last_step)])

    @answering
    def _open_experiment(self, uri: str, artifacts: Path, name: str) -> str:
        if experiment := self._client.get_experiment_by_name(name):
            return str(experiment.experiment_id)
        location = None if uri.startswith("http") else (artifacts.resolve() / name).as_uri()
        tags = {MLFLOW_RUN_NOTE: descriptions.EXPERIMENT}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))


def connect(uri: str, *, create: bool = True) -> MlflowClient:
    """A client of the store; a new SQLite store gets its tables here, before anything else touches it.

    Raises:
        ValueError: the store can't be reached, or (`create` False) there is none yet.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # Its traceback at every try (a full disk) would bury the one line that is said.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        if uri.startswith("sqlite:"):
            file = sqlite_file(uri)
            if file is None or file.name in ("", ":memory:"):
                raise ValueError("a store in memory is gone with the sweep")
            if not create and not file.exists():
                raise FileNotFoundError("no such file; run a sweep first")
            file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file)) as database:  # MLflow would try for 100 s to open what can't be opened
                database.execute("PRAGMA schema_version")
        _require_answer(uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # each kind of store raises its own
        shown = without_password(uri)
        if getattr(error, "error_code", "") == "UNAUTHENTICATED":
            raise ValueError(
                "the tracking server must be given a user's name and password (MLFLOW_TRACKING_USERNAME, "
                f"MLFLOW_TRACKING_PASSWORD), got 401 Unauthorized from {shown}"
            ) from error
        reason = first_cause(error, hidden=uri)
        raise ValueError(
            f"the tracking URI must be a store that answers (sqlite:///FILE or http://HOST:PORT), got {shown}: {reason}"
        ) from error
    return client


@contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Make a store the process's default: it is where MLflow looks for `models:/ID`, whatever the client's store is."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        if before is not None:  # MLflow has removed it
            os.environ["MLFLOW_TRACKING_URI"] = before


def _require_answer(uri: str) -> None:
    """Ask once: MLflow would try again and again, for 100 s where a database refuses a connection.

    Raises:
        OSError, sqlalchemy.exc.SQLAlchemyError: there is no answer.
    """
    if uri.startswith(("http://", "https://")):
        requests.head(uri, timeout=ANSWER)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        engine = sqlalchemy.create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def find_run(client: MlflowClient, key: str, downloads: Path) -> MLflowRun | None:
    """The newest finished run of a stage key, in any experiment."""
    finished = [run for run in _runs_of(client, key) if run.info.status == "FINISHED"]
    return MLflowRun(client, finished[0], downloads) if finished else None


def find_model_folder(uri: str, *, study: str, preset: str | None, row: str, seed: int, downloads: Path) -> Path:
    """Folder of the final model of a row, as the latest sweep of a preset (None: of any) asked for it.

    Raises:
        ValueError: no such sweep, row or seed, or the row is not trained yet.
    """
    client = connect(uri, create=False)
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        raise ValueError(f"the study must be one that was swept (python -m sweeps.ablation), got {study!r}")
    rows = {
        line.name: line
        for table in record.from_tags(experiment.tags, preset).tables
        for line in table.rows
        if line.trained and not line.optional
    }
    if row not in rows:
        raise ValueError(f"the row must be one of {', '.join(rows)}; {got(row, rows)}")
    keys = rows[row].keys
    if str(seed) not in keys:
        raise ValueError(f"the seed must be one of {', '.join(keys)}; got {seed}")
    run = find_run(client, keys[str(seed)], downloads)
    if run is None:
        raise ValueError(f"row {row!r} must be trained first, and its run is not finished: python -m sweeps.ablation")
    return run.model_folder()


def _runs_of(client: MlflowClient, key: str) -> list[Run]:
    """All runs of a stage, in any experiment, the newest first."""
    query = f"tags.`{record.TAG_STAGE_KEY}` = '{key}'"
    return list(client.search_runs(_experiments(client), query, order_by=["attributes.start_time DESC"]))


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]


def _models(run: Run) -> list[str]:
    """Ids of the models that are a run's outputs."""
    return [str(model.model_id) for model in run.outputs.model_outputs] if run.outputs else []


def _points(metrics: Mapping[str, float], step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in metrics.items()]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _labels(stage: Stage) -> dict[str, str]:
    return {record.label_tag(name): text for name, text in stage.labels}


def refused(uri: str) -> bool:
    """Whether a tracking server wants other credentials than the client has.

    Raises:
        OSError, MlflowException: it does not answer, or not as MLflow's does.
    """
    _require_answer(uri)
    try:
        MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return True
        raise
    return False


def schema_state(uri: str) -> Literal["empty", "foreign", "older", "current", "newer"]:
    """How a database's tables stand to those of this MLflow; writes nothing, a SQLite file must exist.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, ImportError: it can't be read.
    """
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///file:{quote(uri.removeprefix('sqlite:///'))}?mode=ro&uri=true"
    engine = sqlalchemy.create_engine(uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            tables = sqlalchemy.inspect(connection).get_table_names()
    finally:
        engine.dispose()
    if found is None:
        return "foreign" if tables else "empty"
    if found == scripts.get_current_head():
        return "current"
    known = {script.revision for script in scripts.walk_revisions()}
    return "older" if found in known else "newer"

"""A store as large as a long project's: filled as `sweeps` fills one, with made-up numbers.

The first run is MLflow's own work; the others are its rows in the database, copied, as MLflow takes 50 ms for a run.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Metric as Point
from mlflow.entities import Param
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME as NAME

from sweeps import record
from sweeps.record import Axis, Metric, RowRecord, SweepRecord, TableRecord
from sweeps.tracking import connect

STUDY = "large"
TEST = "CelebA"
FACES, KERNELS = 100, 80
CURVE, PARAMS = 10, 40
"""Points of each curve, and parameters of each run."""
CURVES = ("validation/psnr", "validation/gain", "loss/total", "loss/content")
DATABASE = "mlflow.db"
COPIED = ("runs", "tags", "params", "metrics", "latest_metrics")
"""Tables of MLflow's database that tell of a run, by its id."""


def fill(folder: Path, *, rows: int, seeds: int) -> None:
    """Make a store in `folder` with one table: so many rows, of so many seeds each."""
    client = connect(f"sqlite:///{folder / DATABASE}")
    artifacts = folder / "artifacts"
    experiment = client.create_experiment(STUDY, artifact_location=artifacts.as_uri())
    for tag, value in record.to_tags(_record(rows, seeds)).items():
        client.set_experiment_tag(experiment, tag, value)
    rng = np.random.default_rng(0)
    history = [(100 * point, dict.fromkeys(CURVES, 20 + 0.1 * point)) for point in range(1, CURVE + 1)]
    first = ""
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        for row, seed in product(range(rows), range(1, seeds + 1)):
            columns = _per_image(23 + 0.05 * row + 0.05 * rng.standard_normal(), rng)
            means = {record.test_metric(TEST, name): float(np.mean(columns[name])) for name in ("psnr", "ssim")}
            if first:
                run = uuid4().hex
                _copy_run(database, first, run, _tags(row, seed), means)
            else:
                run = first = _add_run(client, experiment, _tags(row, seed), means, history)
            file = artifacts / run / "artifacts" / record.per_image_file(TEST)
            file.parent.mkdir(parents=True)
            pq.write_table(pa.table(columns), file)
            (artifacts / run / "artifacts" / record.HISTORY_FILE).write_text(json.dumps(history))


def _record(rows: int, seeds: int) -> SweepRecord:
    numbers = range(1, seeds + 1)
    lines = [
        RowRecord(
            name=f"row-{row}",
            cells=[f"Row {row}"],
            keys={str(seed): f"row-{row}-{seed}" for seed in numbers},
            published={},
        )
        for row in range(rows)
    ]
    return SweepRecord(
        study=STUDY,
        preset="made-up",
        seeds=list(numbers),
        tests=[TEST],
        fingerprints={TEST: "protocol"},
        metrics=[Metric(name="psnr", label="PSNR", decimals=2), Metric(name="ssim", label="SSIM", decimals=3)],
        tables=[TableRecord(title="Table 1", caption="Made up.", headings=["Model"], rows=lines)],
        comparable=False,
        notes=[],
        axis=Axis(column="kernel_size", label="Kernel size (pixels)"),
    )


def _tags(row: int, seed: int) -> dict[str, str]:
    stage = f"row {row} · content"
    return {
        record.TAG_SCHEMA: record.SCHEMA,
        record.TAG_STAGE_KEY: f"row-{row}-{seed}",
        record.TAG_STAGE: stage,
        record.TAG_ROWS: f"row-{row}",
        record.TAG_SEED: str(seed),
        record.TAG_STUDY: STUDY,
        record.TAG_PRESET: "made-up",
        record.TAG_COMMIT: "0" * 40,
        record.TAG_DIRTY: "false",
        record.TAG_CODE_DIGEST: "code",
        record.TAG_HARDWARE: "made up",
        record.TAG_DEVICES: "1 core",
        record.data_tag("train faces"): "faces",
        record.data_tag("kernels"): "kernels",
        record.data_tag(f"test {TEST}"): "test",
        record.protocol_tag(TEST): "protocol",
        NAME: f"{stage} · seed {seed}",
    }


def _add_run(
    client: MlflowClient,
    experiment: str,
    tags: Mapping[str, str],
    means: Mapping[str, float],
    history: Sequence[tuple[int, Mapping[str, float]]],
) -> str:
    curves = [Point(name, value, 0, step) for step, values in history for name, value in values.items()]
    finals = {**means, record.TRAINING_SECONDS: 100.0, record.EVALUATION_SECONDS: 10.0}
    run: str = client.create_run(experiment, tags=tags).info.run_id
    client.log_batch(
        run,
        [*curves, *(Point(name, value, 0, 1000) for name, value in finals.items())],
        [Param("steps", "1000"), *(Param(f"field.{number}", str(number)) for number in range(PARAMS))],
    )
    client.set_terminated(run, "FINISHED")
    return run


def _copy_run(
    database: sqlite3.Connection, first: str, run: str, tags: Mapping[str, str], means: Mapping[str, float]
) -> None:
    for table in COPIED:
        names = [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]
        values = ", ".join("?1" if name == "run_uuid" else name for name in names)
        database.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = ?2", (run, first))
    database.execute(
        "UPDATE runs SET name = ?1, artifact_uri = replace(artifact_uri, ?2, ?3) WHERE run_uuid = ?3",
        (tags[NAME], first, run),
    )
    for key, text in tags.items():
        database.execute("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", (text, run, key))
    for key, mean in means.items():
        for table in ("metrics", "latest_metrics"):
            database.execute(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", (mean, run, key))


def _per_image(level: float, rng: np.random.Generator) -> dict[str, object]:
    face, kernel = np.divmod(np.arange(FACES * KERNELS), KERNELS)
    psnr = level + rng.standard_normal(FACES)[face] - 0.03 * kernel + 0.3 * rng.standard_normal(FACES * KERNELS)
    return {
        record.COLUMN_IMAGE: face,
        record.COLUMN_CONDITION: kernel,
        "psnr": psnr,
        "ssim": 0.5 + 0.015 * psnr,
        "ssim_2d": 0.4 + 0.015 * psnr,
        "psnr_aligned": psnr + 0.1,
        "kernel_size": 13 + 2 * (kernel // 10),
    }

"""Small tracking stores, made with MLflow's own client, and what is in them."""

import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from posixpath import dirname

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Metric as Point
from mlflow.entities import Param
from PIL import Image

from analysis.load import PerImage, StageRun, Sweep, read_per_image
from sweeps import record
from sweeps.record import Axis, Metric, RowRecord, SweepRecord, TableRecord

PUBLISHED = {
    "Multi-scale (1 scale)": (22.70, 0.824, 22.19, 0.844),
    "Multi-scale (2 scales)": (23.30, 0.847, 22.57, 0.856),
    "Multi-task (2 scales)": (23.69, 0.852, 23.04, 0.859),
    "Content loss": (23.69, 0.852, 23.04, 0.859),
    "+ Perceptual loss": (24.21, 0.857, 23.48, 0.864),
    "+ Adversarial loss": (24.25, 0.864, 23.56, 0.871),
}
IMAGES, CONDITIONS = 6, 12
SHOWN = ((0, 0), (2, 1), (4, 3))
"""Image and condition of each strip."""


class Store:
    """A store that a test fills as `sweeps` would."""

    def __init__(self, folder: Path, database: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.uri = f"sqlite:///{shutil.copy(database, folder / 'mlflow.db')}"
        self.client = MlflowClient(self.uri)

    def experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found:
            return found.experiment_id
        return self.client.create_experiment(name, artifact_location=(self.folder / "artifacts").as_uri())

    def add_sweep(self, sweep: SweepRecord) -> None:
        for tag, value in record.to_tags(sweep).items():
            self.client.set_experiment_tag(self.experiment(sweep.study), tag, value)

    def add_run(
        self,
        key: str,
        metrics: Mapping[str, float] | None = None,
        *,
        study: str = "tables",
        status: str = "FINISHED",
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
        start_time: int = 0,
        per_image: bool | Mapping[str, object] = True,
        curve: Mapping[int, float] | None = None,
        shown: tuple[tuple[int, int], ...] = (),
    ) -> str:
        """A run with final CelebA metrics; per-image files around them, a curve and image strips if wanted."""
        common = {
            record.TAG_SCHEMA: record.SCHEMA,
            record.protocol_tag("CelebA"): "proto",
            record.TAG_CODE_DIGEST: "code",
            record.TAG_COMMIT: "c0ffee",
        }
        run = self.client.create_run(
            self.experiment(study),
            start_time=start_time,
            tags={record.TAG_STAGE_KEY: key, **common, **(tags or {})},
        ).info.run_id
        points = [Point(record.test_metric("CelebA", name), value, 0, 0) for name, value in (metrics or {}).items()]
        points += [Point("validation/psnr", value, 0, step) for step, value in (curve or {}).items()]
        self.client.log_batch(run, points, [Param(name, str(value)) for name, value in (params or {}).items()])
        if per_image and metrics:
            columns = around(metrics) if per_image is True else per_image
            self.log(run, record.per_image_file("CelebA"), parquet(columns))
        for pair in shown:
            self.log(run, record.strip_file("CelebA", *pair), strip(pair, key))
        if status != "RUNNING":
            self.client.set_terminated(run, status, end_time=start_time + 1)
        return run

    def log(self, run: str, path: str, content: bytes) -> None:
        file = self.folder / Path(path).name
        file.write_bytes(content)
        self.client.log_artifact(run, str(file), dirname(path) or None)
        file.unlink()


def around(metrics: Mapping[str, float], noise: float = 0.01) -> dict[str, object]:
    """Columns of a per-image file with these means, the same ups and downs whatever the metric."""
    images, conditions = np.divmod(np.arange(IMAGES * CONDITIONS), CONDITIONS)
    wave = np.sin(1.0 + 3.0 * np.arange(IMAGES * CONDITIONS))
    wave -= wave.mean()
    return {
        record.COLUMN_IMAGE: images,
        record.COLUMN_CONDITION: conditions,
        **{name: value + noise * wave for name, value in {"psnr": 0.0, "ssim": 0.0, **metrics}.items()},
        "kernel_size": 13 + 2 * (conditions // 6),
    }


def parquet(columns: Mapping[str, object]) -> bytes:
    """A Parquet file of some columns."""
    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file)
    return file.getvalue()


def strip(pair: tuple[int, int], key: str) -> bytes:
    """A PNG of three tiles: degraded and truth are the pair's, what is between them the run's own."""
    tiles = [np.full((32, 32, 3), 40 * pair[0] + 10 * pair[1] + shade, np.uint8) for shade in (0, 20, 40)]
    tiles[1][:, :, 0] = sum(key.encode()) % 256
    for tile in tiles:
        tile[8:16, 4:28] = 255
    file = io.BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(file, "PNG")
    return file.getvalue()


def example_record(seeds: tuple[int, ...] = (1,)) -> SweepRecord:
    table_1 = ["Multi-scale (1 scale)", "Multi-scale (2 scales)", "Multi-task (2 scales)"]
    table_2 = ["Content loss", "+ Perceptual loss", "+ Adversarial loss"]
    return SweepRecord(
        study="tables",
        preset="quick",
        seeds=list(seeds),
        tests=["CelebA"],
        fingerprints={"CelebA": "proto"},
        metrics=[
            Metric(name="psnr", label="PSNR", decimals=2, unit="dB", relevant=0.1),
            Metric(name="ssim", label="SSIM", decimals=3, relevant=0.005),
        ],
        tables=[
            TableRecord(
                title="Table 1",
                caption="Quantitative evaluation of the multi-task framework.",
                headings=["Model", "Loss"],
                rows=[
                    _blurred(["Blurred input", ""], seeds),
                    *(_row(name, [name, "Content loss"], seeds) for name in table_1),
                ],
            ),
            TableRecord(
                title="Table 2",
                caption="Quantitative evaluation of the added losses.",
                headings=["Approach"],
                rows=[_blurred(["Blurred input"], seeds), *(_row(name, [name], seeds) for name in table_2)],
            ),
        ],
        comparable=False,
        notes=["The quick preset trains a small network on a small sample: its numbers are not the paper's."],
        licences=["CelebA: for non-commercial research only."],
        axis=Axis(column="kernel_size", label="Kernel size (pixels)"),
        zooms={"eyes": (0.2, 0.22, 0.8, 0.45)},
    )


def _blurred(cells: list[str], seeds: tuple[int, ...]) -> RowRecord:
    keys = {str(seed): "blurred" for seed in seeds}
    return RowRecord(name="blurred", cells=cells, keys=keys, published={}, trained=False)


def _row(name: str, cells: list[str], seeds: tuple[int, ...]) -> RowRecord:
    helen_psnr, helen_ssim, celeba_psnr, celeba_ssim = PUBLISHED[name]
    key = "Multi-task (2 scales)" if name == "Content loss" else name
    return RowRecord(
        name=name,
        cells=cells,
        keys={str(seed): f"{key}-{seed}" for seed in seeds},
        published={
            "Helen": {"psnr": helen_psnr, "ssim": helen_ssim},
            "CelebA": {"psnr": celeba_psnr, "ssim": celeba_ssim},
        },
    )


def sweep_of(asked: SweepRecord, runs: Mapping[str, StageRun | None], noise: float = 0.01) -> Sweep:
    """A sweep that is in no store: per-image metrics lie around each run's own, and there are no curves."""

    def per_image(run: StageRun, test: str) -> PerImage | None:
        means = {metric.name: run.metrics.get(record.test_metric(test, metric.name), 0.0) for metric in asked.metrics}
        return read_per_image(parquet(around(means, noise)), list(means), "kernel_size")

    return Sweep(record=asked, runs=runs, per_image=per_image, curve=lambda run: {})


def stage_run(
    psnr: float | None = None,
    status: str = "FINISHED",
    *,
    run_id: str = "run",
    protocol: str | None = "proto",
    start_time: int = 0,
    **tags: str,
) -> StageRun:
    """A run with final CelebA metrics; keywords are tags without the project's prefix."""
    found = {f"whetstone.{name}": value for name, value in {"code_digest": "code", **tags}.items()}
    if protocol:
        found[record.protocol_tag("CelebA")] = protocol
    return StageRun(
        run_id=run_id,
        experiment_id="1",
        status=status,
        start_time=start_time,
        end_time=start_time,
        metrics={} if psnr is None else {"test/CelebA/psnr": psnr, "test/CelebA/ssim": 0.5},
        params={},
        tags=found,
        artifacts="",
        tracking_uri="sqlite://",
    )


def fill(store: Store, seeds: tuple[int, ...] = (1, 2, 3)) -> dict[str, str]:
    """The whole example, trained: chains of stages with curves, costs, images; the run of each stage key."""
    asked = example_record(seeds)
    store.add_sweep(asked)
    runs = {
        "blurred": store.add_run("blurred", {"psnr": 20.0, "ssim": 0.7}, tags=_made(1, "blurred input"), shown=SHOWN)
    }
    for seed in seeds:
        for name, (psnr, stage, first_step, steps, parent) in STAGES.items():
            value = psnr + 0.02 * ((seed * len(name)) % 5)
            key = f"{name}-{seed}"
            tags = _made(seed, stage) | ({record.TAG_PARENT_KEY: f"{parent}-{seed}"} if parent else {})
            runs[key] = store.add_run(
                key,
                {"psnr": value, "ssim": value / 30},
                tags=tags,
                params={"steps": steps, "first_step": first_step, "losses.perceptual": 1e-3 if parent else 0.0},
                curve={first_step + steps // 2: value - 0.5, first_step + steps: value},
                shown=SHOWN,
                start_time=1000 * seed,
            )
            costs = {record.TRAINING_SECONDS: 36.0 * steps, record.EVALUATION_SECONDS: 360.0}
            store.client.log_batch(runs[key], [Point(cost, spent, 0, 0) for cost, spent in costs.items()])
    return runs


STAGES = {
    "Multi-scale (1 scale)": (21.0, "1 scale · content", 0, 200, ""),
    "Multi-scale (2 scales)": (21.5, "2 scales · content", 0, 200, ""),
    "Multi-task (2 scales)": (22.0, "multi-task · content", 0, 200, ""),
    "+ Perceptual loss": (22.5, "multi-task · +perceptual", 200, 100, "Multi-task (2 scales)"),
    "+ Adversarial loss": (23.5, "multi-task · +adversarial", 300, 100, "+ Perceptual loss"),
}
"""PSNR, stage, first step, steps and parent of the last stage of each trained row."""


def _made(seed: int, stage: str) -> dict[str, str]:
    return {
        record.TAG_SEED: str(seed),
        record.TAG_STAGE: stage,
        record.TAG_HARDWARE: "a processor",
        record.TAG_DEVICES: "2 cores",
        record.TAG_VERSIONS: "python 3.11.9, torch 2.15.0",
        record.TAG_DIRTY: "false",
        record.data_tag("train faces"): "feed",
        record.data_tag("test CelebA"): "beef",
    }

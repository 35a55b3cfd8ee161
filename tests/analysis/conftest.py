"""A small tracking store, made with MLflow's own client in a temporary folder."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from sweeps import record
from sweeps.record import Metric, RowRecord, SweepRecord, TableRecord

PUBLISHED = {
    "Multi-scale (1 scale)": (22.70, 0.824, 22.19, 0.844),
    "Multi-scale (2 scales)": (23.30, 0.847, 22.57, 0.856),
    "Multi-task (2 scales)": (23.69, 0.852, 23.04, 0.859),
    "Content loss": (23.69, 0.852, 23.04, 0.859),
    "+ Perceptual loss": (24.21, 0.857, 23.48, 0.864),
    "+ Adversarial loss": (24.25, 0.864, 23.56, 0.871),
}


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
        metrics: dict[str, float] | None = None,
        *,
        study: str = "tables",
        status: str = "FINISHED",
        tags: dict[str, str] | None = None,
        start_time: int = 0,
        faces: int = 0,
    ) -> str:
        """A run with final CelebA metrics and as many image strips as there are faces."""
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
        for name, value in (metrics or {}).items():
            self.client.log_metric(run, record.test_metric("CelebA", name), value)
        for face in range(faces):
            self._log(run, record.strip_file("CelebA", face), _strip(face))
        if status != "RUNNING":
            self.client.set_terminated(run, status)
        return run

    def _log(self, run: str, path: str, content: bytes) -> None:
        file = self.folder / Path(path).name
        file.write_bytes(content)
        self.client.log_artifact(run, str(file), str(Path(path).parent))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make a database, so it makes one."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def make_store(empty_database: Path) -> Callable[[Path], Store]:
    return lambda folder: Store(folder, empty_database)


@pytest.fixture
def store(tmp_path: Path, make_store: Callable[[Path], Store]) -> Store:
    return make_store(tmp_path)


@pytest.fixture
def example() -> SweepRecord:
    """The two tables of the built-in study, one seed, one test set; a row's key is `<name>-<seed>`."""
    table_1 = ["Multi-scale (1 scale)", "Multi-scale (2 scales)", "Multi-task (2 scales)"]
    table_2 = ["Content loss", "+ Perceptual loss", "+ Adversarial loss"]
    return SweepRecord(
        study="tables",
        preset="quick",
        seeds=[1],
        tests=["CelebA"],
        fingerprints={"CelebA": "proto"},
        metrics=[
            Metric(name="psnr", label="PSNR", decimals=2),
            Metric(name="ssim", label="SSIM", decimals=3),
        ],
        tables=[
            TableRecord(
                title="Table 1",
                caption="Quantitative evaluation of the multi-task framework.",
                headings=["Model", "Loss"],
                rows=[
                    _blurred(["Blurred input", ""]),
                    *(_row(name, [name, "Content loss"]) for name in table_1),
                ],
            ),
            TableRecord(
                title="Table 2",
                caption="Quantitative evaluation of the added losses.",
                headings=["Approach"],
                rows=[_blurred(["Blurred input"]), *(_row(name, [name]) for name in table_2)],
            ),
        ],
        comparable=False,
        notes=["The quick preset trains a small network on a small sample: its numbers are not the paper's."],
    )


def _blurred(cells: list[str]) -> RowRecord:
    return RowRecord(name="blurred", cells=cells, keys={"1": "blurred"}, published={}, trained=False)


def _row(name: str, cells: list[str]) -> RowRecord:
    helen_psnr, helen_ssim, celeba_psnr, celeba_ssim = PUBLISHED[name]
    key = "Multi-task (2 scales)" if name == "Content loss" else name
    return RowRecord(
        name=name,
        cells=cells,
        keys={"1": f"{key}-1"},
        published={
            "Helen": {"psnr": helen_psnr, "ssim": helen_ssim},
            "CelebA": {"psnr": celeba_psnr, "ssim": celeba_ssim},
        },
    )


def _strip(face: int) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((96, 32)).rotate(90 * face).convert("RGB").save(file, "PNG")
    return file.getvalue()

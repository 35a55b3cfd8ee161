"""Stores for tests to fill."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stores import Store, example_record, fill

from sweeps.record import SweepRecord


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


@pytest.fixture(scope="session")
def filled(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with all that `fill` puts into it, for tests that only read; `runs` has the run of each stage key."""
    store = Store(tmp_path_factory.mktemp("filled"), empty_database)
    store.runs = fill(store)
    return store


@pytest.fixture
def example() -> SweepRecord:
    """The two tables of the built-in study, one seed, one test set; a row's key is `<name>-<seed>`."""
    return example_record()

"""What all tests share: small synthetic faces, a cache of their own."""

import os

import pytest
import tiny
from nodes import CREDENTIALS

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


for own in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(own, None)  # a person's own store and cluster are no place for tests
# One token for all: Ray reads it once in a process, and a person's own stays what it is.
os.environ.update(CREDENTIALS)


@pytest.fixture(autouse=True)
def no_store_of_another_test():
    """MLflow can put a store into the environment, where the sweeps of later tests would find it."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def faces_folder(tmp_path_factory):
    """A folder of 24 made-up face-like images of 128x128 pixels: smooth blobs with sharp edges."""
    folder = tmp_path_factory.mktemp("faces")
    tiny.make_faces(folder)
    return folder

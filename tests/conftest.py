"""What all tests share: small synthetic faces, a cache of their own."""

import os

import pytest
import tiny

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def faces_folder(tmp_path_factory):
    """A folder of 24 made-up face-like images of 128x128 pixels: smooth blobs with sharp edges."""
    folder = tmp_path_factory.mktemp("faces")
    tiny.make_faces(folder)
    return folder

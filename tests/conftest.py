"""What all tests share: small synthetic faces, a cache of their own."""

import os

import numpy as np
import pytest
from PIL import Image

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def faces_folder(tmp_path_factory):
    """A folder of 24 made-up face-like images of 128x128 pixels: smooth blobs with sharp edges."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128]
    for index in range(24):
        image = np.full((128, 128, 3), rng.uniform(60, 200, 3))
        for _ in range(6):
            y, x, radius = rng.uniform(20, 108), rng.uniform(20, 108), rng.uniform(5, 25)
            image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.uniform(0, 255, 3)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index:02d}.png")
    return folder

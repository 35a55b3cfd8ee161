"""The tiny sweep as a person would type it, what it needs on disk, and the processes below a driver."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from datasets import assets
from sweeps.launch import Request

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "generator.width": 6,
    "generator.blocks": 1,
    "schedule.content": 20,
    "schedule.perceptual": 10,
    "schedule.adversarial": 10,
    "data.image_size": 32,
    "data.kernel_sizes": "[3, 5]",
    "data.kernels_per_size": 8,
    "data.test_kernels_per_size": 1,
    "data.test_faces": 4,
    "data.validation_faces": 4,
    "discriminator_width": 4,
    "batch_size": 2,
}
WORKER = "ray::ImplicitFunc"
"""How the command line of a trial's process begins."""
VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)


class Silent:
    """A view that shows nothing."""

    def update(self, stage, state, step, metrics, note):
        """Nobody watches."""


def missing(what):
    """Skip the test, with the reason; CI must have everything."""
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


def command(cache, *arguments):
    """What `subprocess` needs to run a module of ours."""
    environment = {**os.environ, "WHETSTONE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return {"args": [sys.executable, "-m", *map(str, arguments)], "cwd": ROOT, "env": environment, "text": True}


def python(cache, *arguments):
    return subprocess.run(**command(cache, *arguments), capture_output=True)


def options(faces, runs, **changed):
    """Arguments of the tiny sweep; `changed` as in TINY."""
    settings = [text for name, value in {**TINY, **changed}.items() for text in ("--set", f"{name}={value}")]
    return ["sweeps.ablation", "--runs", runs, "--train-faces", faces, "--test-faces", f"Made up={faces}", *settings]


def request(folder, **changed):
    """The options of a sweep with none given, but for its engine, device and folder."""
    none_given = {
        "study": "tables",
        "preset": "quick",
        "train_faces": "celeba-sample",
        "test_faces": (),
        "assignments": (),
        "engine": "in-process",
        "address": None,
        "device": "cpu",
        "precision": "auto",
        "compiled": False,
        "fused": True,
        "fft": True,
        "cpus_per_trial": None,
        "gpus_per_trial": None,
        "runs": folder / "runs",
        "tracking_uri": None,
    }
    return Request(**none_given | changed)


def ablation(cache, faces, runs, *more, **changed):
    return python(cache, *options(faces, runs, **changed), *more)


def processes_below(ancestor, name):
    """Process ids below a process whose command line begins with `name` or runs a program of that name."""
    parents, found = {}, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_text()
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        program = line.split("\0")[0]
        if program.startswith(name) or Path(program).name == name:
            found.append(int(process.name))

    def below(pid):
        while pid := parents.get(pid, 0):
            if pid == ancestor:
                return True
        return False

    return [pid for pid in found if below(pid)]


def make_faces(folder):
    """24 made-up face-like images of 128x128 pixels: smooth blobs with sharp edges."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:128, :128]
    for index in range(24):
        image = np.full((128, 128, 3), rng.uniform(60, 200, 3))
        for _ in range(6):
            y, x, radius = rng.uniform(20, 108), rng.uniform(20, 108), rng.uniform(5, 25)
            image[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = rng.uniform(0, 255, 3)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{index:02d}.png")


def make_weights(cache):
    """Random VGG16 weights under the real asset's name: the real ones would have to be downloaded."""
    generator = torch.Generator().manual_seed(0)
    weights, layer, channels = {}, 0, 3
    for width in VGG16:
        if width == "pool":
            layer += 1
            continue
        scale = (2 / (channels * 9)) ** 0.5
        weights[f"features.{layer}.weight"] = scale * torch.randn(width, channels, 3, 3, generator=generator)
        weights[f"features.{layer}.bias"] = torch.zeros(width)
        layer, channels = layer + 2, width
    asset = assets.ASSETS["vgg16"]
    save_file(weights, cache / f"{asset.name}-{asset.sha256[:8]}{asset.suffix}")

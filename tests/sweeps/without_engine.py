"""Run by test_train.py in a process of its own: trains and resumes a stage with ray, mlflow and optuna blocked."""

import sys
from dataclasses import replace
from pathlib import Path


class Blocker:
    """Refuses to find the blocked packages, as if they weren't installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "mlflow", "optuna"):
            raise ModuleNotFoundError(f"{name} is blocked")


sys.meta_path.insert(0, Blocker())
sys.path.insert(0, str(Path.cwd()))

import torch  # noqa: E402

from sweeps.deblurring.config import DataConfig, GeneratorConfig, ScheduleConfig  # noqa: E402
from sweeps.deblurring.data import prepare_data  # noqa: E402
from sweeps.job import STATE, Job, Settings  # noqa: E402
from sweeps.presets import quick  # noqa: E402
from sweeps.studies import Inputs, tables  # noqa: E402
from sweeps.train import load_state, train_stage  # noqa: E402


class Killed(BaseException):
    """The end of the process."""


def die(step, metrics, earlier):
    if step == 2:
        raise Killed


folder, faces, cache = map(Path, sys.argv[1:])
config = replace(
    quick().config,
    generator=GeneratorConfig(width=6, blocks=1),
    schedule=ScheduleConfig(content=4),
    data=DataConfig(
        image_size=32, kernel_sizes=(3,), kernels_per_size=4, test_kernels_per_size=1, test_faces=2, validation_faces=2
    ),
    batch_size=2,
)
data = prepare_data(config.data, train=str(faces), tests={"Made up": str(faces)}, cache=cache, tell=print)
study = tables(Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption=""))
stage = next(row for row in study.rows if row.name == "multi-task").stages[0]
settings = Settings(cache=cache, log_every=1, checkpoint_every=1)
whole = Job(stage=stage, tests=data.tests, folder=folder / "whole")
train_stage(whole, settings, lambda *_: None)
resumed = replace(whole, folder=folder / "resumed")
try:
    train_stage(resumed, settings, die)
except Killed:
    train_stage(resumed, settings, lambda *_: None)
weights = [load_state(job.result / "model" / STATE)["state"]["generator"] for job in (whole, resumed)]
assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
print("bit-identical after a resume at step 2 of 4")

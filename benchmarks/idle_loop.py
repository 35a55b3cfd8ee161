"""`python -m benchmarks.idle_loop idle ...`: the longest chain of the idle study in a plain loop, with the options of
`sweeps.ablation`: no engine, no store, no view."""

from typing import Any

import click

from benchmarks import idle
from sweeps import cli
from sweeps.job import STATE, Job
from sweeps.launch import Launch, Request
from sweeps.train import train_stage

idle.register()


@click.command(name="benchmarks.idle_loop")
@cli.sweep_options
def main(**options: Any) -> int:
    """Train the stages of the longest chain one after another."""
    launch = Launch(Request(**options))
    study = launch.real_study([1])
    settings = launch.settings(launch.resources(1))
    longest = max(study.stages(), key=lambda stage: stage.last_step)
    start = None
    for stage in longest.chain():
        job = Job(stage=stage, tests=tuple(study.tests), folder=launch.request.runs / stage.key, start=start)
        train_stage(job, settings, lambda *_: None)
        start = job.result / "model" / STATE
    return 0


if __name__ == "__main__":
    cli.run(main)

"""From a request (what a person typed) to a sweep that ran: data, study, store, engine, and what is said meanwhile."""

import fcntl
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from datasets import assets
from sweeps import cli
from sweeps.deblurring.config import DeblurConfig, TrainingStage
from sweeps.deblurring.data import DeblurData, check_sources, planned_data, prepare_data
from sweeps.engine import Engine, InProcessEngine
from sweeps.overrides import apply_overrides
from sweeps.presets import PRESETS, Preset
from sweeps.progress import Progress
from sweeps.provenance import Provenance, code_digest, git_state
from sweeps.resources import Resources, resolve_device, share_out
from sweeps.stages import Stage, Study
from sweeps.studies import STUDIES, Inputs, describe
from sweeps.sweep import Sweep
from sweeps.train import Settings

if TYPE_CHECKING:
    from sweeps.tracking import MLflowTracker


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `python -m sweeps.ablation`."""

    study: str
    preset: str
    seeds: int
    plan: bool
    train_faces: str
    test_faces: tuple[str, ...]
    assignments: tuple[str, ...]
    engine: str
    device: str
    cpus_per_trial: int | None
    gpus_per_trial: float | None
    runs: Path
    tracking_uri: str | None


def launch(request: Request) -> int:
    """Do what was asked; the exit code is 1 where a stage failed.

    Raises:
        ValueError, OSError: a user's mistake, in one line.
    """
    console = Console()
    build = cli.lookup(STUDIES, request.study, "study")
    preset = cli.lookup(PRESETS, request.preset, "preset")()
    config = apply_overrides(preset.config, request.assignments)
    _require_effect(build, preset, request)
    tests = cli.pairs(request.test_faces, "--test-faces NAME=DIR")
    seeds = range(1, request.seeds + 1)

    def study_on(data: DeblurData, backbone_digest: str) -> Study:
        changed = f" Changed: {', '.join(request.assignments)}." if request.assignments else ""
        return build(
            Inputs(
                config=config, data=data, seeds=seeds, backbone_digest=backbone_digest, caption=preset.caption + changed
            )
        )

    check_sources(request.train_faces, tests)
    if request.plan:
        print_plan(console, study_on(planned_data(config.data, tests), ""))
        return 0
    device = resolve_device(request.device)
    cache = cli.cache_folder()
    with _only_driver(request.runs):
        uri = cli.tracking_uri(request.tracking_uri, request.runs)
        data = prepare_data(config.data, train=request.train_faces, tests=tests, cache=cache, tell=_teller(console))
        study = study_on(data, assets.ASSETS[config.backbone].sha256[:16])
        if any(isinstance(stage.config, TrainingStage) and stage.config.backbone for stage in study.stages()):
            assets.fetch(config.backbone, cache)
        for note in data.notes:
            console.print(escape(note), highlight=False)
        resources = share_out(
            study.stages(),
            device=device,
            cpus=request.cpus_per_trial,
            gpus=request.gpus_per_trial,
            one_at_a_time=request.engine == "in-process",
        )
        settings = Settings(
            cache=cache,
            device=device,
            threads=resources.cpus,
            log_every=preset.log_every,
            validate_every=preset.validate_every,
            checkpoint_every=preset.checkpoint_every,
        )
        tracker = _tracker(request, study, data, settings, uri)
        tracker.close_abandoned([stage.key for stage in study.stages()])
        tracker.publish(describe(study, request.preset, seeds))
        _say_where(console, request, uri)
        progress = Progress(console, study.stages())
        sweep = Sweep(study, tracker, progress, request.runs / "stages")
        if sweep.over():
            console.print(f"Nothing to train: all {len(sweep.stages)} stages are in the store already.")
            return 0
        return _run(console, sweep, progress, _engine(console, request, settings, resources))


def _run(console: Console, sweep: Sweep, progress: Progress, engine: Engine) -> int:
    # A plain `kill` is an interrupt too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with progress:
            engine.run(sweep)
    except KeyboardInterrupt:
        pass
    finally:
        interrupted = sweep.stop()
    if interrupted:
        console.print("Interrupted. The same command goes on from the last checkpoints.")
        return 130
    return _summary(console, sweep)


def _engine(console: Console, request: Request, settings: Settings, resources: Resources) -> Engine:
    if request.engine == "in-process":
        return InProcessEngine(settings)
    from sweeps import ray_engine

    address = ray_engine.start_ray(request.runs)
    if address:
        console.print(f"Ray dashboard   http://{address}   {ray_engine.token_hint()}", highlight=False)
    return ray_engine.RayEngine(settings, resources, request.runs)


def _say_where(console: Console, request: Request, uri: str) -> None:
    console.print(f"MLflow store    {escape(uri)}", highlight=False, soft_wrap=True)
    if uri == cli.own_store(request.runs):
        elsewhere = "" if request.runs == cli.DEFAULT_RUNS else f" RUNS={escape(str(request.runs))}"
        line = f"MLflow UI       `make ui{elsewhere}`, then http://127.0.0.1:5000"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Everything else {escape(str(request.runs.resolve()))}", highlight=False, soft_wrap=True)


def _summary(console: Console, sweep: Sweep) -> int:
    trained, evaluated, failed = sweep.trained_here(), sweep.evaluated_here(), sweep.failed()
    steps = sum(stage.steps for stage in trained)
    console.print(
        f"{len(trained)} stages trained ({steps:,} steps), {len(evaluated)} only evaluated, "
        f"{len(sweep.already_done)} were in the store already, {len(failed)} failed, {len(sweep.skipped())} skipped."
    )
    for stage in failed:
        console.print(f"failed:  {escape(stage.title)}", style="red")
    for stage in sweep.skipped():
        console.print(f"skipped: {escape(stage.title)}", style="yellow")
    return 1 if failed else 0


def print_plan(console: Console, study: Study) -> None:
    """The stage tree with steps, and what sharing prefixes saves."""
    trained = [stage for stage in study.stages() if stage.steps]
    tree = Tree(f"study {study.name}")
    branches: dict[str, Tree] = {}
    for stage in study.stages():
        above = branches[stage.parent.key] if stage.parent else tree
        branches[stage.key] = above.add(_plan_line(stage))
    console.print(tree, highlight=False)
    console.print(
        f"{len(trained)} stages, {study.tree_steps():,} iterations in place of {study.flat_steps():,} "
        "without shared prefixes",
        highlight=False,
    )


def _plan_line(stage: Stage) -> str:
    return f"{stage.title}: {stage.steps:,} iterations" if stage.steps else f"{stage.title}: evaluated only"


def _require_effect(build: Callable[[Inputs], Study], preset: Preset, request: Request) -> None:
    """Refuse a `--set` of what the study's rows decide: it would be ignored in silence."""
    data = planned_data(preset.config.data, {})

    def effect(config: DeblurConfig) -> tuple[object, ...]:
        inputs = Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="")
        return (config.data, *(stage.key for stage in build(inputs).stages()))

    for assignment in request.assignments:
        config = apply_overrides(preset.config, [assignment])
        if config != preset.config and effect(config) == effect(preset.config):
            field = assignment.partition("=")[0]
            raise ValueError(
                f"--set must name a field that study {request.study!r} does not decide itself, got {field}"
            )


def _tracker(request: Request, study: Study, data: DeblurData, settings: Settings, uri: str) -> "MLflowTracker":
    from sweeps.tracking import MLflowTracker

    commit, dirty = git_state()
    on_gpu = settings.device == "cuda"
    return MLflowTracker(
        uri=uri,
        artifacts=request.runs / "artifacts",
        experiment=study.name,
        provenance=Provenance(
            study=study.name,
            preset=request.preset,
            data=data.names,
            fingerprints={test.name: test.fingerprint for test in study.tests},
            owner=f"{platform.node()}:{request.runs.resolve()}",
            hardware=torch.cuda.get_device_name() if on_gpu else f"{platform.machine()}, threads: {settings.threads}",
            commit=commit,
            dirty=dirty,
            code=code_digest(),
        ),
        downloads=request.runs / "downloads",
    )


def _teller(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(escape(line), highlight=False, soft_wrap=True)


@contextmanager
def _only_driver(runs: Path) -> Iterator[None]:
    """Hold the folder's lock: two drivers would train the same stages twice. A killed driver's lock is gone with it.

    Raises:
        ValueError: another sweep holds it.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--runs must be a folder that no other sweep is using, got {runs.resolve()}") from None
        yield

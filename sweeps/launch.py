"""From a request (what a person typed) to a sweep that ran: data, study, store, engine, and what is said meanwhile."""

import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape

from datasets import assets
from sweeps import cli
from sweeps.deblurring.config import DeblurConfig, Precision, TrainingStage
from sweeps.deblurring.data import (
    DeblurData,
    check_sources,
    count_faces,
    files_of,
    image_counts,
    planned_data,
    prepare_data,
)
from sweeps.engine import Engine, InProcessEngine
from sweeps.estimate import Cost, Estimate, estimate
from sweeps.imports import importing
from sweeps.job import Settings
from sweeps.learner import Execution
from sweeps.naming import counted
from sweeps.overrides import apply_overrides
from sweeps.presets import PRESETS, Preset
from sweeps.progress import Progress
from sweeps.provenance import Provenance, code_digest, git_state, versions
from sweeps.resources import (
    Machine,
    Resources,
    best_precision,
    processor,
    require_compiler,
    resolve_device,
    share_out,
    slow_precision,
    this_machine,
)
from sweeps.stages import Stage, Study
from sweeps.studies import STUDIES, Inputs
from sweeps.sweep import Schedule, State, StoreError, Sweep

if TYPE_CHECKING:
    from sweeps.tracking import MLflowTracker


IMPORTED_BY_BOTH = (
    "opentelemetry.proto",
    "opentelemetry.sdk.metrics.export",
    "sweeps.ray_cluster",
    "ray._common.usage.usage_lib",
    "ray.dashboard",
)
"""By the start of Ray, and by the tracker or the engine."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options that all sweeps have in common (`cli.sweep_options`)."""

    study: str
    preset: str
    train_faces: str
    test_faces: tuple[str, ...]
    assignments: tuple[str, ...]
    engine: str
    address: str | None
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    compiled: bool
    fused: bool
    fft: bool
    cpus_per_trial: int | None
    gpus_per_trial: float | None
    runs: Path
    tracking_uri: str | None

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to join, if any.

        Raises:
            ValueError: one was asked for by an option, and the engine is not Ray.
        """
        if self.engine == "ray":
            return self.address or os.environ.get("RAY_ADDRESS")
        if self.address:
            raise ValueError(f"--address needs --engine ray, got {self.engine}")
        return None

    def execution(self, device: str) -> Execution:
        """How trials compute on `device`.

        Raises:
            ValueError: they are to compile on this machine, and there is no compiler.
        """
        if self.compiled and not self.cluster:
            require_compiler(device)
        return Execution(device=device, fused=self.fused, fft=self.fft, compiled=self.compiled)


class Launch:
    """A request, checked; data, machine and engine are looked at when they are first needed.

    Raises:
        ValueError, OSError: a user's mistake, in one line.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.console = Console()
        self.cache = cli.cache_folder()
        self._engine: Engine | None = None
        self._dashboard: str | None = None
        self._build = cli.lookup(STUDIES, request.study, "study")
        self.preset: Preset = cli.lookup(PRESETS, request.preset, "preset")()
        self.config = apply_overrides(self.preset.config, request.assignments)
        self._require_effect()
        self._tests = cli.pairs(request.test_faces, "--test-faces NAME=DIR")
        check_sources(request.train_faces, self._tests)

    @cached_property
    def data(self) -> DeblurData:
        """Prepared faces and kernels."""

        def tell(line: str) -> None:
            self.console.print(escape(line), highlight=False, soft_wrap=True)

        request = self.request
        data = prepare_data(self.config.data, train=request.train_faces, tests=self._tests, cache=self.cache, tell=tell)
        for note in (*data.notes, *data.licences):
            self.console.print(escape(note), highlight=False)
        return data

    def planned(self) -> DeblurData:
        """Stands for the data where nothing may be written."""
        return planned_data(self.config.data, self._tests)

    def require_faces(self) -> None:
        """Refuse folders that can be seen to hold too few faces, before any is read.

        Raises:
            ValueError: as `count_faces`.
        """
        count_faces(self.config.data, self.request.train_faces, self._tests)

    def require_machine(self) -> None:
        """Refuse what this machine can't do, before data are prepared and a folder is made. A cluster is not asked: its
        nodes may still be joining it.

        Raises:
            ValueError: there is no such device, no compiler, or no room for a trial.
        """
        if self.request.cluster is None:
            self.resources(wanted=1)
            _ = self.execution

    def costs(self, change: Callable[[Study], Study], seeds: Sequence[int], resources: Resources) -> list[Cost]:
        """The cost of each stage, in the order of `Study.stages`, measured on made-up data.

        Raises:
            ValueError: the steps would run on GPUs that this machine does not have.
        """
        import torch

        from sweeps.measure import measure_all
        from sweeps.stand_in import stand_in_data

        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--plan and --budget time steps on this machine, which must have a GPU as the cluster has")
        self.console.print("Timing a few steps of each kind of stage …")
        with TemporaryDirectory() as folder:
            made_up = Path(folder)
            data = stand_in_data(self.config.data, self._tests, self.config.backbone, made_up)
            study = change(self.study(data, seeds=seeds))
            stages = study.stages()
            test = study.tests[0]
            try:
                costs = measure_all(stages, test=test, execution=self.execution, threads=resources.cpus, cache=made_up)
            except RuntimeError as error:  # torch's, where memory does not suffice
                reason = " ".join(str(error).split())[:200]
                raise ValueError(f"--plan and --budget need stages that this machine can run, got {reason}") from error
        return [costs[stage.key] for stage in stages]

    def estimate(self, stages: Sequence[Stage], costs: Sequence[Cost], resources: Resources) -> Estimate:
        """What some stages would take, given the cost of each."""
        images = image_counts(self.config.data, tests=len(self._tests) or 1, validate_every=self.preset.validate_every)
        # Trials that share a GPU share its speed.
        places = min(resources.at_once, self.machine.gpus) if self.device == "cuda" else resources.at_once
        by_key = {stage.key: cost for stage, cost in zip(stages, costs, strict=True)}
        return estimate(stages, by_key, images, places=places)

    def study(
        self, data: DeblurData, *, seeds: Sequence[int], backbone_digest: str = "", precision: Precision | None = None
    ) -> Study:
        """The study on these data; in the request's precision, if none is given."""
        assignments = self.request.assignments
        changed = f" Changed: {', '.join(assignments)}." if assignments else ""
        caption = self.preset.caption.format(size=self.config.data.image_size) + changed
        return self._build(
            Inputs(
                config=self.config,
                data=data,
                seeds=seeds,
                backbone_digest=backbone_digest,
                caption=caption,
                precision=precision or self.precision,
            )
        )

    def real_study(self, seeds: Sequence[int], precision: Precision | None = None) -> Study:
        """The study on prepared data; the perceptual network's weights are there afterwards."""
        digest = assets.ASSETS[self.config.backbone].sha256[:16]
        study = self.study(self.data, seeds=seeds, backbone_digest=digest, precision=precision)
        if self._backbone(study):
            assets.fetch(self.config.backbone, self.cache)
        return study

    @cached_property
    def machine(self) -> Machine:
        """Where trials run; a cluster is joined."""
        if self.request.cluster is None:
            return this_machine()
        from sweeps import ray_cluster

        self._say_dashboard(ray_cluster.start_ray(self.request.runs, self.request.cluster))
        return ray_cluster.cluster()

    @cached_property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return resolve_device(self.request.device, self.machine)

    @cached_property
    def precision(self) -> Precision:
        """The same for all stages, wherever they are trained: it is part of their keys."""
        if self.request.precision != "auto":
            return self.request.precision
        return best_precision(self.device, self.machine)

    @cached_property
    def execution(self) -> Execution:
        """How trials compute; see `Request.execution`."""
        return self.request.execution(self.device)

    def resources(self, wanted: int) -> Resources:
        """A trial's share where `wanted` can run at once."""
        if self.request.engine == "in-process":
            wanted = 1
        return share_out(
            wanted,
            self.machine,
            device=self.device,
            cpus=self.request.cpus_per_trial,
            gpus=self.request.gpus_per_trial,
        )

    def settings(self, resources: Resources) -> Settings:
        """What the trainer is told."""
        preset = self.preset
        return Settings(
            cache=self.cache,
            execution=self.execution,
            threads=resources.cpus,
            log_every=preset.log_every,
            validate_every=preset.validate_every,
            checkpoint_every=preset.checkpoint_every,
        )

    def engine(self, study: Study, resources: Resources) -> Engine:
        """The engine asked for, started at the first call."""
        if self._engine is None:
            self._engine = self._start_engine(study, resources)
        return self._engine

    def _start_engine(self, study: Study, resources: Resources) -> Engine:
        settings = self.settings(resources)
        if self.request.engine == "in-process":
            return InProcessEngine(settings)
        from sweeps import ray_cluster, ray_engine

        files = {}
        if self.request.cluster is None:
            self._say_dashboard(self._start_ray())
        else:
            for node in ray_cluster.survey(self.request.runs):
                if not node.sees_runs:
                    raise ValueError(f"--runs must be a folder that all nodes share; {node.name} does not see it")
            files = files_of(self.data, self.config.backbone if self._backbone(study) else None, self.cache)
        return ray_engine.RayEngine(settings, resources, self.request.runs, files)

    @property
    def uri(self) -> str:
        """The tracking store."""
        return cli.tracking_uri(self.request.tracking_uri, self.request.runs)

    @importing("mlflow")
    def tracker(
        self, study: Study, resources: Resources, *, experiment: str, beside_ray: bool = True
    ) -> "MLflowTracker":
        """The store, open for this study.

        With `beside_ray`, Ray starts while a new store is made and Tune is imported: both take seconds, of which much
        is waiting.
        """
        request = self.request
        commit, dirty, diff = git_state()
        # A cluster's nodes may have other processors than the driver's.
        here = f"{platform.machine() if request.cluster else processor()}, threads: {resources.cpus}"
        if self.device == "cuda":
            import torch

            here = torch.cuda.get_device_name() if torch.cuda.is_available() else "cuda"
        here = ", ".join([here, *self.execution.choices])
        provenance = Provenance(
            study=study.name,
            preset=request.preset,
            data=self.data.names,
            fingerprints={test.name: test.fingerprint for test in study.tests},
            owner=_owner(request.runs),
            hardware=here,
            commit=commit,
            dirty=dirty,
            code=code_digest(),
            devices=resources.share,
            versions=versions(),
            diff=diff,
            licences=study.licences,
        )

        def open_store() -> "MLflowTracker":
            from sweeps.tracking import MLflowTracker

            return MLflowTracker(
                uri=self.uri,
                artifacts=request.runs / "artifacts",
                experiment=experiment,
                provenance=provenance,
                downloads=request.runs / "downloads",
            )

        if not beside_ray or request.engine != "ray" or request.cluster or not self._makes_store():
            return open_store()
        for name in IMPORTED_BY_BOTH:  # two threads must not import the same at once
            import_module(name)
        with _short_turns(), ThreadPoolExecutor(1) as other:
            store = other.submit(open_store)
            other.submit(import_module, "sweeps.ray_engine")
            self._start_ray()  # in this thread, with which Ray's processes end
            return store.result()

    def _makes_store(self) -> bool:
        """Whether the store is this folder's own, and not there yet: then there is something to train."""
        own = cli.own_store(self.request.runs)
        return self.uri == own and not (cli.sqlite_file(own) or Path()).exists()

    def _start_ray(self) -> str | None:
        """Start this machine's Ray, once; where it shows itself."""
        if self._dashboard is None:
            from sweeps import ray_cluster

            self._dashboard = ray_cluster.start_ray(self.request.runs) or ""
        return self._dashboard

    def say_where(self) -> None:
        """Where everything is to be found."""
        runs, uri = self.request.runs, self.uri

        def say(line: str) -> None:
            self.console.print(line, highlight=False, soft_wrap=True)

        how = [f"{self.precision} on {self.device}", *self.execution.choices]
        say(f"Training        {', '.join(how)}")
        self.say_if_slow()
        say(f"MLflow store    {escape(cli.without_password(uri))}")
        if uri == cli.own_store(runs):
            elsewhere = "" if runs == cli.DEFAULT_RUNS else f" RUNS={escape(str(runs))}"
            say(f"MLflow UI       `make ui{elsewhere}`, then http://127.0.0.1:5000")
        say(f"Everything else {escape(str(runs.resolve()))}")

    def say_if_slow(self) -> None:
        """Warn of a precision that this hardware lacks."""
        if line := slow_precision(self.precision, self.device, self.machine):
            self.console.print(f"{line}.", style="yellow", highlight=False, soft_wrap=True)

    def sweep(
        self, study: Study, stages: Sequence[Stage], tracker: "MLflowTracker", schedule: Schedule, *, evaluate: bool
    ) -> tuple[Sweep, Progress]:
        """A sweep over some stages of a study, and what shows it."""
        progress = Progress(self.console, stages)
        sweep = Sweep(
            stages=stages,
            tests=study.tests if evaluate else (),
            tracker=tracker,
            view=progress,
            folder=self.request.runs / "stages",
            schedule=schedule,
            rows={stage.key: study.rows_of(stage) for stage in stages},
        )
        return sweep, progress

    def _backbone(self, study: Study) -> bool:
        return any(isinstance(stage.config, TrainingStage) and stage.config.backbone for stage in study.stages())

    def _say_dashboard(self, address: str | None) -> None:
        from sweeps import ray_cluster

        if address:
            self.console.print(f"Ray dashboard   http://{address}   {ray_cluster.token_hint()}", highlight=False)

    def _require_effect(self) -> None:
        """Refuse a `--set` of what the study's rows decide: it would be ignored in silence."""
        data = planned_data(self.preset.config.data, {})

        def effect(config: DeblurConfig) -> tuple[object, ...]:
            inputs = Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="")
            return (config.data, *(stage.key for stage in self._build(inputs).stages()))

        for assignment in self.request.assignments:
            config = apply_overrides(self.preset.config, [assignment])
            if config != self.preset.config and effect(config) == effect(self.preset.config):
                field = assignment.partition("=")[0]
                raise ValueError(
                    f"--set must name a field that study {self.request.study!r} does not decide itself, got {field}"
                )


def run(launch: Launch, study: Study, sweep: Sweep, progress: Progress, resources: Resources) -> int:
    """Run a sweep over stages of a study to its end.

    Returns 130 if it was interrupted, 1 if the store was gone for too long, else 0.
    """
    engine = launch.engine(study, resources)
    reason, code = "Interrupted", 130
    try:
        with progress:
            engine.run(sweep)
    except KeyboardInterrupt:
        pass
    except StoreError as error:
        reason = f"Stopped: {error}"
        code = 1
    finally:
        interrupted = sweep.stop()
    if interrupted:
        launch.console.print(f"{escape(reason)}. The same command goes on from the last checkpoints.")
    return code if interrupted else 0


def summary(console: Console, sweep: Sweep) -> int:
    """Say what was done; 1 if a stage failed, else 0."""
    failed, skipped = sweep.all_in(State.FAILED), sweep.all_in(State.SKIPPED)
    console.print(
        f"{counted(len(sweep.trained), 'stage')} trained ({sweep.executed:,} steps), "
        f"{len(sweep.evaluated)} only evaluated, {len(sweep.already_done)} were in the store already, "
        f"{len(failed)} failed, {len(skipped)} skipped."
    )
    if sweep.repeated:
        console.print(f"At least {sweep.repeated:,} of these steps were done again: lost after the last checkpoint.")
    for stage in failed:
        console.print(f"failed:  {escape(stage.title)}", style="red")
    for stage in skipped:
        console.print(f"skipped: {escape(stage.title)}", style="yellow")
    return 1 if failed else 0


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let a thread that imports keep the interpreter for half a millisecond in place of five.

    The one that starts Ray mostly waits for processes, and needs the interpreter often and briefly.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _owner(runs: Path) -> str:
    """Whose open runs are its own: the folder's, whatever the name of the machine that drives it today."""
    file = runs / ".owner"
    if not file.exists():
        file.write_text(uuid.uuid4().hex)
    return file.read_text()

"""What `python -m sweeps.doctor` looks at: the facts of a request, for the checks of `checkup`."""

import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import torch

from datasets.assets import ASSETS
from sweeps import checkup, cli
from sweeps.checkup import Finding, Level
from sweeps.deblurring.config import DataConfig
from sweeps.deblurring.data import CELEBA_SAMPLE, DEFAULT_TEST, check_sources, count_faces
from sweeps.launch import Launch, Request
from sweeps.measure import checkpoint_bytes
from sweeps.resources import Machine, best_precision, chains_at_once, share_out, slow_precision
from sweeps.stages import Stage
from sweeps.stand_in import stand_in_data
from sweeps.weights import Found

CACHE_BYTES = 2**28
"""The default faces, kernels and weights, in the cache."""
TEMPORARY_BYTES = 2**30
"""Ray's session, and a download: VGG19's is 550 MiB."""
COPIES = 3
"""Of a folder's faces while they are prepared: a scratch file, the whole set, its parts."""


def examine(request: Request, *, seeds: Sequence[int], weights: Path | None = None) -> Iterator[Finding]:
    """All findings on a request.

    Raises:
        ValueError: an option that would be refused on any machine.
    """
    # Nothing is trained here, and to find out what a cluster's GPUs can do, it would have to be joined.
    asked, request = request.precision, replace(request, precision="float32")
    # The rest can be looked at without the faces that were named.
    launch = Launch(replace(request, train_faces=CELEBA_SAMPLE, test_faces=()))
    mend = "name folders that hold enough images of faces"
    faces = checkup.attempt("faces", lambda: _describe_faces(request, launch.config.data), mend=mend)
    if faces.level != Level.WRONG:
        launch = Launch(request)
    request = launch.request
    if weights:
        yield checkup.attempt(
            "weights", lambda: _describe_weights(launch, seeds, weights), mend=f"search again, or leave {weights} out"
        )
    stages = launch.study(launch.planned(), seeds=seeds).stages()
    if request.engine == "ray":
        yield from _ray(request)
    yield checkup.tracking_store(launch.uri)
    yield checkup.writable("runs", request.runs, mend="choose another folder with --runs DIR")
    yield checkup.lock(request.runs)
    yield checkup.writable("cache", launch.cache, mend="choose another folder with WHETSTONE_CACHE=DIR")
    yield faces
    yield from _assets(launch, stages)
    machine = (yield from _cluster(request)) if request.cluster else launch.machine
    if machine:
        yield from _computing(launch, machine, stages, precision=asked)
        yield from _disk(launch, seeds, places=min(machine.cores, chains_at_once(stages)))


def _ray(request: Request) -> Iterator[Finding]:
    yield checkup.packages("dashboard", ["ray[default]"], mend="python -m pip install 'ray[default]'")
    if not request.cluster:
        yield checkup.dashboard_port()
    yield checkup.token(os.environ, joins=bool(request.cluster))


def _disk(launch: Launch, seeds: Sequence[int], *, places: int) -> list[Finding]:
    config, temporary = launch.config, {Path(gettempdir()): TEMPORARY_BYTES}
    room = checkup.disk(temporary)
    if room[0].level == Level.WRONG:
        return room
    with TemporaryDirectory() as made_up:
        data = stand_in_data(config.data, _tests(launch.request), config.backbone, Path(made_up))
        stages = launch.study(data, seeds=seeds).stages()
        states = checkpoint_bytes(stages, places=places, cache=Path(made_up))
    images = count_faces(config.data, launch.request.train_faces, _tests(launch.request))
    faces = COPIES * sum(images.values()) * config.data.image_size**2 * 3
    return checkup.disk({launch.request.runs: states, launch.cache: CACHE_BYTES + faces, **temporary})


def _describe_weights(launch: Launch, seeds: Sequence[int], weights: Path) -> str:
    found = Found.read(weights, launch.request.preset)
    found.require_unset(launch.request.assignments)
    found.apply(launch.study(launch.planned(), seeds=seeds))
    return f"{weights}: {', '.join(found.rows) or 'no rows'}"


def _describe_faces(request: Request, config: DataConfig) -> str:
    check_sources(request.train_faces, _tests(request))
    counts = count_faces(config, request.train_faces, _tests(request))
    return ", ".join(
        f"{source}: {counts[source]} images" if source in counts else source for source in _sources(request)
    )


def _tests(request: Request) -> dict[str, str]:
    return cli.pairs(request.test_faces, "--test-faces NAME=DIR") or {DEFAULT_TEST: CELEBA_SAMPLE}


def _sources(request: Request) -> list[str]:
    """Each source of faces once."""
    return list(dict.fromkeys([request.train_faces, *_tests(request).values()]))


def _assets(launch: Launch, stages: Sequence[Stage]) -> Iterator[Finding]:
    backbones = [getattr(stage.config, "backbone", None) for stage in stages]
    for name in dict.fromkeys([*_sources(launch.request), *backbones]):
        if name in ASSETS:
            yield checkup.cached(name, ASSETS[name].path(launch.cache), instead=ASSETS[name].instead)


def _cluster(request: Request) -> Generator[Finding, None, Machine | None]:
    """Findings on a cluster; what it has, None where it can't be asked."""
    assert request.cluster
    if request.cluster != "auto":
        head = checkup.head(request.cluster)
        if head.level == Level.WRONG:
            yield head
            return None
    from sweeps import ray_cluster

    try:
        ray_cluster.start_ray(request.runs, request.cluster)
        folder = checkup.existing(request.runs)
        reports = ray_cluster.survey(folder)
        here = ray_cluster.describe_node("here", folder)
    except Exception as error:  # Ray raises its own, and those of its tasks
        reason = str(error).strip().splitlines()[-1][:300]
        mend = "ray status, on the head node; the same environment and checkout on all nodes"
        yield Finding(name="cluster", level=Level.WRONG, found=f"{request.cluster}: {reason}", mend=mend)
        return None
    yield Finding(name="cluster", level=Level.OK, found=f"{request.cluster}, nodes: {len(reports)}")
    for report in reports:
        yield checkup.node(report, here, request.runs.resolve())
    return ray_cluster.cluster()


def _computing(launch: Launch, machine: Machine, stages: Sequence[Stage], *, precision: str) -> Iterator[Finding]:
    request = launch.request
    visible = None if request.cluster else os.environ.get("CUDA_VISIBLE_DEVICES")
    yield checkup.device(request.device, gpus=machine.gpus, build=torch.version.cuda, visible=visible)
    device = "cuda" if machine.gpus and request.device != "cpu" else "cpu"

    def share() -> str:
        wanted = 1 if request.engine == "in-process" else chains_at_once(stages)
        given = share_out(wanted, machine, device=device, cpus=request.cpus_per_trial, gpus=request.gpus_per_trial)
        gpus = f", GPUs: {given.gpus:g}" if given.gpus else ""
        return f"trials at once: {given.at_once}; each has cores: {given.cpus}{gpus}"

    yield checkup.attempt("resources", share, mend="leave --cpus-per-trial and --gpus-per-trial out")

    chosen = best_precision(device, machine) if precision == "auto" else precision

    def training() -> str:
        return ", ".join([chosen, *request.execution(device).choices])

    finding = checkup.attempt("training", training, mend="install g++, or leave --compile out")
    if finding.level == Level.OK and (slow := slow_precision(chosen, device, machine)):
        finding = Finding(name="training", level=Level.WARNING, found=slow, mend="leave --precision out")
    yield finding

"""What the benchmarks' figures are made of; the figures themselves are a matter of the machine, and of `make bench`."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest.mock import MagicMock

import click
import pytest
import ray
import torch
from ray.tune.experiment import Trial
from rich.console import Console

from benchmarks import comparison, gpu, idle, large_store, memory, overhead, quick_preset, rates, steps
from benchmarks.__main__ import main, measure
from benchmarks.comparison import Comparison, require_writable, show, side_by_side, write
from benchmarks.made_up import Child
from benchmarks.toy import STEPS, Toy
from datasets.blur import blur
from datasets.kernels import open_kernels
from model_zoo import fft_convolution
from sweeps import record
from sweeps.deblurring.config import DataConfig, GeneratorConfig, ScheduleConfig
from sweeps.deblurring.learner import TrainingLearner
from sweeps.job import Job, Settings
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.ray_engine import _FirstUnplaced
from sweeps.stages import Stage
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, tables
from sweeps.tracking import connect
from sweeps.train import load_state, train_stage


def test_the_ratio_is_the_median_of_the_repeats_own_ratios(tmp_path):
    # A slow hour: both took ten times as long in one repeat, which says nothing of their ratio.
    each = Comparison(name="slow hour", ours=(1.0, 20.0, 3.0), theirs=(4.0, 40.0, 10.0), limit=0.5)
    write({"group": [each]}, tmp_path / "bench.json", on={})
    entry = json.loads((tmp_path / "bench.json").read_text())["benchmarks"]["group"][0]
    assert entry["ratio"] == 0.3
    assert entry["ratios"] == [0.25, 0.5, 0.3]
    assert entry["ours"] == [1.0, 20.0, 3.0]
    assert each.broken == ""


def test_a_limit_that_is_reached_is_broken_and_said_in_one_line():
    each = Comparison(name="tie", ours=(1.0,), theirs=(2.0,), limit=0.5)
    assert each.broken == "tie: the ratio must be below 0.5, and is 0.500"
    console = Console(record=True, width=120)
    show({"group": [each]}, console, on={})
    assert each.broken in console.export_text()


def test_ours_may_have_a_limit_of_its_own():
    each = Comparison(name="large", ours=(700.0, 1100.0, 1000.0), theirs=(2e3,) * 3, unit="MB", most=1000.0)
    assert each.broken == "large: ours must be below 1000 MB, and is 1000.00"
    assert replace(each, most=1000.5).broken == ""


def test_a_rate_has_a_least_ratio():
    each = Comparison(name="rate", ours=(290.0, 310.0), theirs=(10.0, 10.0), unit="kernels/s", least=30.0)
    assert each.broken == ""
    assert replace(each, least=30.1).broken == "rate: the ratio must be at least 30.1, and is 30.000"


def test_what_could_not_be_measured_says_why(tmp_path):
    each = Comparison(name="step", missing="no GPU", least=0.5)
    console = Console(record=True, width=120)
    show({"gpu": [each]}, console, on={})
    assert each.broken == ""
    assert "no GPU" in console.export_text()
    write({"gpu": [each]}, tmp_path / "bench.json", on={})
    assert comparison.read(tmp_path / "bench.json").groups == {"gpu": {"step": []}}


def test_a_benchmark_that_cannot_run_fails_alone_and_says_why():
    [each] = measure("it", "no_such_module", 1)
    assert each.broken == "it failed: ModuleNotFoundError: No module named 'benchmarks.no_such_module'"


def test_a_benchmark_that_fails_without_a_word_fails_alone_too(tmp_path, monkeypatch):
    compare = MagicMock(side_effect=AssertionError())
    monkeypatch.setitem(sys.modules, "benchmarks.made_up_here", SimpleNamespace(compare=compare))
    groups = {"it": measure("it", "made_up_here", 1), "other": [Comparison(name="other", ours=(1.0,), theirs=(2.0,))]}
    write(groups, tmp_path / "bench.json", on={})
    console = Console(record=True, width=120)
    show(groups, console, on={}, earlier=comparison.read(tmp_path / "bench.json"))
    assert "it failed: AssertionError:" in console.export_text()
    assert comparison.read(tmp_path / "bench.json").groups["other"] == {"other": [0.5]}


def test_an_interrupted_run_leaves_the_numbers_of_an_earlier_one(tmp_path, monkeypatch):
    file = tmp_path / "numbers.json"
    file.write_text("earlier")
    interrupt = KeyboardInterrupt("as by Ctrl-C")
    monkeypatch.setattr("benchmarks.__main__.measure", lambda *_: (_ for _ in ()).throw(interrupt))
    with pytest.raises(click.Abort):
        main(["data", "--out", str(file)], standalone_mode=False)
    assert file.read_text() == "earlier"


@pytest.mark.parametrize(("way", "reason"), [("taken/numbers.json", "File exists"), (".", "Is a directory")])
def test_a_file_that_cannot_be_written_is_said_first(tmp_path, way, reason):
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match=rf"--out must be a file that can be written, got .* \({reason}\)"):
        require_writable(tmp_path / way)
    require_writable(tmp_path / "new" / "numbers.json")
    assert not list((tmp_path / "new").iterdir())  # an interrupted run leaves no empty file


def test_a_benchmark_leaves_the_environment_as_it_was(monkeypatch):
    def compare(*, repeats, folder):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}"  # as MLflow does
        torch.set_num_threads(1)
        return []

    threads = torch.get_num_threads()
    monkeypatch.setitem(sys.modules, "benchmarks.made_up_here", SimpleNamespace(compare=compare))
    assert measure("it", "made_up_here", 1) == []
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("unit", "worse"), [("s", (1.0, 1.3)), ("images/s", (1.0, 0.7))])
def test_a_later_run_is_compared_with_an_earlier_ones_ratios(tmp_path, unit, worse):
    before = Comparison(name="it", ours=(1.0, 1.1, 0.9), theirs=(1.0,) * 3, unit=unit)
    write({"group": [before]}, tmp_path / "bench.json", on={})
    earlier = comparison.read(tmp_path / "bench.json")
    overlapping, apart = (replace(before, ours=(value, worse[1], worse[1])) for value in worse)
    for now, said in ((before, False), (overlapping, False), (apart, True)):
        console = Console(record=True, width=120)
        show({"group": [now]}, console, on={}, earlier=earlier)
        shown = console.export_text()
        assert ("it: worse than before, in each repeat" in shown) == said
        assert "no verdict" not in shown
    few = replace(before, name="few", ours=(1.0,), theirs=(1.0,))
    console = Console(record=True, width=120)
    show({"group": [before, few]}, console, on={}, earlier=earlier)
    assert "no verdict on 1 of 2: it takes 3 repeats, now and before" in console.export_text()


def test_what_was_never_measured_waits_for_no_verdict(tmp_path):
    groups = {"gpu": [Comparison(name="step", missing="no GPU")]}
    write(groups, tmp_path / "bench.json", on={})
    console = Console(record=True, width=120)
    show(groups, console, on={}, earlier=comparison.read(tmp_path / "bench.json"))
    assert "no verdict" not in console.export_text()


def test_a_run_is_not_written_over_the_one_it_is_compared_with(tmp_path):
    file = tmp_path / "numbers.json"
    write({}, file, on={})
    with pytest.raises(ValueError, match="--against must be another file than what is written"):
        main(["data", "--out", str(file), "--against", str(file)], standalone_mode=False)


def test_one_repeat_is_no_verdict():
    each = Comparison(name="it", ours=(2.0,) * 3, theirs=(1.0,) * 3)
    assert each.worse_than([1.0, 1.0, 1.0])
    assert not each.worse_than([1.0, 1.0])
    assert not replace(each, ours=(2.0,), theirs=(1.0,)).worse_than([1.0, 1.0, 1.0])


def test_an_earlier_runs_machine_and_what_is_no_more_are_named(tmp_path):
    each = Comparison(name="kept", ours=(1.0,), theirs=(1.0,))
    gone, elsewhere = replace(each, name="gone"), replace(each, name="elsewhere")
    write({"group": [each, gone], "not run now": [elsewhere]}, tmp_path / "bench.json", on={"processor": "another"})
    console = Console(record=True, width=79)
    show({"group": [each]}, console, on={"processor": "this"}, earlier=comparison.read(tmp_path / "bench.json"))
    shown = console.export_text()
    assert "before: processor another" in shown
    assert "gone: only before" in shown
    assert "elsewhere" not in shown


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"benchmarks": {}}',
        '{"machine": {}, "benchmarks": {"a": [1]}}',
        '{"machine": {}, "benchmarks": 1}',
    ],
)
def test_a_file_that_is_no_earlier_run_is_refused(tmp_path, content):
    (tmp_path / "bench.json").write_text(content)
    with pytest.raises(ValueError, match="--against must be a file that `make bench` wrote"):
        comparison.read(tmp_path / "bench.json")


def test_ways_take_turns_in_going_first_and_only_the_run_is_timed(tmp_path, monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(comparison, "perf_counter", lambda: clock[0])

    def way(name, preparing, running):
        def prepare(place):
            assert place.is_dir()
            assert not list(place.iterdir())
            clock[0] += preparing

            def run():
                order.append(name)
                clock[0] += running

            return run

        return prepare

    ways = {"a": way("a", 100.0, 1.0), "b": way("b", 200.0, 2.0)}
    assert side_by_side(ways, repeats=3, folder=tmp_path) == {"a": (1.0,) * 3, "b": (2.0,) * 3}
    assert "".join(order) == "abbaab"


@pytest.fixture
def tiny_inputs(tmp_path):
    """Inputs of the tables on made-up data, very small; and the cache that holds the data."""
    config = replace(
        quick().config,
        generator=GeneratorConfig(width=6, blocks=1),
        schedule=ScheduleConfig(content=2, perceptual=1, adversarial=1),
        data=DataConfig(image_size=32, kernel_sizes=(3,), kernels_per_size=1, test_kernels_per_size=1, test_faces=4),
        batch_size=1,
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    data = stand_in_data(config.data, {}, config.backbone, cache)
    return Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption=""), cache


def test_an_idle_sweep_has_the_tree_and_the_states_of_the_real_one(tmp_path, tiny_inputs):
    inputs, cache = tiny_inputs
    real, idling = tables(inputs), idle.idle_tables(inputs)
    assert [(each.title, each.steps, each.first_step) for each in idling.stages()] == [
        (each.title, each.steps, each.first_step) for each in real.stages()
    ]
    settings = Settings(cache=cache, log_every=1, validate_every=1, checkpoint_every=1)
    tests = tuple(real.tests)

    def train(study, name):
        stage = max((stage for stage in study.stages() if not stage.parent), key=lambda stage: stage.steps)
        job = Job(stage=stage, tests=tests, folder=tmp_path / name)
        train_stage(job, settings, lambda *_: None)
        return job.result

    there, here = train(real, "real"), train(idling, "idle")

    def files(folder):
        return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"}

    def strips(folder):
        return {path.parent.relative_to(folder) for path in folder.rglob("*.png")}

    def shapes(value):
        if isinstance(value, dict):
            return {name: shapes(each) for name, each in value.items()}
        return value.shape if isinstance(value, torch.Tensor) else None

    assert files(there) == files(here)
    assert strips(there) == strips(here)
    state = Path("model") / "state.pt"
    assert shapes(load_state(there / state)["state"]) == shapes(load_state(here / state)["state"])


BURN = """
import subprocess, sys, time
deeper = int(sys.argv[1])
child = deeper and subprocess.Popen([sys.executable, "-c", sys.argv[2], str(deeper - 1), sys.argv[2]])
while time.process_time() < 0.5:
    pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""


def test_processor_time_is_summed_over_all_processes_below():
    command = [sys.executable, "-c", BURN, "2", BURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        own = [float(process.stdout.readline()) for _ in range(3)]  # they wait, and use nothing more
        assert quick_preset.cpu_seconds(process.pid) == pytest.approx(sum(own), abs=0.2)
        process.stdin.close()


AFTER_ANOTHER = """
import subprocess, sys
print(subprocess.run([sys.executable, "-c", sys.argv[1], "0"], stdin=subprocess.DEVNULL, capture_output=True).stdout)
sys.stdin.read()
"""


def test_processor_time_of_what_has_ended_is_counted():
    command = [sys.executable, "-c", AFTER_ANOTHER, BURN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 0.5 <= quick_preset.cpu_seconds(process.pid) < 0.9  # the ended one's half a second, and two starts
        process.stdin.close()


def one_scale(inputs):
    """A step's config, and its operations in closed form: forward, gradients of all weights, and of all inputs but the
    blurred image."""
    config = steps.config_of(next(row for row in tables(inputs).rows if row.name == "scales-1").stages[0])
    width, blocks = config.generator.width, config.generator.blocks
    head, body, tail = 11**2 * 6 * width, 5**2 * width**2 * (2 + 2 * blocks + 2), 5**2 * width * 3
    additions_too = 2 * inputs.config.data.image_size**2 * inputs.config.batch_size
    return config, additions_too * (3 * (head + body + tail) - head)


@pytest.mark.parametrize("pays", [True, False])
def test_the_operations_of_a_step_are_those_of_direct_convolutions(tiny_inputs, monkeypatch, pays):
    monkeypatch.setattr(fft_convolution, "pays_here", lambda: pays)
    inputs, cache = tiny_inputs
    config, operations = one_scale(inputs)
    assert rates.step_operations(config, cache) == operations


def test_a_rate_is_a_steps_operations_over_its_seconds(tiny_inputs, monkeypatch):
    inputs, cache = tiny_inputs
    config, operations = one_scale(inputs)
    seconds = {("TrainingLearner", "step"): 2.0, ("PlainLearner", "step"): 8.0, ("TrainingLearner", "draw"): 0.5}

    class Best:
        name = "the best"

        def rate(self, *, at_least):
            return 4 * operations / 1e9

    def pretended(action, *, at_least):
        return seconds[type(action.__self__).__name__, action.__name__]

    monkeypatch.setattr(steps, "seconds_each", pretended)
    monkeypatch.setattr(steps, "best_convolution", lambda precision: Best())
    measurement = steps.Measurement("1 scale · content", config, cache)
    measurement.repeat()
    of_the_best, of_plain, of_a_step = measurement.comparisons()
    assert of_the_best.ours == (pytest.approx(operations / 2 / 1e9),)
    assert [each.ratios[0] for each in (of_the_best, of_plain, of_a_step)] == pytest.approx([1 / 8, 2 / 8, 0.5 / 2])
    assert of_the_best.broken


@pytest.mark.parametrize("content", [True, False])
def test_a_kind_of_stage_has_a_ratio_for_each_repeat(tiny_inputs, monkeypatch, content):
    monkeypatch.setattr(steps, "TIMED", 0.001)
    inputs, cache = tiny_inputs
    name = "multi-task" if content else "loss-adversarial"
    row = next(row for row in tables(inputs).rows if row.name == name)
    measurement = steps.Measurement(row.stages[0].name, steps.config_of(row.stages[0]), cache)
    for _ in range(2):
        measurement.repeat()
    found = list(measurement.comparisons())
    assert all(len(each.ratios) == 2 and min(each.ratios) > 0 for each in found)
    kinds = [each.name.removeprefix(row.stages[0].name).lstrip(" ,") for each in found]
    of_content = ["step, against plain PyTorch"] if content else []
    assert kinds == ["step, against the best convolution", *of_content, "making the batch, against the step"]
    assert found[0].least == (steps.OF_THE_BEST if content else None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_of_content_are_measured_in_float32_too(tiny_inputs, precision):
    stages = [stage for stage in tables(replace(tiny_inputs[0], precision=precision)).stages() if stage.steps]
    found = steps.steps_of(stages)
    low = {(name, config.precision) for name, config in found.items() if "float32" not in name}
    assert low == {(stage.name, precision) for stage in stages}
    content = [stage.name for stage in stages if "content" in stage.name]
    again = {name.replace("float32 ", ""): config for name, config in found.items() if "float32" in name}
    assert set(again) == (set(content) if precision == "bfloat16" else set())
    assert {config.precision for config in again.values()} <= {"float32"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_each_of_its_rows_says_so(tmp_path):
    comparisons = gpu.compare(repeats=5, folder=tmp_path)
    assert {each.missing for each in comparisons} == {"no GPU"}
    names = [each.name for each in comparisons]
    assert len(set(names)) == len(names) == 5 * 4 + 1 + 2
    assert any("+adversarial" in name for name in names)
    assert any("200,000 iterations" in name for name in names)


def multi_task(inputs):
    """The config of the content stage."""
    return steps.config_of(next(row for row in tables(inputs).rows if row.name == "multi-task").stages[0])


def test_what_breaks_in_a_compiler_is_said_in_its_own_row(tiny_inputs, monkeypatch):
    def broken(*_):
        raise ValueError("no such compiler")

    inputs, cache = tiny_inputs
    monkeypatch.setattr(gpu, "TIMED", 0.01)
    monkeypatch.setattr(gpu, "PROFILED", 1)
    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    times = gpu.time_steps(multi_task(inputs), device="cpu", repeats=1, cache=cache, side=64)
    whole, compiled, *_ = gpu._of_stage("it", times)
    assert compiled.broken == "it step compiled, against not compiled failed: ValueError: no such compiler"
    assert len(whole.ratios) == 1


def test_what_times_a_gpu_runs_on_a_processor(tiny_inputs, monkeypatch):
    """All but the GPU's own part, and the compiler, which takes minutes."""
    inputs, cache = tiny_inputs
    monkeypatch.setattr(gpu, "TIMED", 0.01)
    monkeypatch.setattr(gpu, "PROFILED", 2)
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    config = multi_task(inputs)
    times = gpu.time_steps(config, device="cpu", repeats=2, cache=cache, side=64)
    operations = rates.flops(config.learner(seed=1, execution=Execution(fft=False), cache=cache).step)
    assert [rate * seconds * rates.GIGA for rate, seconds in zip(times.rate, times.step, strict=True)] == pytest.approx(
        [operations] * 2
    )
    assert [len(each) for each in (times.best, times.batch, times.compiled, times.beside)] == [2] * 4
    assert times.waits == ()  # a processor waits for no GPU: the profiler does not see the wait that is there
    assert "does not see" in gpu._of_stage("it", times)[-1].missing


def test_the_schedule_takes_its_stages_one_after_another(tiny_inputs):
    inputs, _ = tiny_inputs
    last = tables(inputs).stages()[-1]
    lengths = [stage.steps for stage in last.chain()]
    assert lengths == [2, 1, 1]
    times = {
        stage.key: gpu.Times(step=(3600.0 * 10**power, 7200.0 * 10**power)) for power, stage in enumerate(last.chain())
    }
    assert gpu._schedule(last, times).ours == (112.0, 224.0)


def test_a_copied_run_has_all_that_mlflow_gave_the_first(tmp_path, monkeypatch):
    """But what is its own: the id, the tags of its row and seed, the name, and the means."""
    monkeypatch.setattr(large_store, "FACES", 2)
    monkeypatch.setattr(large_store, "KERNELS", 2)
    large_store.fill(tmp_path, rows=2, seeds=2)
    client = connect(f"sqlite:///{tmp_path / large_store.DATABASE}")
    experiment = client.get_experiment_by_name(large_store.STUDY).experiment_id
    runs = client.search_runs([experiment])
    assert len({run.info.run_id for run in runs}) == len({run.info.run_name for run in runs}) == 4
    first = next(run for run in runs if run.data.tags[record.TAG_STAGE_KEY] == "row-0-1")
    for run in runs:
        assert run.info.artifact_uri == (tmp_path / "artifacts" / run.info.run_id / "artifacts").as_uri()
        assert (run.info.status, run.data.params) == ("FINISHED", first.data.params)
        assert run.data.tags.keys() == first.data.tags.keys()
        assert run.data.metrics.keys() == first.data.metrics.keys()
        for name in run.data.metrics:
            points, firsts = (client.get_metric_history(each.info.run_id, name) for each in (run, first))
            assert [point.step for point in points] == [point.step for point in firsts]
            assert points[-1].value == run.data.metrics[name]
    psnr = record.test_metric(large_store.TEST, "psnr")
    assert len({run.data.metrics[psnr] for run in runs}) == 4


def test_faces_and_kernels_are_shared_by_all_that_read_them(tmp_path):
    """As the system counts, of processes that hold a learner: what only one has does not grow with the faces, which are
    79 MB or 12 kB. The median of three: now and then a process is given 13 MB more or less."""

    def private(faces):
        config = memory.made_up_config("quick", tmp_path, faces=faces)
        with ExitStack() as stack:
            trials = [stack.enter_context(Child("benchmarks.memory", config, tmp_path)) for _ in range(3)]
            for trial in trials:
                memory.advance(trial)
            return [median(memory.megabytes(trial, *kinds) for trial in trials) for kinds in (memory.PRIVATE, ["Rss"])]

    (few, read_few), (many, read_many) = private(1), private(6464)
    assert read_many - read_few > 70
    assert many - few < 8


def test_the_plain_way_blurs_and_judges_the_same(tiny_inputs):
    """With the only kernel there is and no noise, its blurred images are those of its sharp ones; so is their loss."""
    inputs, cache = tiny_inputs
    config = multi_task(inputs)
    config = replace(config, batch_size=3, data=replace(config.data, noise=0.0))
    ours = TrainingLearner(config, seed=1, execution=Execution(), cache=cache)
    plain = steps.PlainLearner(config, seed=1, execution=steps.PLAIN, cache=cache)
    blurred, sharp = plain.draw()
    [kernel] = open_kernels(config.data.kernels, cache=cache).kernels
    assert torch.allclose(blurred, blur(sharp, torch.tensor(kernel).expand(3, 3, 3)), atol=1e-5)
    assert not torch.allclose(blurred, sharp, atol=1e-2)
    loss, expected = (each.losses(blurred, sharp)[0]["total"].item() for each in (ours, plain))
    assert loss == pytest.approx(expected, rel=1e-4)


def test_a_trial_whose_process_is_starting_is_left_to_it():
    running = MagicMock(status=Trial.RUNNING)
    starting, asked, waiting = (MagicMock(status=Trial.PENDING) for _ in range(3))
    actors = {running: "at work", starting: "begun", asked: "waits for a core"}  # its process has none yet
    manager = SimpleNamespace(is_actor_started=lambda actor: actor != "waits for a core")

    def chosen(*trials):
        controller = SimpleNamespace(get_trials=lambda: trials, _trial_to_actor=actors, _actor_manager=manager)
        return _FirstUnplaced().choose_trial_to_run(SimpleNamespace(_tune_controller=controller))

    assert chosen(running, starting, asked, waiting) is asked
    assert chosen(running, starting, waiting, asked) is waiting
    assert chosen(running, starting) is None


def test_trivial_stages_take_a_process_a_core_and_no_more(tmp_path):
    """Though each is over before the next process has started: Tune would begin a new one at each stage's end."""
    stages = [Stage(name=f"toy {number}", config=Toy(number=number), steps=STEPS, seed=1) for number in range(12)]
    empty = tmp_path / overhead.STORE
    connect(f"sqlite:///{empty}")
    settings = Settings(cache=tmp_path, log_every=1, validate_every=STEPS, checkpoint_every=STEPS)
    place = tmp_path / "ray"
    place.mkdir()
    overhead._start_ray()
    try:
        overhead._sweep(stages, settings, empty, place)()
        assert len(ray._private.state.actors()) == overhead.CORES
    finally:
        ray.shutdown()
    overhead._require_all(place, overhead.EXPERIMENT, stages=12)
    with closing(sqlite3.connect(place / overhead.STORE)) as store, store:
        store.execute("DELETE FROM metrics WHERE rowid = (SELECT MAX(rowid) FROM metrics WHERE key = 'loss/total')")
    with pytest.raises(AssertionError):  # less was done than was timed
        overhead._require_all(place, overhead.EXPERIMENT, stages=12)

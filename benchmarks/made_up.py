"""The trained stages of Tables 1 and 2 on made-up data, as many as a real sweep's; and processes that train them."""

from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable

from pydantic import TypeAdapter

from sweeps.deblurring.config import DeblurConfig, TrainingStage
from sweeps.resources import Machine, best_precision
from sweeps.stages import Stage
from sweeps.stand_in import stand_in_data
from sweeps.studies import Inputs, tables

CONFIG = TypeAdapter(TrainingStage)


def made_up_stages(config: DeblurConfig, cache: Path, *, faces: int, device: str, machine: Machine) -> list[Stage]:
    """Stages in the precision that a sweep would choose; so many faces, and the config's kernels, are in `cache`."""
    cache.mkdir(parents=True, exist_ok=True)
    data = stand_in_data(
        config.data, {}, config.backbone, cache, faces=faces, kernels_per_size=config.data.kernels_per_size
    )
    precision = best_precision(device, machine)
    study = tables(Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="", precision=precision))
    return [stage for stage in study.stages() if stage.steps]


def config_of(stage: Stage) -> TrainingStage:
    """The stage's config, which is a training stage's."""
    assert isinstance(stage.config, TrainingStage)
    return stage.config


class Child:
    """A process that runs a module on a stage's config, and answers a line with a number when it is asked.

    `python -m MODULE CONFIG CACHE ...`; a first number says that it is ready.
    """

    def __init__(self, module: str, config: TrainingStage, cache: Path, *arguments: object) -> None:
        text = CONFIG.dump_json(config).decode()
        command = [executable, "-m", module, text, str(cache), *map(str, arguments)]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> "Child":
        self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self) -> None:
        """Let it do what it does."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)

    def answer(self) -> float:
        """Wait for its number.

        Raises:
            RuntimeError: it ended.
        """
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return float(line)
        raise RuntimeError(f"a process of this benchmark ended with exit code {self._process.wait()}")

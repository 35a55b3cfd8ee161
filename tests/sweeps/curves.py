"""Run by test_execution.py in a process of its own: the losses of 50 seeded steps, computed in different ways, as JSON.

`python curves.py ROW WIDTH FACES CACHE WAY...`, a way being "plain" or some of channels-last, fused, fft, bfloat16 and
compiled, joined by "+".
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import torch
from torch._dynamo.utils import counters

from model_zoo import fft_convolution
from sweeps.deblurring.data import prepare_data
from sweeps.deblurring.learner import TrainingLearner
from sweeps.learner import Execution
from sweeps.presets import quick
from sweeps.studies import Inputs, tables

STEPS = 50


class PlainLayout(TrainingLearner):
    """In the layout that PyTorch gives its tensors."""

    def _place(self, network):
        return network.to(self._device)


def curve(way, row, config, data, cache):
    """The losses of each step, the validation after the last, and how many graphs were compiled."""
    counters.clear()
    inputs = Inputs(config=config, data=data, seeds=[1], backbone_digest="", caption="")
    study = tables(replace(inputs, precision="bfloat16") if "bfloat16" in way else inputs)
    stage = next(each for each in study.rows if each.name == row).stages[0]
    fft_convolution.pays_here = lambda: "fft" in way  # on any processor: it is right where it does not pay, too
    execution = Execution(fused="fused" in way, compiled="compiled" in way)
    kind = TrainingLearner if "channels-last" in way else PlainLayout
    learner = kind(stage.config, seed=1, execution=execution, cache=cache)
    losses = [{name: float(value) for name, value in learner.step().items()} for _ in range(STEPS)]
    return {"losses": losses, "validation": learner.validate(), "graphs": counters["stats"]["unique_graphs"]}


def main(row, width, faces, cache, *ways):
    torch.set_num_threads(1)
    quicker = quick().config
    config = replace(
        quicker,
        # From the identity the gradients are so small that Adam's first steps, which divide by their size, follow
        # their rounding errors; the curves meet again after ten steps.
        generator=replace(quicker.generator, width=int(width), blocks=2, initialisation="default"),
        data=replace(
            quicker.data, image_size=32, kernel_sizes=(3, 5), kernels_per_size=8, test_faces=4, validation_faces=4
        ),
        discriminator_width=8,
        batch_size=4,
    )
    data = prepare_data(config.data, train=faces, tests={"Made up": faces}, cache=Path(cache), tell=lambda _: None)
    print(json.dumps({way: curve(way.split("+"), row, config, data, Path(cache)) for way in ways}))


main(*sys.argv[1:])

"""A study so small that its five stages train in seconds, with the real networks, data and losses."""

from dataclasses import replace

import pytest
import tiny

from sweeps.deblurring.config import DataConfig, GeneratorConfig, LossWeights, ScheduleConfig
from sweeps.deblurring.data import prepare_data
from sweeps.job import Settings
from sweeps.presets import quick
from sweeps.studies import Inputs, tables


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache with random VGG16 weights under the real asset's name: the real ones would have to be downloaded."""
    folder = tmp_path_factory.mktemp("cache")
    tiny.make_weights(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_config():
    """The quick preset, smaller still."""
    return replace(
        quick().config,
        generator=GeneratorConfig(width=6, blocks=1, initialisation="identity", structure_input="random"),
        losses=LossWeights(perceptual=0.001, adversarial=0.001),
        schedule=ScheduleConfig(content=4, perceptual=2, adversarial=2),
        data=DataConfig(
            image_size=32,
            kernel_sizes=(3, 5),
            kernels_per_size=8,
            test_kernels_per_size=1,
            test_faces=4,
            validation_faces=4,
        ),
        discriminator_width=4,
        batch_size=2,
    )


@pytest.fixture(scope="session")
def tiny_data(tiny_config, faces_folder, cache):
    """Prepared data of the tiny study; the test set is held out of the training faces."""
    source = str(faces_folder)
    return prepare_data(tiny_config.data, train=source, tests={"Made up": source}, cache=cache, tell=print)


@pytest.fixture(scope="session")
def tiny_study(tiny_config, tiny_data):
    """Tables 1 and 2, tiny, one seed."""
    inputs = Inputs(config=tiny_config, data=tiny_data, seeds=[1], backbone_digest="random", caption="Tiny.")
    return tables(inputs)


@pytest.fixture
def settings(cache):
    """Everything is said and checkpointed at every step."""
    return Settings(cache=cache, log_every=1, validate_every=2, checkpoint_every=1)

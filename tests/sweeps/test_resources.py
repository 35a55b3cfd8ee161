"""A trial's share of a machine."""

import pytest

from sweeps.resources import Machine, Resources, share_out

GIB = 2**30


@pytest.mark.parametrize(
    ("wanted", "machine", "device", "expected"),
    [
        (5, Machine(cores=2, largest_node=2, gpus=0), "cpu", Resources(cpus=1, gpus=0, at_once=2)),
        (1, Machine(cores=8, largest_node=8, gpus=0), "cpu", Resources(cpus=8, gpus=0, at_once=1)),
        (2, Machine(cores=24, largest_node=8, gpus=0), "cpu", Resources(cpus=8, gpus=0, at_once=2)),
        # Four times 16 GiB are 64: all four fit one card of 80, and go two to a card where there are two.
        (
            4,
            Machine(cores=16, largest_node=16, gpus=1, gpu_memory=80 * GIB),
            "cuda",
            Resources(cpus=4, gpus=0.25, at_once=4),
        ),
        (
            4,
            Machine(cores=16, largest_node=16, gpus=2, gpu_memory=80 * GIB),
            "cuda",
            Resources(cpus=4, gpus=0.5, at_once=4),
        ),
        (
            4,
            Machine(cores=16, largest_node=16, gpus=1, gpu_memory=24 * GIB),
            "cuda",
            Resources(cpus=4, gpus=1, at_once=1),
        ),
        (4, Machine(cores=16, largest_node=16, gpus=2), "cuda", Resources(cpus=4, gpus=1, at_once=2)),
    ],
)
def test_trials_fill_the_machine(wanted, machine, device, expected):
    assert share_out(wanted, machine, device=device, cpus=None, gpus=None) == expected


def test_a_cluster_without_cores_is_a_mistake():
    with pytest.raises(ValueError, match="a node that has cores for trials, got one without"):
        share_out(2, Machine(cores=0, largest_node=0, gpus=0), device="cpu", cpus=None, gpus=None)

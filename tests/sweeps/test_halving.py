"""Which trials go on: against waiting for every rung to be full, and in any order of arrival."""

import itertools
import math
import random

import pytest

from sweeps.halving import Halving, rungs

RUNGS = (1, 3, 9)


def curve(quality, step):
    """Curves that do not cross: the better trial is better at every step."""
    return quality + math.log(step)


def by_full_rungs(qualities, factor):
    """Synchronous successive halving: the textbook's loop. Returns steps per trial."""
    alive, steps = list(range(len(qualities))), dict.fromkeys(range(len(qualities)), 0)
    for rung in RUNGS:
        for trial in alive:
            steps[trial] = rung
        alive.sort(key=lambda trial: (-curve(qualities[trial], rung), trial))
        alive = alive[: math.ceil(len(alive) / factor)]
    return steps


def simulate(qualities, *, factor, workers, shuffle):
    """An engine with some workers that end in a random order; steps per trial."""
    halving = Halving(trials=len(qualities), rungs=RUNGS, factor=factor)
    scores = {trial: [] for trial in range(len(qualities))}
    running = []
    while True:
        due = [pair for pair in halving.due(scores) if pair not in running]
        while due and len(running) < workers:
            running.append(due.pop(0))
        if not running:
            break
        trial, rung = running.pop(shuffle.randrange(len(running)))
        assert len(scores[trial]) == rung
        scores[trial].append(curve(qualities[trial], RUNGS[rung]))
    return {trial: RUNGS[len(values) - 1] for trial, values in scores.items()}, halving.out(scores)


ORDERS = {
    "best first": sorted(range(10), reverse=True),
    "worst first": sorted(range(10)),
    "shuffled": random.Random(0).sample(range(10), 10),
}


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_the_best_is_kept_and_the_order_costs_nothing(order, workers):
    qualities = ORDERS[order]
    steps, _ = simulate(qualities, factor=3, workers=workers, shuffle=random.Random(workers))
    assert steps[qualities.index(9)] == RUNGS[-1]
    assert sum(steps.values()) == 10 * 1 + 4 * 2 + 2 * 6  # of 90


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_arrival_decides_as_full_rungs_do(seed):
    shuffle = random.Random(seed)
    qualities = [shuffle.choice([0.0, 1.0, 2.0, 3.0]) for _ in range(shuffle.randint(1, 14))]  # ties too
    factor = shuffle.choice([2, 3, 4])
    steps, out = simulate(qualities, factor=factor, workers=shuffle.randint(1, 5), shuffle=shuffle)
    expected = by_full_rungs(qualities, factor)
    assert steps == expected
    assert set(out) == {trial for trial, step in expected.items() if step < RUNGS[-1]}


def test_a_promotion_does_not_wait_for_those_that_cannot_matter():
    halving = Halving(trials=6, rungs=(1, 2), factor=3)
    scores = {0: [5.0], 1: [4.0], 2: [1.0], 3: [0.0], 4: [2.0]}
    assert halving.due(scores) == [(0, 1), (5, 0)]  # the best can't be displaced by one more; the second can
    assert set(halving.out(scores)) == {2, 3, 4}


def test_asha_s_rule_would_depend_on_the_order():
    """Li et al. 2020, Algorithm 2, one worker: what this is instead of."""

    def spent(qualities):
        scores, promoted, steps = [{}, {}, {}], [set(), set(), set()], 0
        started = 0
        while True:
            job = None
            for rung in (1, 0):
                top = sorted(scores[rung], key=lambda trial: -scores[rung][trial])[: len(scores[rung]) // 3]
                if ready := [trial for trial in top if trial not in promoted[rung]]:
                    promoted[rung].add(ready[0])
                    job = (ready[0], rung + 1)
                    break
            if job is None:
                if started == len(qualities):
                    return steps
                job, started = (started, 0), started + 1
            trial, rung = job
            steps += RUNGS[rung] - (RUNGS[rung - 1] if rung else 0)
            scores[rung][trial] = qualities[trial]

    assert spent(ORDERS["worst first"]) > 2 * spent(ORDERS["best first"])


def test_a_failed_trial_is_never_promoted_and_nobody_waits_for_it():
    halving = Halving(trials=3, rungs=(1, 2, 4), factor=2)
    scores = {0: [-math.inf], 1: [1.0], 2: [-math.inf]}
    assert halving.due(scores) == [(1, 1)]
    scores[1] = [1.0, -math.inf]
    assert halving.due(scores) == []


@pytest.mark.parametrize(("trials", "factor"), list(itertools.product((1, 2, 5), (2, 3))))
def test_all_may_fail(trials, factor):
    halving = Halving(trials=trials, rungs=RUNGS, factor=factor)
    assert halving.due({trial: [-math.inf] for trial in range(trials)}) == []


@pytest.mark.parametrize(
    ("steps", "multiple", "expected"),
    [(120, 10, (20, 40, 120)), (50_000, 100, (5600, 16_700, 50_000)), (9, 1, (1, 3, 9)), (10, 10, (10,))],
)
def test_rungs(steps, multiple, expected):
    assert rungs(steps=steps, factor=3, count=3, multiple=multiple) == expected

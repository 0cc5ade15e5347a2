"""Interleaved timing and the interval of a ratio.

The contestants take turns, in a new random order in every round, so that a change of the machine's
speed falls on all of them alike. What is reported is the ratio of the medians, with a 95 % interval
from resampling whole rounds. Where a contestant has threads of its own, all of them start on an idle
machine: the threads of the one before spin for a while when it is done.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, sleep

import torch
from torch import Tensor

LOOP_SECONDS = 2e-3  # calls shorter than this are repeated within a round until they fill it
MAX_LOOPS = 200
WARM_UP_SECONDS = 0.05
SETTLE_SECONDS = 0.01  # for the spinning threads of another contestant to go to sleep
RESAMPLES = 2000


class Step:
    """A contestant: what to time, what to put in order before it outside of the clock, and what it computes."""

    own_threads = False  # whether it runs on other threads than torch's
    max_loops = MAX_LOOPS

    def prepare(self) -> None:
        """Undo the last call; nothing, unless a step needs it."""

    def call(self) -> None:
        """The work to be timed."""
        raise NotImplementedError

    def result(self) -> list[Tensor]:
        """What contestants must agree on, computed once; nothing is held afterwards."""
        raise NotImplementedError


@dataclass(frozen=True)
class Plan:
    """How long to measure: rounds go on until `seconds` are spent, within the two bounds."""

    seconds: float = 8.0
    min_rounds: int = 9
    max_rounds: int = 61


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with its 95 % interval."""

    value: float
    low: float
    high: float


def _sample(step: Step, loops: int, settle: float = 0.0) -> float:
    """Mean seconds of `loops` calls, each prepared outside of the clock, after `settle` seconds of rest.

    The rest cools what a short call finds warm, so the first of many calls after it does not count.
    """
    if settle:
        sleep(settle)
        if loops > 1:
            step.prepare()
            step.call()
    total = 0.0
    for _ in range(loops):
        step.prepare()
        start = perf_counter()
        step.call()
        total += perf_counter() - start
    return total / loops


def _warm_up(step: Step) -> int:
    """Run `step` for a while, three times at least; return how many calls make a sample."""
    end = perf_counter() + WARM_UP_SECONDS
    times = [_sample(step, 1) for _ in range(3)]
    while perf_counter() < end:
        times.append(_sample(step, 1))
    return max(1, min(step.max_loops, int(LOOP_SECONDS / max(min(times), 1e-7))))


def settling(steps: Mapping[str, Step]) -> float:
    """Seconds of rest between contestants: none where all of them run on torch's threads."""
    return SETTLE_SECONDS if any(step.own_threads for step in steps.values()) else 0.0


def measure(steps: Mapping[str, Step], plan: Plan) -> dict[str, list[float]]:
    """Seconds per call of every step, one entry per round."""
    loops = {name: _warm_up(step) for name, step in steps.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    settle = settling(steps)
    shuffler = random.Random(0)
    gc.collect()
    gc.disable()
    try:
        end = perf_counter() + plan.seconds
        for done in range(plan.max_rounds):
            if done >= plan.min_rounds and perf_counter() > end:
                break
            shuffler.shuffle(order)
            for name in order:
                samples[name].append(_sample(steps[name], loops[name], settle))
    finally:
        gc.enable()
    return samples


def median(samples: Sequence[float]) -> float:
    """The median of `samples`."""
    return float(torch.tensor(samples, dtype=torch.float64).quantile(0.5))


def _interval(samples: Tensor) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _resampled(samples: Sequence[Sequence[float]]) -> Tensor:
    """Medians of every row of `samples`, from rounds (columns) drawn with replacement: [row, resample]."""
    rounds = len(samples[0])
    picks = torch.randint(rounds, (RESAMPLES, rounds), generator=torch.Generator().manual_seed(0))
    return torch.tensor(samples, dtype=torch.float64)[:, picks].quantile(0.5, dim=2)


def spread(samples: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median of `samples`."""
    return _interval(_resampled([samples])[0])


def ratio(peer: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Median of `peer` over median of `ours` (more than 1: we are faster), from paired rounds."""
    medians = _resampled([peer, ours])
    return Ratio(median(peer) / median(ours), *_interval(medians[0] / medians[1]))

"""Contestants on cold caches: everything is flushed outside of the clock, before every call."""

from __future__ import annotations

from time import sleep

import torch
from torch import Tensor

from bench.machine import cache_bytes
from bench.timing import Step

LEAST_BYTES = 64 << 20  # where the system does not say how large its caches are


class Flush:
    """Reads and writes more than all caches hold, on torch's threads, since every core has caches of its own."""

    def __init__(self) -> None:
        self.buffer = torch.zeros(max(LEAST_BYTES, 2 * cache_bytes()) // 4)

    def __call__(self) -> None:
        self.buffer.add_(1)


class Cold(Step):
    """`step`, on cold caches. What runs right before the clock is the flush."""

    max_loops = 5  # the flush takes longer than what is timed

    def __init__(self, step: Step, flush: Flush, settle: float) -> None:
        self.step = step
        self.flush = flush
        self.settle = settle  # seconds that the flush's threads are given to go to sleep

    def prepare(self) -> None:
        """What the step prepares, then the flush."""
        self.step.prepare()
        self.flush()
        if self.settle:
            sleep(self.settle)

    def call(self) -> None:
        """The step's work."""
        self.step.call()

    def result(self) -> list[Tensor]:
        """The step's."""
        return self.step.result()

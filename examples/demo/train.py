"""One training loop for both sides, run in alternation; what it measures; and when two curves agree.

Three trainers run in step: torch, fused_ml, and a probe. The probe is torch again, with every initial weight
moved by one unit in the last place, up or down at random. How far it drifts from the first trainer is what
float32 rounding alone does to this task's loss curve, and that is what fused_ml's distance is held against.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from examples.demo.models import Library, Task

Curve: TypeAlias = npt.NDArray[np.float64]  # a value per training step
Series: TypeAlias = dict[str, list[float]]  # the same while it grows, for each trainer

SEED = 1
SIDES = ("torch", "fused")
PROBE = "probe"
MULTIPLE = 10.0  # a curve may stray this many times as far as the probe has so far
FLOOR = 8.0  # and this many units of float32 rounding, at the size of the loss, in any case
SCORE_BATCH = 512


class Trainer:
    """A model, its loss and its optimizer from one library."""

    def __init__(self, lib: Library, task: Task) -> None:
        torch.manual_seed(SEED)
        self.lib, self.task = lib, task
        self.model = task.model(lib)
        self.criterion = getattr(lib.nn, task.criterion)()
        self.optimizer = task.optimizer(lib, self.model.parameters())

    def step(self, x: Tensor, y: Tensor) -> float:
        """One step of training; the loss of the batch before it."""
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    @torch.no_grad()
    def held_out(self) -> tuple[float, float]:
        """Loss and accuracy on the examples that were not trained on."""
        split, score = self.task.split, getattr(self.lib.functional, self.task.score)
        loss, right, count = 0.0, 0, len(split.test_x)
        for start in range(0, count, SCORE_BATCH):
            x, y = (part[start : start + SCORE_BATCH] for part in (split.test_x, split.test_y))
            scores = self.model(x)
            loss += score(scores, y).item() * len(x) / count
            right += int(self.task.right(scores, y).sum())
        return loss, right / count


@torch.no_grad()
def nudge(model: Any) -> None:
    """Move every weight to the next float32 above or below it."""
    generator = torch.Generator().manual_seed(SEED)
    for weight in model.parameters():
        up = torch.randint(2, weight.shape, generator=generator, dtype=torch.int8).bool()
        weight.copy_(torch.nextafter(weight, torch.where(up, math.inf, -math.inf)))


def batches(task: Task) -> Iterator[tuple[Tensor, Tensor]]:
    """The same random batches every time."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(task.steps):
        picks = torch.randint(len(task.split.y), (task.batch,), generator=generator)
        yield task.split.x[picks], task.split.y[picks]


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run on so many threads, if it is said how many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def peak_megabytes(trainer: Trainer, x: Tensor, y: Tensor) -> float:
    """The most that a step holds at once of torch's allocator, on top of weights and optimizer state."""
    trainer.optimizer.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.step(x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(os.fspath(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return float(np.cumsum([size for _, size in changes]).max()) / 1e6


@dataclass
class Outcome:
    """All measurements of one task, by side."""

    task: Task
    curves: dict[str, Curve]  # the loss of every training batch
    step_ms: dict[str, float]  # median
    peak_mb: dict[str, float]
    loss: dict[str, float]  # held out
    accuracy: dict[str, float]  # held out
    weights: npt.NDArray[np.float32] | None  # of fused_ml's model, where it is a single linear layer

    @property
    def difference(self) -> Curve:
        """Distance between the two loss curves at each step."""
        return np.abs(self.curves["fused"] - self.curves["torch"])

    @property
    def noise(self) -> Curve:
        """How far the probe has strayed up to each step."""
        strays: Curve = np.abs(self.curves[PROBE] - self.curves["torch"])
        return np.maximum.accumulate(strays)

    @property
    def bound(self) -> Curve:
        """How far the curves may be apart at each step to count as float32 noise."""
        rounding: Curve = np.finfo(np.float32).eps * np.maximum(np.abs(self.curves["torch"]), 1.0)
        return MULTIPLE * self.noise + FLOOR * rounding

    @property
    def share(self) -> Curve:
        """The difference at each step as a fraction of the bound."""
        return self.difference / self.bound

    @property
    def speedup(self) -> float:
        """How many times as fast as torch's the fused step is."""
        return self.step_ms["torch"] / self.step_ms["fused"]

    @property
    def agrees(self) -> bool:
        """Whether the two curves differ by no more than noise; false also where a loss is not a number."""
        return bool((self.share <= 1).all())


def train(task: Task, trainers: dict[str, Trainer], advance: Callable[[], None]) -> tuple[Series, Series]:
    """Take all steps of all trainers, in turns, each turn begun by another; their losses and times."""
    losses: Series = {name: [] for name in trainers}
    times: Series = {name: [] for name in trainers}
    order = list(trainers)
    for x, y in batches(task):
        for name in order:
            start = perf_counter()
            losses[name].append(trainers[name].step(x, y))
            times[name].append(perf_counter() - start)
        order.append(order.pop(0))
        advance()
    return losses, times


def compare(task: Task, libraries: dict[str, Library], advance: Callable[[], None]) -> Outcome:
    """Train one task with all sides and measure."""
    trainers = {side: Trainer(libraries[side], task) for side in SIDES}
    trainers[PROBE] = Trainer(libraries["torch"], task)
    nudge(trainers[PROBE].model)
    with threads(task.threads):
        losses, times = train(task, trainers, advance)
        scores = {side: trainers[side].held_out() for side in SIDES}
        weights = getattr(trainers["fused"].model, "weight", None)
        images = None if weights is None else weights.detach().numpy().copy()
        x, y = next(batches(task))
        peaks = {side: peak_megabytes(trainers[side], x, y) for side in SIDES}
    return Outcome(
        task,
        curves={name: np.array(values) for name, values in losses.items()},
        step_ms={side: float(np.median(times[side])) * 1e3 for side in SIDES},
        peak_mb=peaks,
        loss={side: loss for side, (loss, _) in scores.items()},
        accuracy={side: accuracy for side, (_, accuracy) in scores.items()},
        weights=images,
    )

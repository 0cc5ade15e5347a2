"""Measures one row: checks that the contestants agree, times them, and looks at the memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Collection
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from bench import functions, optimizers, peers
from bench.cases import Case
from bench.cold import Cold, Flush
from bench.machine import available_bytes, others_seconds, processors
from bench.memory import peak_bytes
from bench.timing import Plan, Ratio, Step, measure, ratio, settling

# torch rounds log-probabilities before it exponentiates them: below -16 by up to 0.0625 in bfloat16, 0.008 in float16.
TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
NOTHING = 1e-30  # a difference that never counts: what underflowed moments may still do to a parameter
BUSY = 0.1  # processors
ROOM = 6  # tensors of the row's size that a contestant may hold at once: an optimizer's four, and what torch puts aside


@dataclass
class Row:
    """What was found about a case; `seconds` has one entry per round for every contestant."""

    case: Case
    threads: int = field(default_factory=torch.get_num_threads)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    others: float = 0.0  # processors that the rest of the machine kept busy meanwhile
    error: str = ""

    @property
    def busy(self) -> bool:
        """Whether others took from the processors that torch's threads need: the row's noise is then no measure."""
        return self.others > max(processors() - self.threads, 0) + BUSY


class CopyStep(Step):
    """A plain copy that reads and writes `moved` bytes in all."""

    def __init__(self, moved: int) -> None:
        self.source = torch.ones(max(moved // 2, 1), dtype=torch.uint8)
        self.target = torch.zeros_like(self.source)

    def call(self) -> None:
        """Copy."""
        self.target.copy_(self.source)


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> bool:
    """Whether two results are equal up to `tolerance`, relative to each element or to the mean size."""
    if len(ours) != len(theirs):
        return False
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = mine.float(), other.float()
        allowed = tolerance * float(other.abs().mean()) + NOTHING
        if mine.shape != other.shape or not torch.allclose(mine, other, rtol=tolerance, atol=allowed):
            return False
    return True


def _ours(row: Row, inputs: Any) -> tuple[Step, list[Tensor]]:
    """Our step and its result; what it warns of (a fallback) is noted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = optimizers.ours(row.case) if row.case.is_optimizer else functions.ours(row.case, inputs)
        result = step.result()
    row.warnings = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    return step, result


def _build(peer: peers.Peer, case: Case, inputs: Any) -> tuple[Step, list[Tensor]] | str:
    """The peer's step and its result, or why there is none."""
    if reason := peer.missing():
        return reason
    room, needed = available_bytes(), ROOM * case.tensor_bytes
    if room is not None and needed > room:
        return f"it may need {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB are free"
    try:
        step = peer.build(case, inputs)
        return step, step.result()
    except Exception as problem:  # no compiler, or an optimizer without this option
        lines = str(problem).strip().splitlines()
        return f"{type(problem).__name__}: {lines[0] if lines else ''}"


def _contestants(row: Row, names: Collection[str]) -> dict[str, Step]:
    """Our step and those of the peers that work, by name; note what is missing and which results differ."""
    case = row.case
    inputs = None if case.is_optimizer else functions.Inputs(case)
    step, ours = _ours(row, inputs)
    steps = {"ours": step}
    for peer in peers.of(case):
        if peer.name not in names:
            continue
        built = _build(peer, case, inputs)
        if isinstance(built, str):
            row.skipped[peer.name] = built
            continue
        steps[peer.name], theirs = built
        if peer.name != "normal" and not agree(ours, theirs, TOLERANCE[case.dtype]):
            row.differs.append(peer.name)
    return steps


def _peaks(row: Row, steps: dict[str, Step]) -> None:
    """What ours and eager hold at most, in tensors of the row's size: a function's logits count, parameters do not."""
    held = 0 if row.case.is_optimizer else 1
    for name in ("ours", "eager"):
        extra = peak_bytes(steps[name]) if name in steps else None
        if extra is not None:
            row.peak[name] = held + extra / row.case.tensor_bytes


def _measure(row: Row, plan: Plan, names: Collection[str]) -> None:
    case = row.case
    steps = _contestants(row, names)
    _peaks(row, steps)
    steps["copy"] = CopyStep(case.moved_bytes)
    if case.cold:
        flush, settle = Flush(), settling(steps)
        steps = {name: Cold(step, flush, settle) for name, step in steps.items()}
    start, others = perf_counter(), others_seconds()
    row.seconds = measure(steps, plan)
    row.others = max(0.0, others_seconds() - others) / (perf_counter() - start)
    row.ratios = {name: ratio(row.seconds[name], row.seconds["ours"]) for name in steps if name != "ours"}


def run(case: Case, plan: Plan, names: Collection[str] = peers.NAMES) -> Row:
    """Measure `case` against the peers among `names`, on torch's present threads; our failure goes into the row."""
    row = Row(case)
    try:
        _measure(row, plan, names)
    except Exception as problem:
        row.error = f"{type(problem).__name__}: {problem}"
        row.seconds = {}
    gc.collect()
    return row

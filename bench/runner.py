"""Measures one row: checks that the contestants agree, times them, and looks at the memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from bench import functions, optimizers
from bench.cases import Case
from bench.machine import others_seconds
from bench.memory import peak_bytes
from bench.timing import Plan, Ratio, measure, median, ratio

TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2}  # a log-probability of -16 has a bfloat16 error of 0.06

NOTHING = 1e-30  # a difference that never counts: what underflowed moments may still do to a parameter


@dataclass
class Row:
    """What was found about a case; `seconds` has one entry per round for every contestant."""

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    others: float = 0.0  # processors that the rest of the machine kept busy meanwhile
    error: str = ""

    @property
    def ms(self) -> float:
        """Our time of a call in milliseconds."""
        return median(self.seconds["ours"]) * 1e3

    @property
    def gb_per_s(self) -> float:
        """The least bytes moved by our time."""
        return self.case.moved_bytes / median(self.seconds["ours"]) / 1e9

    @property
    def copy_gb_per_s(self) -> float:
        """The speed of a plain copy that moves as many bytes."""
        return self.case.moved_bytes / median(self.seconds["copy"]) / 1e9

    def meets(self, peer: str) -> bool | None:
        """Whether the floor against `peer` is met; None if there is none or nothing to judge."""
        if peer not in self.case.floors or peer not in self.ratios:
            return None
        return self.ratios[peer].value >= self.case.floors[peer]


class CopyStep:
    """A plain copy that reads and writes `moved` bytes in all."""

    def __init__(self, moved: int) -> None:
        self.source = torch.ones(moved // 2, dtype=torch.uint8)
        self.target = torch.zeros_like(self.source)

    def prepare(self) -> None:
        """Nothing."""

    def call(self) -> None:
        """Copy."""
        self.target.copy_(self.source)


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> bool:
    """Whether two results are equal up to `tolerance`, relative to each element or to the mean size."""
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = mine.float(), other.float()
        allowed = tolerance * float(other.abs().mean()) + NOTHING
        if mine.shape != other.shape or not torch.allclose(mine, other, rtol=tolerance, atol=allowed):
            return False
    return True


Steps = Mapping[str, functions.FunctionStep | optimizers.OptimizerStep]


def _compare(row: Row, steps: Steps) -> Steps:
    """Note the peers that differ from us; return the contestants that work."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = steps["ours"].result()
    row.warnings = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    working = dict(steps)
    for name in row.case.peers:
        try:
            theirs = steps[name].result()
        except Exception as problem:  # no compiler, or an optimizer without this option: shown as "-"
            lines = str(problem).strip().splitlines()
            row.skipped[name] = f"{type(problem).__name__}: {lines[0] if lines else ''}"
            del working[name]
            continue
        if name != "normal" and not agree(ours, theirs, TOLERANCE[row.case.dtype]):
            row.differs.append(name)
    return working


def _measure(row: Row, plan: Plan) -> None:
    case = row.case
    build = optimizers.contestants if case.is_optimizer else functions.contestants
    steps = _compare(row, build(case))
    if not case.is_optimizer:
        for name in ("ours", "eager"):
            extra = peak_bytes(steps[name])
            if extra is not None:
                row.peak[name] = 1 + extra / case.tensor_bytes
    contestants = {**steps, "copy": CopyStep(case.moved_bytes)}
    start, others = perf_counter(), others_seconds()
    row.seconds = measure(contestants, plan)
    row.others = max(0.0, others_seconds() - others) / (perf_counter() - start)
    row.ratios = {peer: ratio(row.seconds[peer], row.seconds["ours"]) for peer in case.peers if peer in steps}


def run(case: Case, plan: Plan) -> Row:
    """Measure `case`; a failure of ours is recorded in the row."""
    row = Row(case)
    try:
        _measure(row, plan)
    except Exception as problem:
        row.error = f"{type(problem).__name__}: {problem}"
        row.seconds = {}
    gc.collect()
    return row

"""``python -m bench.roofline [PATTERN]``: each kernel beside a plain copy of the bytes it must move.

Kernels, not operators: their outputs are there already, so that nothing but the kernel is timed (a fresh output costs
page faults, which ``python -m bench`` counts). Every instruction set the processor has, float32 and bfloat16, at sizes
that no cache holds; kernel and copy take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import fused_ml
from bench import machine, raw, roofline_table
from bench.timing import Plan, Step, measure, ratio

ROWS, CLASSES = 2048, 32000
NAMES = {4: "float32", 2: "bfloat16"}  # by bytes
PLAN = Plan(seconds=1.0, min_rounds=7, max_rounds=31)
ADAM = [1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0]
SGD = [1e-3, 0.9, 0.0, 0.0, 0.0, 0.0]
Run = Callable[[str], object]  # of an instruction set


@dataclass(frozen=True)
class Case:
    """A kernel at a size: the least bytes it moves, and how to run it at an instruction set."""

    name: str
    dtype: str
    elements: int
    bytes: int
    run: Run


class _Call(Step):
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def call(self) -> None:
        self.run()


def _array(values: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16, which NumPy lacks, is its upper half as uint16."""
    return values if dtype == "float32" else (values.view(np.uint32) >> 16).astype(np.uint16)


def _rowwise(flat: np.ndarray, out: np.ndarray, classes: int) -> Iterator[Case]:
    """The kernels over rows of so many classes."""
    dtype, shape = NAMES[flat.itemsize], (flat.size // classes, classes)
    used = shape[0] * classes
    x, y = flat[:used].reshape(shape), out[:used].reshape(shape)
    target, loss = np.arange(shape[0]) * 7919 % classes, np.zeros(shape[0], np.float32)
    logarithms = _array(np.full(used, -1, np.float32), dtype).reshape(shape)
    by_row = target.nbytes + loss.nbytes

    def case(name: str, passes: int, run: Run, beside: int = 0) -> Case:
        return Case(f"{name} of {classes}", dtype, used, passes * x.nbytes + beside, run)

    yield case("cross entropy", 1, lambda isa: raw.cross_entropy(x, target, loss, isa=isa), by_row)
    yield case("cross entropy and gradient", 2, lambda isa: raw.cross_entropy(x, target, loss, y, isa=isa), by_row)
    yield case("softmax", 2, lambda isa: raw.softmax(x, y, isa=isa))
    yield case("softmax backward", 3, lambda isa: raw.softmax_backward(x, logarithms, y, isa=isa))
    yield case("log-softmax", 2, lambda isa: raw.log_softmax(x, y, isa=isa))
    yield case("log-softmax backward", 3, lambda isa: raw.log_softmax_backward(x, logarithms, y, isa=isa))


def _elementwise(flat: np.ndarray, labels: np.ndarray, out: np.ndarray) -> Iterator[Case]:
    """The kernels over elements, and the optimizers', which come last: they change `flat`."""

    def case(name: str, passes: int, run: Run) -> Case:
        return Case(name, NAMES[flat.itemsize], flat.size, passes * flat.nbytes, run)

    yield case("BCE with logits", 2, lambda isa: raw.binary_cross_entropy(flat, labels, isa=isa))
    yield case("BCE with logits and gradient", 3, lambda isa: raw.binary_cross_entropy(flat, labels, dx=out, isa=isa))
    yield case("log-sigmoid", 2, lambda isa: raw.logsigmoid(flat, out, isa=isa))
    yield case("log-sigmoid backward", 3, lambda isa: raw.logsigmoid(flat, grad=labels, dx=out, isa=isa))
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    yield case("Adam", 7, lambda isa: raw.adam(flat, labels, [first, second], 3, ADAM, 9, isa=isa))
    yield case("SGD with momentum", 5, lambda isa: raw.sgd(flat, labels, [first], 1, SGD, isa=isa))


def cases(elements: int = ROWS * CLASSES) -> Iterator[Case]:
    """Every kernel in both types, one after the other: what they need is made when it is asked for."""
    generator = np.random.default_rng(0)
    for dtype in NAMES.values():
        flat = _array(generator.standard_normal(elements, dtype=np.float32), dtype)
        labels = _array(generator.integers(0, 2, elements).astype(np.float32), dtype)
        out = np.zeros_like(flat)
        for classes in (CLASSES, 1000, 10):
            yield from _rowwise(flat, out, classes)
        yield from _elementwise(flat, labels, out)


def _copy_of(count: int) -> Callable[[], object]:
    """A copy that moves so many bytes in all, between arrays of the same kind of memory as the kernels'."""
    source, target = (torch.from_numpy(np.ones(count // 2, np.uint8)) for _ in range(2))
    return lambda: target.copy_(source)


def measured(case: Case, levels: list[str], plan: Plan) -> dict[str, Any]:
    """A case at every level beside the copy: ns an element and thread, and the share of the copy's speed."""
    steps: dict[str, Step] = {"copy": _Call(_copy_of(case.bytes))}
    steps |= {level: _Call(partial(case.run, level)) for level in levels}
    seconds = measure(steps, plan)
    found: dict[str, Any] = {"name": case.name, "dtype": case.dtype, "bytes": case.bytes, "levels": {}}
    for level in levels:
        share = ratio(seconds["copy"], seconds[level])
        nanoseconds = sorted(seconds[level])[len(seconds[level]) // 2] * 1e9 / case.elements
        found["levels"][level] = {
            "ns": round(nanoseconds * torch.get_num_threads(), 4),
            "share": [round(value, 3) for value in (share.value, share.low, share.high)],
        }
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="rows whose name contains it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there")
    arguments = parser.parse_args()
    levels = [level for level in fused_ml.cpu_isas_supported() if level != "baseline"] or ["baseline"]
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "command": " ".join(["python -m bench.roofline", *sys.argv[1:]]),
        "threads": torch.get_num_threads(),
        "levels": levels,
        "rows": [],
    }
    for case in track(cases(), "kernels", console=Console(stderr=True), transient=True):
        if arguments.pattern in case.name:
            found["rows"].append(measured(case, levels, PLAN))
    Console().print(roofline_table.table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

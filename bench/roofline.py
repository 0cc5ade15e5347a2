"""``python -m bench.roofline [PATTERN]``: each kernel beside a plain copy of the bytes it must move.

Kernels, not operators: their outputs are there already, so that nothing but the kernel is timed (a fresh output costs page
faults, which ``python -m bench`` counts). Every instruction set the processor has, float32 and bfloat16, at sizes that no
cache holds; kernel and copy take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fused_ml
from bench import machine, raw
from bench.timing import Plan, Step, measure, ratio

ROWS, CLASSES = 2048, 32000
NEAR = 0.85  # of a copy's speed: what is asked for
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


def cases(elements: int = ROWS * CLASSES) -> Iterator[Case]:
    """Every kernel in both types, one after the other: what they need is made when it is asked for."""
    generator = np.random.default_rng(0)
    for dtype, size in (("float32", 4), ("bfloat16", 2)):
        flat = _array(generator.standard_normal(elements, dtype=np.float32), dtype)
        labels = _array(generator.integers(0, 2, elements).astype(np.float32), dtype)
        out = np.zeros_like(flat)

        def case(name: str, passes: int, run: Run, beside: int = 0, dtype: str = dtype, size: int = size) -> Case:
            return Case(name, dtype, elements, passes * size * elements + beside, run)

        for classes in (CLASSES, 1000, 10):
            shape = (elements // classes, classes)
            used = shape[0] * classes
            x, y = flat[:used].reshape(shape), out[:used].reshape(shape)
            target, loss = generator.integers(classes, size=shape[0]), np.zeros(shape[0], np.float32)
            arguments = (x, target, loss)
            at, by_row = f" of {classes}", target.nbytes + loss.nbytes
            yield case(f"cross entropy{at}", 1, lambda isa, a=arguments: raw.cross_entropy(*a, isa=isa), by_row)
            yield case(
                f"cross entropy and gradient{at}",
                2,
                lambda isa, a=arguments, y=y: raw.cross_entropy(*a, y, isa=isa),
                by_row,
            )
            for name in ("softmax", "log_softmax"):
                yield case(f"{name}{at}", 2, lambda isa, n=name, x=x, y=y: getattr(raw, n)(x, y, isa=isa))
                third = _array(np.full(used, -1, np.float32), dtype).reshape(shape)
                yield case(
                    f"{name} backward{at}",
                    3,
                    lambda isa, n=f"{name}_backward", x=x, z=third, y=y: getattr(raw, n)(x, z, y, isa=isa),
                )
                del third
        yield case("binary cross entropy", 2, lambda isa: raw.binary_cross_entropy(flat, labels, isa=isa))
        yield case(
            "binary cross entropy and gradient", 3, lambda isa: raw.binary_cross_entropy(flat, labels, dx=out, isa=isa)
        )
        yield case("logsigmoid", 2, lambda isa: raw.logsigmoid(flat, out, isa=isa))
        yield case("logsigmoid backward", 3, lambda isa: raw.logsigmoid(flat, grad=labels, dx=out, isa=isa))
        states = np.zeros((2, elements), flat.dtype)
        yield case("Adam", 7, lambda isa: raw.adam(flat, labels, *states, 9, ADAM, isa=isa))
        yield case("SGD with momentum", 5, lambda isa: raw.sgd(flat, labels, states[0], SGD, isa=isa))


def _copy_of(count: int) -> Callable[[], object]:
    """A copy that moves so many bytes in all."""
    source, target = torch.ones(count // 2, dtype=torch.uint8), torch.ones(count // 2, dtype=torch.uint8)
    return lambda: target.copy_(source)


def measured(case: Case, levels: list[str], plan: Plan) -> dict[str, Any]:
    """A case at every level beside the copy: ns an element and thread, and the share of the copy's speed."""
    steps: dict[str, Step] = {"copy": _Call(_copy_of(case.bytes))}
    steps |= {level: _Call(lambda level=level: case.run(level)) for level in levels}
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


def markdown(found: dict[str, Any]) -> str:
    """The table of the page: a row for each kernel, columns for each instruction set."""
    levels = found["levels"]
    lines = [
        "| kernel | dtype | MB | " + " | ".join(f"{level}: ns | of copy" for level in levels) + " |",
        "| --- | --- | ---: |" + " ---: | ---: |" * len(levels),
    ]
    for row in found["rows"]:
        cells = [f"{at['ns']:.3f} | {at['share'][0]:.0%}" for at in (row["levels"][level] for level in levels)]
        lines.append(f"| {row['name']} | {row['dtype']} | {row['bytes'] / 1e6:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"ns an element and thread, and share of a copy's speed; {torch.get_num_threads()} threads")
    table.add_column("kernel")
    table.add_column("dtype")
    for level in found["levels"]:
        table.add_column(level, justify="right")
        table.add_column("of copy", justify="right")
    for row in found["rows"]:
        cells: list[str] = []
        for at in row["levels"].values():
            style = "green" if at["share"][2] >= NEAR else "default"
            cells += [f"{at['ns']:.3f}", f"[{style}]{at['share'][0]:.0%}[/]"]
        table.add_row(row["name"], row["dtype"], *cells)
    return table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("pattern", nargs="?", default="", help="rows whose name contains it")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there")
    arguments = parser.parse_args()
    levels = [level for level in fused_ml.cpu_isas_supported() if level != "baseline"] or ["baseline"]
    found: dict[str, Any] = {"machine": machine.describe(), "levels": levels, "rows": []}
    found["command"] = " ".join(["python -m bench.roofline", *sys.argv[1:]])
    for case in track(cases(), "kernels", console=Console(stderr=True), transient=True):
        if arguments.pattern in case.name:
            found["rows"].append(measured(case, levels, PLAN))
    Console().print(_table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

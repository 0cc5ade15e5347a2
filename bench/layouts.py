"""``python -m bench.layouts [PATTERN]``: where a layout, a broadcast or an upstream gradient's strides make us slow.

Every fused function beside torch's own, forward and backward apart, in turns, each allocating its outputs
(``layout_cases.py`` has the table). A row's ratio is our time over torch's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fused_ml.nn.functional
from bench import machine
from bench.layout_cases import Case, call, cases
from bench.timing import Plan, Step, measure, median, ratio

DTYPES = ("float32", "bfloat16")
PLAN = Plan(seconds=0.1, min_rounds=5, max_rounds=15)
AGAIN = Plan(seconds=1.0, min_rounds=15, max_rounds=61)  # of a row above the bound: a busy machine makes some
BOUND = 1.2


class _Call(Step):
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def call(self) -> None:
        self.run()


def measured(case: Case, threads: int, bound: float) -> dict[str, Any] | None:
    """A row: seconds of both, and ours over torch's with its interval; None where torch itself raises."""
    torch.set_num_threads(threads)
    try:
        call(torch.nn.functional, case)()
    except RuntimeError:  # nll_loss's backward pass of some layouts of maps: "grad_input must be contiguous"
        return None
    steps: dict[str, Step] = {
        "ours": _Call(call(fused_ml.nn.functional, case)),
        "torch": _Call(call(torch.nn.functional, case)),
    }
    seconds = measure(steps, PLAN)
    if median(seconds["ours"]) > bound * median(seconds["torch"]):
        seconds = measure(steps, AGAIN)
    times = ratio(seconds["ours"], seconds["torch"])
    return {
        "row": case.label,
        "threads": threads,
        "ours": float(f"{median(seconds['ours']):.4g}"),
        "torch": float(f"{median(seconds['torch']):.4g}"),
        "ratio": [round(value, 3) for value in (times.value, times.low, times.high)],
    }


def shown(rows: list[dict[str, Any]], worst: float) -> Table:
    """Rows whose ratio is above `worst`, slowest first."""
    slow = sorted((row for row in rows if row["ratio"][0] > worst), key=lambda row: -row["ratio"][0])
    table = Table(title=f"ours / torch: {len(slow)} of {len(rows)} rows above {worst:g}")
    table.add_column("row", overflow="fold")
    for title in ("threads", "ours ms", "torch ms", "ratio", "95 %"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in slow:
        value, low, high = row["ratio"]
        table.add_row(
            row["row"], str(row["threads"]), f"{row['ours'] * 1e3:.3f}", f"{row['torch'] * 1e3:.3f}", f"{value:.2f}",
            f"{low:.2f}-{high:.2f}",
        )  # fmt: skip
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.layouts", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("patterns", nargs="*", metavar="PATTERN", help="only rows whose label contains each of them")
    add("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2], help="default: 1,2")
    add("--dtypes", type=lambda text: tuple(text.split(",")), default=DTYPES, help="default: %(default)s")
    add("--every", type=int, default=1, metavar="N", help="each Nth row only")
    add("--worst", type=float, metavar="BOUND", nargs="?", const=BOUND, default=0, help="print rows above it only")
    add("--json", metavar="FILE", type=Path, help="write all rows there")
    return parser.parse_args()


def main() -> int:
    """The command: 1 if a row's whole interval lies above the bound."""
    options = _arguments()
    chosen = [case for case in cases(options.dtypes) if all(text in case.label for text in options.patterns)]
    bound, rows = options.worst or BOUND, []
    for case in track(chosen[:: options.every], "rows", console=Console(stderr=True), transient=True):
        rows += [row for threads in options.threads if (row := measured(case, threads, bound))]
    Console().print(shown(rows, options.worst))
    if options.json:
        found = {"machine": machine.describe(), "command": " ".join(sys.argv), "rows": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(row["ratio"][1] > bound for row in rows))


if __name__ == "__main__":
    sys.exit(main())

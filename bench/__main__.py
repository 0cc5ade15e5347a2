"""Command line of the benchmarks: ``python -m bench --help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no helper processes beside the timing
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler is chatty

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import cases, machine, report, runner
from bench.timing import Plan

FULL = Plan()
QUICK = Plan(seconds=0.5, min_rounds=5, max_rounds=15)
QUICK_COMPILE_SECONDS = 35.0  # in a quick run, rows that start later than this are not compiled


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time fused_ml against PyTorch.")
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute, floors not judged")
    parser.add_argument("--only", default="", metavar="PATTERN", help="rows whose name contains this pattern")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw numbers")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as Markdown")
    return parser.parse_args(argv)


def _run(console: Console, chosen: list[cases.Case], quick: bool) -> list[runner.Row]:
    """Measure the rows one after the other, under a progress bar; an interrupt ends it with those done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    rows = []
    start = time.monotonic()
    # The bar is redrawn between rows only, so that no other thread runs during the timing.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=len(chosen))
        for case in chosen:
            progress.update(task, description=case.label, refresh=True)
            if quick and time.monotonic() - start > QUICK_COMPILE_SECONDS:
                case = replace(case, compiled=False)
            try:
                rows.append(runner.run(case, QUICK if quick else FULL))
            except KeyboardInterrupt:
                break
            progress.advance(task)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks; 1 if a row failed, whatever the floors say."""
    options = _arguments(argv)
    torch.set_num_threads(options.threads)
    try:
        about = machine.describe()
    except ImportError as problem:
        print(f"fused_ml cannot be imported: {problem}", file=sys.stderr)
        return 1
    chosen = cases.select(options.quick, options.only, not options.no_compile)
    if not chosen:
        print(f"no row matches {options.only!r}", file=sys.stderr)
        return 1
    rows = _run(Console(stderr=True), chosen, options.quick)
    report.show(Console(), about, rows)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(about, rows), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(about, rows))
    return 1 if any(row.error for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

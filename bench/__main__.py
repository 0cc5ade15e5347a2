"""Command line of the benchmarks: ``python -m bench --help``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no helper processes beside the timing
os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler is chatty

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import bandwidth, cases, compare, document, machine, peers, plots, report, runner, scaling
from bench.timing import Plan

FULL = Plan()
QUICK = Plan(seconds=0.25, min_rounds=5, max_rounds=15)
# glibc then hands out freed memory again instead of fetching fresh pages; read when a process starts.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 60)}
QUICK_COMPILE_SECONDS = 15.0  # in a quick run, rows that start later than this are not compiled


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",") if part.isdigit() and int(part) > 0]
    if len(counts) != len(text.split(",")):
        raise argparse.ArgumentTypeError(f"expected numbers of threads such as 1,2, got {text!r}")
    return counts


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in peers.NAMES]:
        raise argparse.ArgumentTypeError(f"expected names out of {', '.join(peers.NAMES)}, got {', '.join(unknown)}")
    return names


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Time fused_ml against PyTorch and others.")
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, built-in peers, under a minute, floors not judged")
    add("--only", default="", metavar="PATTERN", help="rows whose name contains this pattern")
    add("--headline", action="store_true", help="the README's rows alone")
    add(
        "--list",
        action="store_true",
        help="say which rows and peers there are, and which peers are missing; time nothing",
    )
    add("--no-compile", action="store_true", help="leave out what compiles: torch.compile, torchao")
    add("--peers", type=_names, metavar="A,B", help="compare with these alone (default: all; --quick: torch's)")
    add("--threads", type=_counts, default=list(cases.THREADS), metavar="1,2", help="threads of PyTorch (default: 2)")
    add("--scaling", action="store_true", help="time against size and threads instead, and the fit of the byte model")
    add("--keep-memory", action="store_true", help="glibc keeps what is freed: no page faults, for torch nor for us")
    add("--json", type=Path, metavar="FILE", help="write medians, intervals and ratios")
    add("--update", action="store_true", help="keep the rows of --json FILE that are not timed anew, and say so in it")
    add("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    add("--plot", type=Path, metavar="FILE.png", help="draw roofline, ratios and times; --scaling: FILE-<operator>.png")
    add("--compare", type=Path, metavar="OLD.json", help="tell what became slower since; exit status 1 if a row did")
    add("--margin", type=float, default=compare.MARGIN, help="of --compare, beyond the interval (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.update and not (options.json and options.json.exists()):
        parser.error("--update: expected --json with the file of an earlier run")
    options.peers = options.peers or (peers.BUILT_IN if options.quick else peers.NAMES)
    return options


def list_rows(console: Console, chosen: list[cases.Case], names: Collection[str]) -> None:
    """Say which rows and peers there are."""
    for case in chosen:
        against = ", ".join(peer.name for peer in peers.of(case) if peer.name in names)
        floors = ", ".join(f"{peer} {floor:g}x" for peer, floor in case.floors.items())
        promised = f"; floors: {floors}" if floors else ""
        text = f"{case.label}: {case.moved_bytes / 1e6:.4g} MB; {against}{promised}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for peer in peers.PEERS:
        if peer.name in names:
            state = peer.missing() or peer.versions() or "there"
            console.print(f"peer {peer.name}: {state}", highlight=False, markup=False, soft_wrap=True)


def _run(console: Console, chosen: list[cases.Case], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the rows one after the other, under a progress bar; an interrupt ends it with those done."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    rows: list[dict[str, Any]] = []
    start = time.monotonic()
    # The bar is redrawn between rows only, so that no other thread runs during the timing.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=len(chosen) * len(options.threads))
        for threads in options.threads:
            torch.set_num_threads(threads)
            for case in chosen:
                progress.update(task, description=f"{case.label}, {report.threads_of(threads)}", refresh=True)
                if options.quick and time.monotonic() - start > QUICK_COMPILE_SECONDS:
                    case = replace(case, compiled=False)
                try:
                    row = runner.run(case, QUICK if options.quick else FULL, options.peers)
                except KeyboardInterrupt:
                    return rows
                rows.append(document.record(row))
                progress.advance(task)
    return rows


def _bandwidth(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        found += bandwidth.sweep(options.quick)
    return found


def _measure(options: argparse.Namespace, chosen: list[cases.Case], argv: list[str]) -> dict[str, Any]:
    """Everything that the options ask for, as a document."""
    console = Console(stderr=True)
    command = shlex.join(["python", "-m", "bench", *argv])
    about = machine.describe()
    speeds = _bandwidth(options)
    if options.scaling:
        rows, curves = [], scaling.measure(console, options.threads, options.quick, options.only)
    else:
        rows, curves = _run(console, chosen, options), []
    tried = () if options.scaling else tuple(options.peers)
    return document.document(command, about, peers.about(tried), speeds, rows, curves)


def _write(options: argparse.Namespace, found: dict[str, Any]) -> None:
    if options.json:
        document.write(options.json, found)
    if options.markdown:
        options.markdown.write_text(report.markdown(found))
    if options.plot and options.scaling:
        plots.scaling(found, options.plot)
    elif options.plot:
        plots.overview(found, options.plot)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks; 1 if a row failed or, with ``--compare``, became slower, whatever the floors say."""
    argv = sys.argv[1:] if argv is None else argv
    options = _arguments(argv)
    chosen = cases.select(options.quick, options.only, not options.no_compile, options.headline)
    if not chosen and not options.scaling:
        print(f"no row matches {options.only!r}; python -m bench --list names them", file=sys.stderr)
        return 1
    if options.keep_memory and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "bench", *argv], {**os.environ, **KEEP_MEMORY})
    console = Console()
    if options.list:
        list_rows(console, chosen, options.peers)
        return 0
    try:
        old = document.read(options.compare) if options.compare else None
        kept = document.read(options.json) if options.update else None
    except (OSError, ValueError) as problem:
        print(f"--compare, --update: {problem}", file=sys.stderr)
        return 2
    if kept and (differ := document.differences(kept["machine"], machine.describe())):
        print(f"--update: expected the machine and software of {options.json}; they differ: {'; '.join(differ)}",
              file=sys.stderr)  # fmt: skip
        return 2
    found = _measure(options, chosen, argv)
    (scaling.show if options.scaling else report.show)(console, found)
    _write(options, document.updated(kept, found) if kept else found)
    regressed = old is not None and compare.show(console, old, found, options.margin)
    return 1 if regressed or any(row["error"] for row in found["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Time against size and threads, and how well the byte model explains it: time = overhead + bytes / bandwidth.

The model is fitted by least squares of the relative deviations, so that small sizes count as much as large ones. It
knows one bandwidth; where a sweep crosses from the caches to memory, the deviation shows it. Against threads the bytes
are shared out: time = overhead + bytes / (threads * bandwidth).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import runner
from bench.cases import SWEEPS, THREAD_SWEEPS, Case
from bench.document import Record
from bench.report import head, threads_of
from bench.timing import Plan, median

PLAN = Plan(seconds=1.5, min_rounds=7, max_rounds=31)
QUICK = Plan(seconds=0.15, min_rounds=3, max_rounds=9)
QUICK_POINTS = 4  # the smallest sizes of a sweep
PEERS = ("eager",)


def fit(loads: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Overhead in s, bandwidth in GB/s and the largest relative deviation of seconds = overhead + load / bandwidth.

    Neither is negative: where the best overhead would be, it is 0; where time does not grow, bandwidth is infinite.
    """
    load, time = np.asarray(loads, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(load), load]) / time  # of the model / time, which shall be 1
    overhead, slope = np.linalg.lstsq(terms.T, np.ones_like(time), rcond=None)[0]
    if overhead < 0:
        overhead, slope = 0.0, terms[1].sum() / (terms[1] ** 2).sum()
    elif slope < 0:
        overhead, slope = terms[0].sum() / (terms[0] ** 2).sum(), 0.0
    deviation = np.abs(overhead * terms[0] + slope * terms[1] - 1).max()
    return float(overhead), float(1e-9 / slope) if slope > 0 else float("inf"), float(deviation)


def _point(case: Case, plan: Plan) -> dict[str, Any]:
    """One measured size."""
    row = runner.run(case, plan, PEERS)
    if row.error:
        raise RuntimeError(f"{case.label}: {row.error}")
    seconds = {name: float(f"{median(samples):.5g}") for name, samples in row.seconds.items()}
    return {
        "shape": list(case.shape),
        "bytes": case.moved_bytes,
        "threads": row.threads,
        "busy": row.busy,
        "seconds": seconds,
    }


def _curve(op: str, axis: str, values: Sequence[int], points: list[dict[str, Any]]) -> dict[str, Any]:
    """A curve with the fit of ours; threads share the bytes."""
    share = [point["threads"] if axis == "threads" else 1 for point in points]
    loads = [point["bytes"] / threads for point, threads in zip(points, share, strict=True)]
    overhead, bandwidth, deviation = fit(loads, [point["seconds"]["ours"] for point in points])
    return {
        "op": op,
        "axis": axis,
        "threads": None if axis == "threads" else points[0]["threads"],
        "values": list(values),
        "points": points,
        "overhead_us": float(f"{overhead * 1e6:.4g}"),
        "gb_per_s": float(f"{bandwidth:.4g}") if np.isfinite(bandwidth) else None,
        "largest_deviation": float(f"{deviation:.4g}"),
    }


def _varying(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The extent that a sweep's shapes differ in."""
    dimension = 0 if shapes[0][0] != shapes[-1][0] else 1
    return [shape[dimension] for shape in shapes]


def measure(console: Console, threads: Sequence[int], quick: bool, only: str = "") -> list[dict[str, Any]]:
    """Every sweep whose operator contains `only`, for each number of threads, and then against the threads."""
    plan, curves = QUICK if quick else PLAN, []
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        sweeps = [sweep for sweep in SWEEPS if only.lower() in sweep.op.lower()]
        whole = [case for case in THREAD_SWEEPS if only.lower() in case.op.lower()]
        task = progress.add_task("", total=len(threads) * len(sweeps) + len(whole))
        for count in threads:
            torch.set_num_threads(count)
            for sweep in sweeps:
                progress.update(task, description=f"{sweep.op}, {sweep.axis}, {threads_of(count)}", refresh=True)
                cases = sweep.cases[:QUICK_POINTS] if quick else sweep.cases
                points = [_point(case, plan) for case in cases]
                curves.append(_curve(sweep.op, sweep.axis, _varying([case.shape for case in cases]), points))
                progress.advance(task)
        for case in whole if len(threads) > 1 else []:
            progress.update(task, description=f"{case.op}, threads", refresh=True)
            curves.append(_curve(case.op, "threads", threads, _by_threads(case, threads, plan, quick)))
            progress.advance(task)
    return curves


def _by_threads(case: Case, threads: Sequence[int], plan: Plan, quick: bool) -> list[dict[str, Any]]:
    sized = Case(case.op, case.quick_shape if quick else case.shape, compiled=False)
    points = []
    for count in threads:
        torch.set_num_threads(count)
        points.append(_point(sized, plan))
    return points


def show(console: Console, found: Record) -> None:
    """Print every point, with a star where the machine was busy, and for every curve the fit."""
    for text in head(found):
        console.print(text, highlight=False, markup=False)
    for curve in found["scaling"]:
        threads = "" if curve["threads"] is None else f", {threads_of(curve['threads'])}"
        table = Table(title=f"{curve['op']}: time against {curve['axis']}{threads}")
        for title in (curve["axis"], "MB", "ms", "GB/s", "of copy", "eager"):
            table.add_column(title, justify="right")
        for value, point in zip(curve["values"], curve["points"], strict=True):
            seconds = point["seconds"]
            ours = seconds["ours"]
            star = "*" if point["busy"] else ""
            table.add_row(
                str(value), f"{point['bytes'] / 1e6:.4g}", f"{ours * 1e3:.4g}{star}",
                f"{point['bytes'] / ours / 1e9:.1f}", f"{seconds['copy'] / ours:.0%}",
                f"{seconds['eager'] / ours:.2f}x",
            )  # fmt: skip
        console.print(table)
        console.print(words(curve), highlight=False, markup=False)


def words(curve: Record) -> str:
    """What the byte model makes of a curve."""
    speed = "no dependence on bytes" if curve["gb_per_s"] is None else f"bytes at {curve['gb_per_s']:.4g} GB/s"
    per_thread = " a thread" if curve["axis"] == "threads" else ""
    threads = "" if curve["threads"] is None else f", {threads_of(curve['threads'])}"
    return (
        f"{curve['op']} against {curve['axis']}{threads}: {curve['overhead_us']:.3g} us and {speed}{per_thread}; "
        f"largest deviation {curve['largest_deviation']:.0%}"
    )

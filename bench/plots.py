"""Pictures of a document: roofline, ratios to the peers, time against size; and the curves of ``--scaling``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.document import Record, thread_counts, timed
from bench.peers import RIVALS, TITLES
from bench.report import threads_of

INCHES_A_BAR = 0.13
MOST_BARRED = 30
CURVES_A_LINE = 3


def _roofline(axes: Axes, found: Record, rows: Sequence[Record], threads: int) -> None:
    """GB/s against bytes; the roof is what a plain copy reaches, alone and beside the rows."""
    roof = [entry for entry in found["bandwidth"] if entry["threads"] == threads]
    axes.plot([e["bytes"] for e in roof], [e["copy"] for e in roof], color="black", label="copy")
    axes.plot([e["bytes"] for e in roof], [e["triad"] for e in roof], color="gray", linestyle=":", label="triad")
    for op in dict.fromkeys(row["op"] for row in rows):
        own = [row for row in rows if row["op"] == op and row["bytes"]]
        axes.scatter([row["bytes"] for row in own], [row["gb_per_s"] for row in own], s=18, label=op)
    axes.set(xscale="log", yscale="log", xlabel="least bytes", ylabel="GB/s", title=f"Roofline, {threads_of(threads)}")
    axes.legend(fontsize=6)
    axes.grid(alpha=0.3)


def _times(axes: Axes, rows: Sequence[Record]) -> None:
    """Our time and eager's against bytes."""
    for op in dict.fromkeys(row["op"] for row in rows):
        own = sorted((row for row in rows if row["op"] == op and row["bytes"]), key=lambda row: row["bytes"])
        sizes = [row["bytes"] for row in own]
        drawn = axes.scatter(sizes, [row["ms"] for row in own], s=18, label=op)
        eager = [(row["bytes"], row["peers_ms"]["eager"]) for row in own if "eager" in row["peers_ms"]]
        axes.scatter([x for x, _ in eager], [y for _, y in eager], s=14, marker="x", color=drawn.get_facecolor())
    axes.set(xscale="log", yscale="log", xlabel="least bytes", ylabel="ms", title="Time (x: eager)")
    axes.legend(fontsize=6)
    axes.grid(alpha=0.3)


def _ratios(axes: Axes, rows: Sequence[Record]) -> None:
    """Peer's time / ours, one group of bars a row, with its interval; bars start at equality."""
    present = [peer for peer in RIVALS if any(peer in row["ratios"] for row in rows)]
    height = 0.8 / max(len(present), 1)
    for number, peer in enumerate(present):
        places = [(place, row["ratios"][peer]) for place, row in enumerate(rows) if peer in row["ratios"]]
        axes.barh(
            [place + (number - (len(present) - 1) / 2) * height for place, _ in places],
            [value - 1 for _, (value, _, _) in places], height, left=1,
            xerr=[[max(value - low, 0) for _, (value, low, _) in places],
                  [max(high - value, 0) for _, (value, _, high) in places]],
            error_kw={"linewidth": 0.5}, label=TITLES[peer],
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows], fontsize=6)
    axes.set(xscale="log", xlabel="peer's time / ours", title="Ratios, with 95 % intervals")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.legend(fontsize=6)
    axes.grid(alpha=0.3, axis="x")


def overview(found: Record, path: Path) -> None:
    """Write the picture of the rows at the largest number of threads; ratios of the headline rows, if there are any."""
    counts = thread_counts(found)
    if not counts or not (rows := timed(found, counts[-1])):
        raise ValueError(f"{path}: expected at least one row that did not fail, got none")
    barred = [row for row in rows if row["headline"]] or rows[:MOST_BARRED]
    bars = INCHES_A_BAR * sum(len(row["ratios"]) for row in barred)
    figure = Figure(figsize=(14, max(8.0, bars)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    upper, lower = left.subplots(2, 1)
    _roofline(upper, found, rows, counts[-1])
    _times(lower, rows)
    _ratios(right.subplots(), barred)
    figure.savefig(path, dpi=110)


def _curve(axes: Axes, curve: Record) -> None:
    """Measured times of ours, eager and a copy, and the byte model."""
    values, points = curve["values"], curve["points"]
    for name, style in (("ours", "o"), ("eager", "x"), ("copy", ".")):
        seconds = [point["seconds"][name] * 1e3 for point in points]
        axes.plot(values, seconds, style, markersize=4, label=name)
    speed = curve["gb_per_s"]
    loads = [point["bytes"] / (point["threads"] if curve["axis"] == "threads" else 1) for point in points]
    model = [curve["overhead_us"] / 1e3 + (0 if speed is None else load / speed / 1e6) for load in loads]
    axes.plot(values, model, color="gray", linewidth=0.8, label=f"model, within {curve['largest_deviation']:.0%}")
    threads = "" if curve["threads"] is None else f", {threads_of(curve['threads'])}"
    axes.set(xscale="log", yscale="log", xlabel=curve["axis"], ylabel="ms", title=f"{curve['op']}{threads}")
    axes.legend(fontsize=6)
    axes.grid(alpha=0.3)


def scaling(found: Record, path: Path) -> list[Path]:
    """Write a picture for each operator that was swept, beside `path` with the operator in its name."""
    written = []
    for op in dict.fromkeys(curve["op"] for curve in found["scaling"]):
        curves = [curve for curve in found["scaling"] if curve["op"] == op]
        lines = -(-len(curves) // CURVES_A_LINE)
        figure = Figure(figsize=(5 * CURVES_A_LINE, 4 * lines), layout="constrained")
        for number, curve in enumerate(curves):
            _curve(figure.add_subplot(lines, CURVES_A_LINE, number + 1), curve)
        written.append(path.with_name(f"{path.stem}-{op}{path.suffix}"))
        figure.savefig(written[-1], dpi=110)
    return written

"""The rows as a table on the terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.runner import Row
from bench.timing import median

TITLES = ("row", "ms", "MB", "GB/s", "of copy")
PEERS = {"eager": "eager", "compile": "compile", "fused": "fused=True", "normal": "normal"}
LEGEND = (
    "Rows are float32 unless they say otherwise. ms: ours; MB: the least the operator moves; of copy: time "
    "of a plain copy of as many bytes / ours; peer columns: peer's time / ours, ~ where the difference from "
    "1 is within the noise, ! where the results differ; peak: memory held in the step (torch's), in sizes "
    "of the logits; floor: ~ where it lies within the noise. Optimizers: eager is foreach=True; normal is "
    "ours on moments that have not underflowed."
)
WIDTH = 150
BUSY = 0.1  # processors in use by others; PyTorch needs all of its own


def _ratio_cell(row: Row, peer: str) -> str:
    if peer not in row.ratios:
        return "-"
    found = row.ratios[peer]
    noise = "" if found.tells_from(1.0) else "~"
    return f"{noise}{found.value:.2f}x{'!' if peer in row.differs else ''}"


def _peak_cell(row: Row) -> str:
    if "ours" not in row.peak:
        return "-"
    theirs = f" ({row.peak['eager']:.1f})" if "eager" in row.peak else ""
    return f"{row.peak['ours']:.1f}{theirs}"


def _floor_cell(row: Row) -> str:
    missed, met, noisy = [], False, False
    for peer, floor in row.case.floors.items():
        verdict = row.meets(peer)
        if verdict is None:
            continue
        noisy = noisy or not row.ratios[peer].tells_from(floor)
        met = met or verdict
        if not verdict:
            missed.append(f"{peer} {floor:g}x")
    if not missed and not met:
        return "-"
    return ("missed: " + ", ".join(missed) if missed else "met") + (" ~" if noisy else "")


def _cells(row: Row, peers: Sequence[str]) -> list[str]:
    """One line of the table."""
    if row.error:
        return [row.case.label, "failed", *["-"] * (len(TITLES) - 2 + len(peers) + 2)]
    share = median(row.seconds["copy"]) / median(row.seconds["ours"])
    return [
        row.case.label,
        f"{row.ms:.4g}{'*' if row.others > BUSY else ''}",
        f"{row.case.moved_bytes / 1e6:.4g}",
        f"{row.gb_per_s:.1f}",
        f"{share:.0%}",
        *(_ratio_cell(row, peer) for peer in peers),
        _peak_cell(row),
        _floor_cell(row),
    ]


def _lines(rows: Sequence[Row]) -> list[list[str]]:
    """The titles and all lines; a peer that no row has gets no column."""
    peers = [peer for peer in PEERS if any(peer in row.case.peers for row in rows)]
    titles = [*TITLES, *(PEERS[peer] for peer in peers), "peak", "floor"]
    return [titles, *(_cells(row, peers) for row in rows)]


def _magnitude(size: int) -> str:
    """The order of magnitude of a number of bytes, in words."""
    for bound in (1, 10, 100):
        if size < bound * 1e6:
            return f"under {bound} MB"
    return "100 MB and more"


def head(machine: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """The machine, and the copy speed by size."""
    speeds: dict[str, list[float]] = {}
    for row in sorted((row for row in rows if row.seconds), key=lambda row: row.case.moved_bytes):
        speeds.setdefault(_magnitude(row.case.moved_bytes), []).append(row.copy_gb_per_s)
    copies = ", ".join(f"{median(found):.1f} ({size})" for size, found in speeds.items())
    return [
        f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"fused_ml {machine['fused_ml']} ({machine['isa']}), {machine['date']}",
        f"Plain copy in the same run, GB/s by bytes moved: {copies or '-'}",
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Failures, a busy machine, our warnings (of a fallback), missing peers and differing results."""
    found = [f"{row.case.label}: failed: {row.error}" for row in rows if row.error]
    busy = [row.others for row in rows if row.others > BUSY]
    if busy:
        found.append(f"* measured while other processes kept up to {max(busy):.1f} processors busy")
    for row in rows:
        found += [f"{row.case.label}: {warning}" for warning in row.warnings]
        found += [f"{row.case.label}: no {peer}: {why}" for peer, why in row.skipped.items()]
        reason = f": {row.case.remark}" if row.case.remark else ""
        found += [f"{row.case.label}: result differs from {peer}{reason}" for peer in row.differs]
    return found


def show(console: Console, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Print the table."""
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    titles, *lines = _lines(rows)
    table = Table()
    last = len(titles) - 1
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number in (0, last) else "right")
    for line in lines:
        verdict = line[-1]
        colour = "red" if verdict.startswith("missed") else "green" if verdict.startswith("met") else ""
        table.add_row(*line[:-1], f"[{colour}]{verdict}[/]" if colour else verdict)
    for text in head(machine, rows):
        console.print(text, highlight=False, markup=False)
    console.print(table)
    for text in (LEGEND, *notes(rows)):
        console.print(text, highlight=False, markup=False, style="dim")


def markdown(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The table for a README."""
    titles, *lines = _lines(rows)
    rule = ["---"] + ["---:"] * (len(titles) - 2) + ["---"]
    table = "\n".join("| " + " | ".join(line) + " |" for line in (titles, rule, *lines))
    return "\n\n".join([*head(machine, rows), table, LEGEND, *notes(rows)]) + "\n"


def _record(row: Row) -> dict[str, Any]:
    """A row with its raw numbers."""
    case = row.case
    return {
        "label": case.label,
        "op": case.op,
        "shape": list(case.shape),
        "dtype": case.dtype,
        "variant": case.variant,
        "moved_bytes": case.moved_bytes,
        "median_ms": {name: median(samples) * 1e3 for name, samples in row.seconds.items()},
        "gb_per_s": row.gb_per_s if row.seconds else None,
        "copy_gb_per_s": row.copy_gb_per_s if row.seconds else None,
        "ratios": {peer: asdict(found) for peer, found in row.ratios.items()},
        "floors": {peer: {"floor": floor, "met": row.meets(peer)} for peer, floor in case.floors.items()},
        "peak_in_logits": row.peak,
        "differs": row.differs,
        "skipped": row.skipped,
        "warnings": row.warnings,
        "others_busy": row.others,
        "error": row.error,
        "seconds": row.seconds,
    }


def as_json(machine: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that was measured."""
    return {"machine": dict(machine), "rows": [_record(row) for row in rows]}

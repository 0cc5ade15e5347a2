"""The record of a run: plain data, as it is written to JSON, from which all tables, plots and comparisons are made.

``{"format", "command", "machine", "peers", "bandwidth", "rows", "scaling", "updates"}``. `updates` are the later runs
that some rows are of: command, date and number of rows. A row has `label`, `threads`, the case's fields, `ms` and the
95 % interval `ms_interval` of ours, `peers_ms`, and `ratios`: for each peer and for a plain copy of as many bytes
(``copy``) its time / ours as ``[value, low, high]``. `floors` holds the promises, `differs`, `skipped`, `warnings`,
`others_busy`, `busy` and `error` what there is to know besides. A row that failed has neither times nor ratios.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.runner import Row
from bench.timing import median, spread

FORMAT = 1
DIGITS = 5  # significant ones; the intervals are wider than that

Record = Mapping[str, Any]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _times(row: Row) -> dict[str, Any]:
    """What a row that did not fail says of time."""
    ours = row.seconds["ours"]
    ratios = {name: [_rounded(x) for x in (found.value, found.low, found.high)] for name, found in row.ratios.items()}
    return {
        "rounds": len(ours),
        "ms": _rounded(median(ours) * 1e3),
        "ms_interval": [_rounded(seconds * 1e3) for seconds in spread(ours)],
        "peers_ms": {name: _rounded(median(row.seconds[name]) * 1e3) for name in row.ratios},
        "gb_per_s": _rounded(row.case.moved_bytes / median(ours) / 1e9),
        "ratios": ratios,
        "peak": {name: _rounded(value) for name, value in row.peak.items()},
    }


def record(row: Row) -> dict[str, Any]:
    """A row as plain data, without the seconds of every round."""
    case = row.case
    return {
        "label": case.label,
        "threads": row.threads,
        "op": case.op,
        "optimizer": case.is_optimizer,
        "shape": list(case.shape),
        "model": case.model,
        "dtype": case.dtype,
        "layout": case.layout,
        "variant": case.variant,
        "part": case.part,
        "cold": case.cold,
        "headline": case.headline,
        "remark": case.remark,
        "bytes": case.moved_bytes,
        "floors": dict(case.floors),
        **(_times(row) if row.seconds else {}),
        "differs": row.differs,
        "skipped": row.skipped,
        "warnings": row.warnings,
        "others_busy": _rounded(row.others),
        "busy": row.busy,
        "error": row.error,
    }


def document(command: str, machine: Record, peers: Mapping[str, str], bandwidth: Sequence[Record],
             rows: Sequence[Record], scaling: Sequence[Record] = ()) -> dict[str, Any]:  # fmt: skip
    """Everything that a run found."""
    return {
        "format": FORMAT,
        "command": command,
        "machine": dict(machine),
        "peers": dict(peers),
        "bandwidth": list(bandwidth),
        "rows": list(rows),
        "scaling": list(scaling),
        "updates": [],
    }


def differences(about: Record, other: Record) -> list[str]:
    """In what two machines, or their software, differ."""
    keys = ("cpu", "cpus", "torch", "fused_ml", "isa", "python", "environment")
    return [f"{key}: {about[key]} and {other[key]}" for key in keys if about[key] != other[key]]


def updated(old: Record, new: Record) -> dict[str, Any]:
    """`old` with the rows of `new` in place of its own, and what brought them among its updates."""

    def name(row: Record) -> tuple[str, int]:
        return row["label"], row["threads"]

    again = {name(row): row for row in new["rows"]}
    rows = [again.pop(name(row), row) for row in old["rows"]]
    update = {"command": new["command"], "date": new["machine"]["date"], "rows": len(new["rows"])}
    return {**old, "rows": [*rows, *again.values()], "updates": [*old.get("updates", []), update]}


def write(path: Path, found: Record) -> None:
    """Write a document, one row a line, so that two of them can be compared by eye."""
    parts = []
    for key, value in found.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(entry) for entry in value)
            parts.append(f" {json.dumps(key)}: [\n  {lines}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read(path: Path) -> dict[str, Any]:
    """A document that `write` wrote; ValueError for anything else."""
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as problem:
        raise ValueError(f"{path}: expected JSON written by python -m bench --json, got {problem}") from problem
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        got = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path}: expected format {FORMAT}, got {got}; write it anew with python -m bench --json")
    return found


def timed(found: Record, threads: int | None = None) -> list[Record]:
    """The rows that did not fail, of all thread counts or of one."""
    return [row for row in found["rows"] if not row["error"] and threads in (None, row["threads"])]


def thread_counts(found: Record) -> list[int]:
    """The thread counts that were timed, in order."""
    return sorted({row["threads"] for row in found["rows"]})

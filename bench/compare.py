"""Two runs against each other: which rows became slower by more than their noise, which became faster.

Two runs are hours or commits apart, and the machine's speed is not the same in both. So not times are compared but our
time relative to contestants of the same run: a plain copy, and eager where both runs have it. A row is a regression
if it became slower against every one of them: the new interval of our time / theirs lies above the old one's by more
than `margin`, which covers what resampling within a run cannot see (where buffers lie, which pages are fresh).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.document import Record, timed
from bench.report import threads_of

REFERENCES = ("copy", "eager")
MARGIN = 0.05
SAME = ("cpu", "isa", "torch", "environment")  # of the machine, for a comparison to mean something


@dataclass(frozen=True)
class Change:
    """A row in both runs; `relative` holds new / old of our time against each reference, as (value, low, high)."""

    label: str
    threads: int
    old_ms: float
    new_ms: float
    relative: Mapping[str, tuple[float, float, float]]
    busy: bool = False  # in one of the runs

    def verdict(self, margin: float) -> str:
        """``slower``, ``faster``, or ``~``: no difference that is larger than the noise."""
        if self.busy:
            return "~"
        if all(low > 1 + margin for _, low, _ in self.relative.values()):
            return "slower"
        if all(high < 1 / (1 + margin) for _, _, high in self.relative.values()):
            return "faster"
        return "~"


def _relative(old: list[float], new: list[float]) -> tuple[float, float, float]:
    """New / old of our time / the reference's, from reference / ours; the interval joins both runs' worst ends."""
    return old[0] / new[0], old[1] / new[2], old[2] / new[1]


def changes(old: Record, new: Record) -> list[Change]:
    """The rows that both runs have."""
    before = {(row["label"], row["threads"]): row for row in timed(old)}
    found = []
    for row in timed(new):
        other = before.get((row["label"], row["threads"]))
        if other is None:
            continue
        both = [name for name in REFERENCES if name in row["ratios"] and name in other["ratios"]]
        relative = {name: _relative(other["ratios"][name], row["ratios"][name]) for name in both}
        busy = row["busy"] or other["busy"]
        found.append(Change(row["label"], row["threads"], other["ms"], row["ms"], relative, busy))
    return found


def cautions(old: Record, new: Record) -> list[str]:
    """Why the two runs may not be comparable, and which rows have no counterpart or failed."""
    found = [
        f"the runs differ in {name}: {old['machine'][name]} then, {new['machine'][name]} now"
        for name in SAME
        if old["machine"].get(name) != new["machine"].get(name)
    ]
    then, now = ({(row["label"], row["threads"]) for row in timed(run)} for run in (old, new))
    if then - now:
        first, threads = min(then - now)
        found.append(
            f"{len(then - now)} rows of the old run are not in the new one: {first} ({threads_of(threads)}) ..."
        )
    busy = sum(row["busy"] for run in (old, new) for row in timed(run))
    if busy:
        found.append(f"{busy} of the rows were measured on a busy machine: they are not judged")
    if not then & now:
        found.append("no row is in both runs: expected the same sizes (--quick or not) and --threads")
    return found


def show(console: Console, old: Record, new: Record, margin: float = MARGIN) -> bool:
    """Print what changed; whether a row became slower."""
    table = Table(title=f"against {old['machine']['date']} (interval beyond {margin:.0%})")
    for number, title in enumerate(("row", "threads", "ms then", "ms now", "against copy", "against eager", "verdict")):
        table.add_column(title, justify="left" if number in (0, 6) else "right")
    regressed = False
    for change in changes(old, new):
        verdict = change.verdict(margin)
        regressed = regressed or verdict == "slower"
        relative = (change.relative.get(name) for name in REFERENCES)
        against = ("-" if found is None else "{:.2f} ({:.2f} to {:.2f})".format(*found) for found in relative)
        table.add_row(
            change.label, str(change.threads), f"{change.old_ms:.4g}", f"{change.new_ms:.4g}", *against, verdict
        )
    console.print(table)
    for text in cautions(old, new):
        console.print(text, highlight=False, markup=False)
    return regressed

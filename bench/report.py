"""A document's rows as tables on the terminal and in Markdown, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench import bandwidth
from bench.document import Record, thread_counts, timed
from bench.peers import RIVALS, TITLES

COLUMNS = ("row", "ms", "MB", "GB/s", "of copy")
LEGEND = (
    "Rows are float32, contiguous, forward and backward with a new gradient (ours, if large, in memory kept from the "
    "last one), on warm caches, unless they say otherwise. ms: ours; MB: the least the operator moves; of copy: time "
    "of a plain copy of as many bytes / ours; peer columns: peer's time / ours, ~ where the difference from 1 is "
    "within the noise, ! where the results differ; peak: memory held at most (eager's), in sizes of the logits, or "
    "beyond parameters, gradients and states in sizes of the parameters; floor: ~ where noise leaves it open. train: "
    "forward under grad, where our losses compute their gradient, which leaves backward nothing to do. Optimizers: "
    "eager is foreach=True; normal is ours on moments that have not underflowed."
)
LEAST_WIDTH = 170


def threads_of(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def within_noise(ratio: Sequence[float], bound: float) -> bool:
    """Whether the ratio's interval leaves open on which side of `bound` it lies."""
    return ratio[1] <= bound <= ratio[2]


def undecided(row: Record, peer: str, bound: float) -> bool:
    """Whether noise leaves open on which side of `bound` a ratio lies; on a busy machine it always does."""
    return row["busy"] or within_noise(row["ratios"][peer], bound)


def verdicts(row: Record) -> dict[str, str]:
    """For each floor with a measured ratio: ``met``, ``missed``, or ``open`` where noise exceeds the distance."""
    found = {}
    for peer, floor in row["floors"].items():
        ratio = row.get("ratios", {}).get(peer)
        if ratio is not None:
            found[peer] = "open" if undecided(row, peer, floor) else "met" if ratio[0] >= floor else "missed"
    return found


def _ratio_cell(row: Record, peer: str) -> str:
    ratio = row["ratios"].get(peer)
    if ratio is None:
        return "-"
    return f"{'~' if undecided(row, peer, 1.0) else ''}{ratio[0]:.2f}x{'!' if peer in row['differs'] else ''}"


def _peak_cell(row: Record) -> str:
    if "ours" not in row["peak"]:
        return "-"
    theirs = f" ({row['peak']['eager']:.1f})" if "eager" in row["peak"] else ""
    return f"{row['peak']['ours']:.1f}{theirs}"


def _floor_cell(row: Record) -> str:
    found = verdicts(row)
    words = [
        f"{mark}: " + ", ".join(f"{peer} {row['floors'][peer]:g}x" for peer in peers)
        for word, mark in (("missed", "missed"), ("open", "~"))
        if (peers := [peer for peer, verdict in found.items() if verdict == word])
    ]
    return "; ".join(words) or ("met" if found else "-")


def cells(row: Record, peers: Sequence[str]) -> list[str]:
    """One line of the table."""
    if row["error"]:
        return [row["label"], "failed", *["-"] * (len(COLUMNS) - 2 + len(peers) + 2)]
    return [
        row["label"],
        f"{row['ms']:.4g}{'*' if row['busy'] else ''}",
        f"{row['bytes'] / 1e6:.4g}",
        f"{row['gb_per_s']:.1f}",
        f"{row['ratios']['copy'][0]:.0%}",
        *(_ratio_cell(row, peer) for peer in peers),
        _peak_cell(row),
        _floor_cell(row),
    ]


def lines(rows: Sequence[Record]) -> list[list[str]]:
    """The titles and all lines; a peer that no row was timed with gets no column."""
    peers = [peer for peer in TITLES if any(peer in row.get("ratios", {}) for row in rows)]
    titles = [*COLUMNS, *(TITLES[peer] for peer in peers), "peak", "floor"]
    return [titles, *(cells(row, peers) for row in rows)]


def head(found: Record) -> list[str]:
    """The machine, the command, the peers, and the speed of memory by size."""
    about = found["machine"]
    texts = [
        f"{about['cpu']}, {about['cpus']} processors, torch {about['torch']}, fused_ml {about['fused_ml']} "
        f"({about['isa']}), Python {about['python']}, {about['date']}",
        f"Command: {found['command']}",
    ]
    for update in found.get("updates", []):
        texts.append(f"{update['rows']} rows again, {update['date']}: {update['command']}")
    if about["environment"]:
        texts.append("Environment: " + " ".join(f"{name}={value}" for name, value in about["environment"].items()))
    if found["peers"]:
        texts.append("Peers: " + "; ".join(f"{name}: {what}" for name, what in found["peers"].items()))
    for threads in sorted({entry["threads"] for entry in found["bandwidth"]}):
        entries = [entry for entry in found["bandwidth"] if entry["threads"] == threads]
        for kind in ("copy", "read", "triad"):
            texts.append(
                f"{kind.capitalize()}, {threads_of(threads)}, GB/s by bytes moved: {bandwidth.line(entries, kind)}"
            )
    return texts


def notes(rows: Sequence[Record]) -> list[str]:
    """Failures, a busy machine, our warnings (of a fallback), missing peers and differing results."""
    found = [f"{row['label']}: failed: {row['error']}" for row in rows if row["error"]]
    busy = [row["others_busy"] for row in rows if row["busy"]]
    if busy:
        found.append(
            f"ms with a star: other processes kept up to {max(busy):.1f} processors busy; the row is not judged"
        )
    skipped: dict[str, list[str]] = {}
    for row in rows:
        found += [f"{row['label']}: {warning}" for warning in row["warnings"]]
        reason = f": {row['remark']}" if row["remark"] else ""
        found += [f"{row['label']}: result differs from {peer}{reason}" for peer in row["differs"]]
        for peer, why in row["skipped"].items():
            skipped.setdefault(f"no {peer}: {why}", []).append(row["label"])
    found += [
        f"{why} ({labels[0]}{f' and {len(labels) - 1} more' if labels[1:] else ''})" for why, labels in skipped.items()
    ]
    return list(dict.fromkeys(found))


def overheads(rows: Sequence[Record]) -> list[str]:
    """Where the time of a small call goes: the kernel, what the operator adds, what the function around it adds."""
    found = []
    for row in rows:
        times = row.get("peers_ms", {})
        if "kernel" in times and "operator" in times:
            kernel, operator, ours = (1e3 * ms for ms in (times["kernel"], times["operator"], row["ms"]))
            parts = f"kernel {kernel:.2f}, operator {operator - kernel:.2f}, function {ours - operator:.2f}"
            found.append(f"{row['label']}: {ours:.2f} us = {parts}")
    return found


def slower(rows: Sequence[Record]) -> list[str]:
    """What is not faster, in words: against which peers a row loses, or cannot be told apart, or misses its floor."""
    found = []
    for row in rows:
        if row["error"]:
            continue
        compared = {peer: ratio for peer, ratio in row["ratios"].items() if peer in RIVALS}
        loses = [
            f"{TITLES[peer]} {ratio[0]:.2f}x" for peer, ratio in compared.items() if ratio[2] < 1 and not row["busy"]
        ]
        close = [f"{TITLES[peer]} {ratio[0]:.2f}x" for peer, ratio in compared.items() if undecided(row, peer, 1.0)]
        floors = [f"{TITLES[p]} {row['floors'][p]:g}x" for p, word in verdicts(row).items() if word == "missed"]
        words = (("slower than", loses), ("not told apart from", close), ("misses the floor", floors))
        said = "; ".join(f"{what} {', '.join(names)}" for what, names in words if names)
        if said:
            found.append(f"{row['label']}: {said}")
    return found


def _coloured(verdict: str) -> str:
    colour = (
        "red" if verdict.startswith("missed") else "yellow" if "~" in verdict else "green" if verdict == "met" else ""
    )
    return f"[{colour}]{verdict}[/]" if colour else verdict


def show(console: Console, found: Record) -> None:
    """Print the tables, one for each number of threads."""
    if not console.is_terminal:
        console.width = max(console.width, LEAST_WIDTH)
    for text in head(found):
        console.print(text, highlight=False, markup=False)
    for threads in thread_counts(found):
        rows = [row for row in found["rows"] if row["threads"] == threads]
        titles, *body = lines(rows)
        table = Table(title=threads_of(threads))
        for number, title in enumerate(titles):
            table.add_column(title, justify="left" if number in (0, len(titles) - 1) else "right")
        for line in body:
            table.add_row(*line[:-1], _coloured(line[-1]))
        console.print(table)
    for text in (*overheads(found["rows"]), LEGEND, *notes(found["rows"])):
        console.print(text, highlight=False, markup=False, style="dim")


def table(rows: Sequence[Record]) -> str:
    """The rows as a Markdown table."""
    titles, *body = lines(rows)
    rule = ["---"] + ["---:"] * (len(titles) - 2) + ["---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in (titles, rule, *body))


def brief(rows: Sequence[Record]) -> str:
    """The rows as a Markdown table: our time, and torch's over it."""
    columns = {"torch": "eager", "torch.compile": "compile", "torch fused=True": "fused"}
    lines = [["row", "ours, ms", *columns], ["---", *["---:"] * (1 + len(columns))]]
    lines += [
        [
            row["label"],
            "failed" if row["error"] else f"{row['ms']:.4g}",
            *(_ratio_cell(row, peer) for peer in columns.values()),
        ]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown(found: Record) -> str:
    """Everything as Markdown."""
    parts = [*head(found)]
    for threads in thread_counts(found):
        rows = [row for row in found["rows"] if row["threads"] == threads]
        parts += [f"### {threads_of(threads)}", table(rows)]
    losses = "\n".join(f"* {text}" for text in slower(timed(found)))
    return "\n\n".join([*parts, LEGEND, *notes(found["rows"]), *(["Not faster:", losses] if losses else [])]) + "\n"

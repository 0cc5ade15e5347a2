"""What ``python -m bench.roofline`` found, as tables; apart from it, for its module needs the compiled kernels."""

from __future__ import annotations

from rich.table import Table

from bench.document import Record

NEAR = 0.85  # of a copy's speed: what is asked for


def markdown(found: Record) -> str:
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


def table(found: Record) -> Table:
    """For the terminal."""
    shown = Table(title=f"ns an element and thread, and share of a copy's speed; {found['threads']} threads")
    shown.add_column("kernel")
    shown.add_column("dtype")
    for level in found["levels"]:
        shown.add_column(level, justify="right")
        shown.add_column("of copy", justify="right")
    for row in found["rows"]:
        cells: list[str] = []
        for at in row["levels"].values():
            style = "green" if at["share"][2] >= NEAR else "default"
            cells += [f"{at['ns']:.3f}", f"[{style}]{at['share'][0]:.0%}[/]"]
        shown.add_row(row["name"], row["dtype"], *cells)
    return shown

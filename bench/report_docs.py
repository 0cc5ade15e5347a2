"""``python -m bench.report_docs``: docs/performance.md and the README's table, from one run's JSON.

``python -m bench --json docs/performance.json`` makes the JSON. Every number in what is written here comes from it, and
where they are there from docs/roofline.json (``python -m bench.roofline --json docs/roofline.json``) and
docs/scaling.json (``python -m bench --scaling --json docs/scaling.json``).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import document, plots, report, roofline_table, scaling
from bench.document import Record

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
SHOWN = (  # in the README: where we win, and where we lose
    "cross_entropy 2048x32000",
    "cross_entropy 8x21x256x256",
    "cross_entropy 64x10",
    "binary_cross_entropy_with_logits 4096x4096",
    "softmax 4096x1000",
    "Adam 161x256",
    "AdamW 25x1000000",
    "AdamW 25x1000000 bfloat16",
)
GENERATED = "Written by `make bench-report` from `{json}`; do not edit."
SECTIONS = (
    ("Headline", lambda row: row["headline"]),
    ("Losses and activations", lambda row: not row["headline"] and _plain(row) and not row["optimizer"]),
    ("Forward and backward apart", lambda row: row["part"] != "both" and row["variant"] != "call"),
    ("What a call costs", lambda row: row["variant"] == "call"),
    ("Gradients that are reused or in place, and cold caches", lambda row: not row["headline"] and _varied(row)),
    ("Optimizers on models' parameters", lambda row: not row["headline"] and row["optimizer"] and not row["cold"]),
)


def _plain(row: Record) -> bool:
    return row["variant"] == "fresh" and row["part"] == "both" and not row["cold"]


def _varied(row: Record) -> bool:
    return row["variant"] in ("reused", "inplace") or row["cold"]


def _section(title: str, rows: list[Record], level: str) -> list[str]:
    return [f"{level} {title}", report.table(rows)] if rows else []


def _tables(found: Record) -> list[str]:
    """Every row once, in the sections above, for each number of threads."""
    parts = []
    for threads in document.thread_counts(found):
        parts.append(f"## {report.threads_of(threads)}")
        left = [row for row in found["rows"] if row["threads"] == threads]
        for title, belongs in SECTIONS:
            chosen = [row for row in left if belongs(row)]
            parts += _section(title, chosen, "###")
            parts += ["\n".join(f"* {text}" for text in report.overheads(chosen))] if report.overheads(chosen) else []
            left = [row for row in left if not belongs(row)]
        parts += _section("Others", left, "###")
    return parts


def _losses(rows: list[Record]) -> list[str]:
    """What is not faster, as a list under a heading's text."""
    found = report.slower(rows)
    if not found:
        return ["Nothing here is slower than a peer, within noise of one, or below its floor."]
    return ["\n".join(f"* {text}" for text in found)]


def performance(found: Record, source: str, picture: str) -> str:
    """The page."""
    head = "\n".join(f"* {text}" for text in report.head(found))
    notes = [f"* {text}" for text in report.notes(found["rows"])]
    threads = document.thread_counts(found)[-1]
    parts = [
        "# Performance",
        GENERATED.format(json=source),
        head,
        report.LEGEND,
        f"![Roofline, times and ratios, {report.threads_of(threads)}]({picture})",
        "## What is not faster",
        *_losses(document.timed(found)),
        *_tables(found),
        *(["## Notes", "\n".join(notes)] if notes else []),
    ]
    return "\n\n".join(parts) + "\n"


def kernels_section(found: Record) -> str:
    """Every kernel beside a copy."""
    about = (
        f"`{found['command']}`, {report.threads_of(found['threads'])}, {found['machine']['date']}: kernels on outputs "
        "that are there already, each beside a plain copy of the bytes that it must move, in turns. ns are those of an "
        "element and thread. What bounds those that are far from a copy: [cpu-kernels.md](cpu-kernels.md)."
    )
    return "\n\n".join(["## Kernels beside a copy", about, roofline_table.markdown(found)]) + "\n"


def scaling_section(found: Record, pictures: list[str]) -> str:
    """What the byte model makes of every curve, and the curves."""
    command = (
        f"`{found['command']}`, {found['machine']['date']}: time = overhead + bytes / bandwidth, fitted to our times."
    )
    fits = "\n".join(f"* {scaling.words(curve)}" for curve in found["scaling"])
    drawn = "\n".join(f"![Time against size and threads]({picture})" for picture in pictures)
    return "\n\n".join(["## Scaling", command, fits, drawn]) + "\n"


def headline(found: Record) -> str:
    """The README's part: a few of the headline rows at the largest number of threads."""
    threads = document.thread_counts(found)[-1]
    rows = [row for row in found["rows"] if row["headline"] and row["threads"] == threads]
    rows = sorted(rows, key=lambda row: SHOWN.index(row["label"]) if row["label"] in SHOWN else len(SHOWN))
    about = found["machine"]
    intro = (
        f"{about['cpu']}, {report.threads_of(threads)}, torch {about['torch']}, {about['isa']}, {about['date'][:10]}; "
        "forward and backward, or a step; torch's time over ours, below 1 where we lose, ~ within the noise:"
    )
    more = (
        f"`{found['command']}` times them; all rows, peers, losses and floors missed: "
        "[docs/performance.md](docs/performance.md)."
    )
    return "\n\n".join([intro, report.brief(rows[: len(SHOWN)]), more])


def between_markers(text: str, inside: str) -> str:
    """`text` with what stands between the two markers replaced by `inside`; ValueError if they are not there once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected {BEGIN} and, after it, {END}, once each; put them around the table to be replaced")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{inside}\n{END}{rest.partition(END)[2]}"


def write(source: Path, page: Path, readme: Path, curves: Path | None = None, kernels: Path | None = None) -> None:
    """Write the page, its pictures beside it, and the README's part."""
    found = document.read(source)
    text = between_markers(readme.read_text(), headline(found))
    picture = page.with_suffix(".png")
    plots.overview(found, picture)
    text_of_page = performance(found, source.name, picture.name)
    if kernels is not None:
        text_of_page += "\n" + kernels_section(json.loads(kernels.read_text()))
    if curves is not None:
        swept = document.read(curves)
        pictures = plots.scaling(swept, page.with_name("scaling.png"))
        text_of_page += "\n" + scaling_section(swept, [path.name for path in pictures])
    page.write_text(text_of_page)
    readme.write_text(text)


def main(argv: list[str] | None = None) -> int:
    """0 if all was written."""
    parser = argparse.ArgumentParser(prog="python -m bench.report_docs", description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path, nargs="?", default=ROOT / "docs" / "performance.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument(
        "--scaling", type=Path, default=ROOT / "docs" / "scaling.json", help="left out if it is missing"
    )
    parser.add_argument(
        "--roofline", type=Path, default=ROOT / "docs" / "roofline.json", help="left out if it is missing"
    )
    options = parser.parse_args(argv)
    if not options.json.exists():
        print(f"{options.json} does not exist: write it with python -m bench --json {options.json}", file=sys.stderr)
        return 1
    try:
        curves, kernels = (path if path.exists() else None for path in (options.scaling, options.roofline))
        write(options.json, options.page, options.readme, curves, kernels)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

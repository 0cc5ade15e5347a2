"""``python -m examples.demo``: train with torch and with fused_ml, compare, and draw.

Exit status 0 if all loss curves agree to within float32 noise, 1 if not.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo import data, models, picture, report, train

TABLE_WIDTH = 120  # where the output is not a terminal


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps, smaller batches: under a minute")
    parser.add_argument("--output", type=Path, default="demo.png", help="the picture (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, curves included")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as GitHub markdown")
    return parser.parse_args(arguments)


def run(tasks: list[models.Task], console: Console) -> list[train.Outcome]:
    """Train every task with both libraries."""
    libraries = {"torch": models.library("torch"), "fused": models.library("fused_ml")}
    columns = (
        TextColumn("{task.description:<33}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    outcomes = []
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bars = [progress.add_task(task.name, total=task.steps, start=False) for task in tasks]
        for task, bar in zip(tasks, bars, strict=True):
            progress.start_task(bar)
            outcomes.append(train.compare(task, libraries, partial(progress.advance, bar)))
    return outcomes


def main() -> int:
    """Run, report, and judge."""
    options, start = parse(), perf_counter()
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    scale = models.QUICK if options.quick else models.FULL
    with console.status("reading Python's standard library"):
        text = data.standard_library()
    outcomes = run([*models.digit_tasks(scale), models.text_task(scale, text)], console)
    report.print_table(console, outcomes, text)
    picture.draw(options.output, outcomes)
    if options.json:
        report.write_json(options.json, outcomes, text)
    if options.markdown:
        options.markdown.write_text(report.markdown(outcomes, text), encoding="utf-8")
    apart = [outcome.task.name for outcome in outcomes if not outcome.agrees]
    verdict = f"Curves part beyond float32 noise: {'; '.join(apart)}." if apart else "All curves agree."
    console.print(f"{verdict} Picture: {options.output}. {perf_counter() - start:.0f} s.", highlight=False)
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())

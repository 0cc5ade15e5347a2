"""The results as a table on the terminal, as GitHub markdown, and as JSON."""

import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from examples.demo.data import Text
from examples.demo.models import LANGUAGE
from examples.demo.train import FLOOR, MULTIPLE, SIDES, Outcome

HEADERS = (
    "task",
    "held-out\nloss",
    "held-out\naccuracy",
    "ms per\nstep",
    "ratio",
    "peak MB\nper step",
    "largest\ndifference",
    "of noise\nbound",
    "agree",
)


def three_digits(value: float) -> str:
    """The value to three significant digits, or to the unit if it has more, and never with an exponent."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:g}"


def row(outcome: Outcome) -> list[list[str]]:
    """One row of the table, where a cell holds one text or one for each side."""
    return [
        [outcome.task.title, outcome.task.optimizer_name],
        [f"{outcome.loss[side]:.4f}" for side in SIDES],
        [f"{outcome.accuracy[side]:.2%}" for side in SIDES],
        [three_digits(outcome.step_ms[side]) for side in SIDES],
        [f"{outcome.speedup:.2f}x"],
        [three_digits(outcome.peak_mb[side]) for side in SIDES],
        [f"{outcome.difference.max():.1e}"],
        [f"{outcome.share.max():.0%}"],
        ["yes" if outcome.agrees else "NO"],
    ]


def notes(outcomes: Sequence[Outcome], text: Text) -> list[str]:
    """What the columns mean."""
    lines = [
        "Of two values, the first is torch's and the second fused_ml's; the ratio is of step times.",
        "ms per step: median time of zero_grad, forward, loss, backward and optimizer step, "
        "the two sides taking turns; digits on one thread.",
        "accuracy of the 7-segment MLP: scans with all seven labels right.",
        "peak MB per step: the most that one step holds at once of torch's CPU allocator, "
        "on top of weights and optimizer state.",
        "largest difference: between the two curves of training loss; of noise bound: the largest share "
        "of it that the difference takes up at any step. The noise bound at a step is "
        f"{MULTIPLE:g} times as far as torch strays from itself up to there when every initial weight "
        f"is moved by one unit in the last place, plus {FLOOR:g} float32 roundings of the loss.",
    ]
    for outcome in outcomes:
        if outcome.task.title == LANGUAGE:
            perplexity = " / ".join(f"{math.exp(outcome.loss[side]):.1f}" for side in SIDES)
            lines.append(
                f"language model: {text.tokens:,} words of Python's standard library, "
                f"vocabulary {text.vocabulary:,}; held-out perplexity {perplexity} "
                f"after {outcome.task.steps} batches of {outcome.task.batch} words "
                f"(word frequencies alone: {text.unigram_perplexity:.1f})."
            )
    return lines


def environment() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def print_table(console: Console, outcomes: Sequence[Outcome], text: Text) -> None:
    """The table and its notes, for people."""
    title = "torch (upper value) and fused_ml (lower value): same data, seeds and batches"
    table = Table(title=title, show_lines=True, box=box.ROUNDED)
    for number, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for outcome in outcomes:
        cells = ("\n".join(cell) for cell in row(outcome))
        table.add_row(*cells, style="" if outcome.agrees else "bold red")
    console.print(table)
    for line in notes(outcomes, text):
        console.print(line, style="dim", highlight=False)


def markdown(outcomes: Sequence[Outcome], text: Text) -> str:
    """The table and its notes, for a README."""
    lines = [[header.replace("\n", " ") for header in HEADERS]]
    lines += [[":--", *["--:"] * (len(HEADERS) - 1)]]
    for task, *cells in map(row, outcomes):
        lines.append([", ".join(task), *(" / ".join(cell) for cell in cells)])
    facts = environment()
    where = (
        f"Python {facts['python']}, torch {facts['torch']}, {facts['machine']} ({facts['cpu_capability']}), "
        f"{facts['threads']} threads."
    )
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return table + "\n\n" + "\n".join(f"- {line}" for line in [*notes(outcomes, text), where]) + "\n"


def record(outcome: Outcome) -> dict[str, Any]:
    """Everything measured of one task, for JSON."""
    return {
        "task": outcome.task.title,
        "optimizer": outcome.task.optimizer_name,
        "steps": outcome.task.steps,
        "batch": outcome.task.batch,
        "held_out_loss": outcome.loss,
        "held_out_accuracy": outcome.accuracy,
        "median_step_ms": outcome.step_ms,
        "speedup": outcome.speedup,
        "peak_mb_per_step": outcome.peak_mb,
        "largest_difference": float(outcome.difference.max()),
        "largest_share_of_bound": float(outcome.share.max()),
        "noise": float(outcome.noise[-1]),
        "agrees": outcome.agrees,
        "curves": {name: curve.tolist() for name, curve in outcome.curves.items()},
    }


def write_json(path: Path, outcomes: Sequence[Outcome], text: Text) -> None:
    """All results and what they depend on."""
    corpus = {
        "tokens": text.tokens,
        "vocabulary": text.vocabulary,
        "unigram_perplexity": text.unigram_perplexity,
    }
    tasks = [record(outcome) for outcome in outcomes]
    results = {"environment": environment(), "text": corpus, "tasks": tasks}
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

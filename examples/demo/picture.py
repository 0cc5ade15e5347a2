"""The results as one picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator, NullLocator

from examples.demo.models import LANGUAGE, SOFTMAX
from examples.demo.report import three_digits
from examples.demo.train import SIDES, Outcome

LIGHT = ("#9ecae1", "#fdbe85")  # torch, by optimizer
DARK = ("#08519c", "#a63603")  # fused_ml
BARS = {"torch": "#b0b0b0", "fused": "#1b7837"}
SMALLEST = 1e-9  # where differences of zero are drawn, on their logarithmic axis


def draw_curves(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """Training loss of both sides, one on top of the other."""
    for number, outcome in enumerate(outcomes):
        steps = np.arange(1, outcome.task.steps + 1)
        name = outcome.task.optimizer_name
        axes.plot(steps, outcome.curves["torch"], color=LIGHT[number], lw=4, label=f"torch, {name}")
        axes.plot(steps, outcome.curves["fused"], color=DARK[number], lw=0.8, label=f"fused_ml, {name}")
    axes.set_title(outcomes[0].task.title, fontweight="bold")
    if min(outcome.curves["torch"].min() for outcome in outcomes) < 1:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("training loss (nats)")
    axes.legend(fontsize=8)


def draw_differences(axes: Axes, outcomes: Sequence[Outcome]) -> None:
    """How far the curves are apart, against how far float32 noise may take them."""
    for number, outcome in enumerate(outcomes):
        steps = np.arange(1, outcome.task.steps + 1)
        name = outcome.task.optimizer_name
        axes.plot(steps, outcome.bound, color=LIGHT[number], lw=2, ls="--", label=f"noise bound, {name}")
        difference = np.maximum(outcome.difference, SMALLEST)
        axes.plot(steps, difference, ".", color=DARK[number], ms=3, label=f"|torch - fused_ml|, {name}")
    axes.set_yscale("log")
    top = max(np.nanmax([outcome.bound, outcome.difference]) for outcome in outcomes)
    axes.set_ylim(SMALLEST / 2, 300 * top)
    axes.set_xlabel("step")
    axes.set_ylabel(f"difference in loss (nats)\n0 is drawn at {SMALLEST:g}")
    axes.legend(fontsize=8, loc="upper right")


def draw_images(figure: SubFigure, outcome: Outcome) -> None:
    """What the softmax regression looks for in each digit."""
    assert outcome.weights is not None
    limit = float(np.nanmax(np.abs(outcome.weights)))
    panels = figure.subplots(1, 10)
    for digit, (axes, weights) in enumerate(zip(panels, outcome.weights, strict=True)):
        image = axes.imshow(weights.reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(str(digit), fontsize=14, fontweight="bold")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=list(panels), label="weight", fraction=0.02, pad=0.01)
    figure.suptitle(
        f"{SOFTMAX}: the 8 x 8 weights per digit that fused_ml learned with {outcome.task.optimizer_name} "
        "(red: ink speaks for the digit, blue: against)"
    )


def draw_bars(axes: Axes, outcomes: Sequence[Outcome], costs: str, title: str, unit: str) -> None:
    """One pair of bars per task, with fused_ml's advantage over each pair."""
    values: list[dict[str, float]] = [getattr(outcome, costs) for outcome in outcomes]
    labels = [f"{outcome.task.title}\n{outcome.task.optimizer_name}" for outcome in outcomes]
    places = np.arange(len(values))
    for side, shift in zip(SIDES, (-0.2, 0.2), strict=True):
        name = "torch" if side == "torch" else "fused_ml"
        bars = axes.bar(places + shift, [value[side] for value in values], 0.38, color=BARS[side], label=name)
        axes.bar_label(bars, fmt=three_digits, fontsize=8)
    for place, value in zip(places, values, strict=True):
        text, above = f"{value['torch'] / value['fused']:.2f}x", (place, max(value.values()))
        axes.annotate(text, above, (0, 14), textcoords="offset points", ha="center", fontweight="bold")
    axes.set_xticks(places, labels, fontsize=9)
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.margins(y=0.25)
    axes.set_xlim(-0.75, len(values) - 0.25)
    axes.legend(fontsize=8, loc="upper left" if len(values) > 1 else "best", ncols=2)


def draw_costs(figure: SubFigure, outcomes: Sequence[Outcome]) -> None:
    """Step times and memory; the language model on axes of its own, being some hundred times as large."""
    digits = [outcome for outcome in outcomes if outcome.task.title != LANGUAGE]
    language = [outcome for outcome in outcomes if outcome.task.title == LANGUAGE]
    panels = figure.subplots(1, 3, width_ratios=[6, 2, 2])
    step = "step time"
    draw_bars(panels[0], digits, "step_ms", f"digits: {step} (median; bold: torch / fused_ml)", "ms per step")
    draw_bars(panels[1], language, "step_ms", f"{LANGUAGE}: {step}", "ms per step")
    draw_bars(panels[2], language, "peak_mb", f"{LANGUAGE}: peak memory", "MB per step")


def draw(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Loss curves, their differences, the learned weight images, and costs."""
    figure = Figure(figsize=(17, 15), layout="constrained", dpi=100)
    parts: Any = figure.subfigures(3, 1, height_ratios=[8, 2.3, 4])
    losses, images, costs = parts
    groups = [list(group) for _, group in groupby(outcomes, lambda outcome: outcome.task.title)]
    panels = losses.subplots(2, len(groups), sharex="col", height_ratios=[5, 4])
    for column, group in enumerate(groups):
        draw_curves(panels[0, column], group)
        draw_differences(panels[1, column], group)
    losses.suptitle("The same training in torch (thick, light) and fused_ml (thin, dark)", fontsize=15)
    draw_images(images, next(outcome for outcome in outcomes if outcome.weights is not None))
    draw_costs(costs, outcomes)
    figure.savefig(path)

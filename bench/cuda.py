"""``python -m bench.cuda``: losses and optimizers on a GPU against torch eager, compile, fused and peers found here.

What every contestant computes is compared with torch's in float64 before it is timed; the contestants take turns, and
the medians count. ``--device cpu`` runs the same code without a GPU: a check of the program, not a measurement.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fused_ml.nn.functional as F
from bench import cuda_optimizers

TF = torch.nn.functional
Loss = Callable[[Tensor, Tensor], Tensor]
ROUNDS, COLD_BYTES = 15, 512 << 20
CROSS_ENTROPY = [(32768, 1000), (8192, 32000), (4096, 128256), (8_000_000, 10), (32, 21, 512, 512), (64, 10)]


def _quack(function: Any) -> Loss:
    return lambda x, t: function(x, t, reduction="mean")


def _apex(function: Any) -> Loss:
    return lambda x, t: function.apply(x, t, 0.0, -100, x.dtype == torch.float16).mean()


def _transformer_engine(function: Any) -> Loss:
    return lambda x, t: function(x[None], t[None], 0.0, True)  # of [batch, sequence, classes]; no smoothing, the mean


# Name, module, attribute, and how it becomes a mean over rows. Liger and Transformer Engine write the gradient over the
# logits: the contestants after them find other numbers there, as many of them.
PEERS: tuple[tuple[str, str, str, Callable[[Any], Loss]], ...] = (
    ("quack", "quack.cross_entropy", "cross_entropy", _quack),
    ("liger", "liger_kernel.transformers.functional", "liger_cross_entropy", lambda function: function),
    ("apex", "apex.contrib.xentropy", "SoftmaxCrossEntropyLoss", _apex),
    ("te", "transformer_engine.pytorch.cross_entropy", "parallel_cross_entropy", _transformer_engine),
)


def peers() -> dict[str, Loss]:
    """Cross entropies of other packages, those that import."""
    found: dict[str, Loss] = {}
    for name, module, attribute, adapt in PEERS:
        try:
            found[name] = adapt(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError):
            continue
    return found


def contestants(operator: str) -> dict[str, Loss]:
    ours, theirs = getattr(F, operator), getattr(TF, operator)
    found: dict[str, Loss] = {"fused_ml": ours, "eager": theirs}
    found["compile"] = torch.compile(lambda x, t: theirs(x, t), dynamic=False)
    return {**found, **(peers() if operator == "cross_entropy" else {})}


def case(operator: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape, device=device).to(dtype).requires_grad_()
    if operator == "cross_entropy":
        return x, torch.randint(shape[1], shape[:1] + shape[2:], device=device)
    return x, torch.rand(shape, device=device).to(dtype)


def gradient(loss: Loss, x: Tensor, target: Tensor) -> Tensor:
    return torch.autograd.grad(loss(x, target), x)[0]


def agrees(loss: Loss, operator: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a contestant's gradient on a small case is torch's in float64, to the dtype's precision."""
    x, target = case(operator, (64, 1000), dtype, device)
    wide = target if operator == "cross_entropy" else target.double()
    expected = gradient(getattr(TF, operator), x.detach().double().requires_grad_(), wide)
    got = gradient(loss, x, target).double()
    return bool((got - expected).abs().max() <= 4 * torch.finfo(dtype).eps * expected.abs().max())


class Clock:
    """Times a call in seconds, with the caches emptied before it."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.flush = torch.empty(COLD_BYTES if self.cuda else 1, dtype=torch.uint8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        self.flush.zero_()
        if not self.cuda:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def medians(calls: dict[str, Callable[[], object]], clock: Clock) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(clock(call))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(operator: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, clock: Clock) -> dict:
    """One row: forward and backward with a fresh gradient."""
    torch.compiler.reset()
    x, target = case(operator, shape, dtype, device)
    entrants = contestants(operator)
    if len(shape) != 2:
        entrants = {name: loss for name, loss in entrants.items() if name in ("fused_ml", "eager", "compile")}
    wrong = [name for name, loss in entrants.items() if not agrees(loss, operator, dtype, device)]
    least = 2 * x.nbytes + target.nbytes
    copied = torch.empty(least // 2, dtype=torch.uint8, device=device)
    to = torch.empty_like(copied)
    calls = {name: lambda loss=loss: gradient(loss, x, target) for name, loss in entrants.items() if name not in wrong}
    times = medians({**calls, "copy": lambda: to.copy_(copied)}, clock)
    return {"operator": operator, "shape": shape, "dtype": str(dtype).removeprefix("torch."), "bytes": least,
            "seconds": times, "wrong": wrong}  # fmt: skip


def show(rows: list[dict]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:  # a machine with a GPU may have no more than torch
        print(json.dumps(rows, indent=1))
        return
    names = sorted({name for row in rows for name in row["seconds"]} - {"fused_ml", "copy"})
    title = "losses forward and backward, optimizers a step; peers: their time / ours; ! the result is off, not timed"
    shown = Table(title=title)
    for heading in ("row", "ms", "GB/s", "of copy", *names):
        shown.add_column(heading, justify="left" if heading == "row" else "right")
    for row in rows:
        seconds = row["seconds"]
        ours = seconds.get("fused_ml", float("nan"))
        shown.add_row(
            f"{row['operator']} {'x'.join(map(str, row['shape']))} {row['dtype']}",
            f"{1e3 * ours:.4g}",
            f"{row['bytes'] / ours / 1e9:.0f}",
            f"{seconds['copy'] / ours:.0%}",
            *("!" if n in row["wrong"] else f"{seconds[n] / ours:.2f}x" if n in seconds else "-" for n in names),
        )
    Console(width=160).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="of the losses' first dimension, for small memories, with one list of parameters",
    )
    parser.add_argument("--json", type=Path, help="write all numbers")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, rows = Clock(device), []
    shapes = [("cross_entropy", shape) for shape in CROSS_ENTROPY]
    shapes.append(("binary_cross_entropy_with_logits", (8192, 8192)))
    for operator, shape in shapes:
        scaled = (max(int(shape[0] * arguments.scale), 1), *shape[1:])
        for dtype in (torch.float32, torch.bfloat16):
            rows.append(measure(operator, scaled, dtype, device, clock))
    for operator in cuda_optimizers.OPTIONS:
        for shapes in cuda_optimizers.LISTS if arguments.scale == 1 else ["161x256"]:
            for dtype, clip in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, False)):
                row = cuda_optimizers.measure(operator, shapes, clip, dtype, device, lambda c: medians(c, clock))
                rows.append(row)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU (no measurement of CUDA)"
    print(f"{name}, torch {torch.__version__}")
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

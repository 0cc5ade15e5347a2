"""What the machine's memory does at several sizes: copy, read and triad, by torch on torch's threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.timing import Plan, Step, measure, median

SIZES = tuple(1 << power for power in range(16, 31, 2))  # bytes moved: 64 KiB to 1 GiB
PLAN = Plan(seconds=0.3, min_rounds=5, max_rounds=25)
QUICK_SIZES = SIZES[::3]
QUICK_PLAN = Plan(seconds=0.1, min_rounds=3, max_rounds=9)


class _Call(Step):
    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def call(self) -> None:
        self.run()


def _steps(size: int) -> dict[str, Step]:
    """Each moves `size` bytes in all, float32."""
    count = size // 4
    a, b, c = torch.ones(count), torch.ones(count), torch.ones(count)
    half, third = count // 2, count // 3
    return {
        "copy": _Call(lambda: a[:half].copy_(b[:half])),
        "read": _Call(lambda: a.sum()),
        "triad": _Call(lambda: torch.add(b[:third], c[:third], alpha=3.0, out=a[:third])),
    }


def sweep(quick: bool = False) -> list[dict[str, Any]]:
    """GB/s by bytes moved, on torch's present threads."""
    found = []
    for size in QUICK_SIZES if quick else SIZES:
        seconds = measure(_steps(size), QUICK_PLAN if quick else PLAN)
        speeds = {name: round(size / median(samples) / 1e9, 2) for name, samples in seconds.items()}
        found.append({"threads": torch.get_num_threads(), "bytes": size, **speeds})
    return found


def line(entries: list[Mapping[str, Any]], name: str) -> str:
    """The speeds of one kind, in words: ``81.2 (64 KiB), ...``."""
    return ", ".join(f"{entry[name]:.1f} ({binary(entry['bytes'])})" for entry in entries)


def binary(size: int) -> str:
    """A number of bytes in the largest unit that leaves it whole."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            return f"{size / (1 << shift):g} {unit}"
    return f"{size} B"

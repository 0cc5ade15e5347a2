"""Micro-benchmarks: ``python -m bench.raw [PATTERN]``, rows whose name contains it. Best of many runs, one thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

import fused_ml
from bench import raw

FORMULAS = ("exp", "log", "log1p", "expm1", "tanh", "sigmoid", "exp_nonpositive", "log1p_of_fraction")
SHAPES = ((65536, 3), (65536, 10), (8192, 64), (4096, 1000), (256, 32000))
ADAM = [1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0]
Run = Callable[[str], object]  # of an instruction set


def best_seconds(run: Callable[[], object], budget: float = 0.15) -> float:
    """The shortest of the runs that fit into `budget` seconds."""
    times, end = [], time.perf_counter() + budget
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def cases() -> Iterator[tuple[str, int, Run]]:
    """Names, numbers of elements, and what to time."""
    generator = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x = generator.uniform(0, 1, 1 << 14).astype(dtype)
        for name in FORMULAS:
            yield f"{name} {dtype.__name__}", x.size, lambda isa, name=name, x=x: getattr(raw, name)(x, isa=isa)
    for rows, classes in SHAPES:
        x, target = generator.normal(0, 3, (rows, classes)).astype(np.float32), generator.integers(classes, size=rows)
        for name, logits in (("float32", x), ("bfloat16", (x.view(np.uint32) >> 16).astype(np.uint16))):
            out, loss, label = np.zeros_like(logits), np.zeros(rows, np.float32), f"{rows}x{classes} {name}"
            arguments = (logits, target, loss, out)
            yield f"cross_entropy {label}", x.size, lambda isa, a=arguments: raw.cross_entropy(*a, isa=isa)
            yield f"log_softmax {label}", x.size, lambda isa, x=logits, y=out: raw.log_softmax(x, y, isa=isa)
    p, grad, *moments = generator.uniform(0, 1, (4, 1 << 20)).astype(np.float32)
    yield "adam float32", p.size, lambda isa: raw.adam(p, grad, moments, 3, ADAM, 9, isa=isa)


def main(pattern: str = "") -> None:
    torch.set_num_threads(1)
    levels = fused_ml.cpu_isas_supported()
    print(f"{'ns per element':40}", *(f"{level:>9}" for level in levels))
    for name, elements, run in cases():
        if pattern in name:
            nanoseconds = [best_seconds(lambda run=run, isa=isa: run(isa)) * 1e9 / elements for isa in levels]
            print(f"{name:40}", *(f"{value:9.3f}" for value in nanoseconds))


main(*sys.argv[1:2])

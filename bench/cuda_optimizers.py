"""The optimizers' rows of ``python -m bench.cuda``: whole steps over models' parameter lists."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fused_ml.optim
from bench.models import MODELS

MAX_NORM = 1.0
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"lr": 1e-3, "momentum": 0.9}, "AdamW": {"lr": 1e-3, "weight_decay": 0.01}}
PASSES = {"SGD": 5, "AdamW": 7}  # over the parameters: operands read, and written
LISTS = {
    **{name: make() for name, make in MODELS.items()},
    "25x1000000": [(1_000_000,)] * 25,
    "161x256": [(256,)] * 161,
}
Stepper = Callable[[], object]
Make = Callable[[list[Tensor]], Stepper]


def _torch(name: str, **options: Any) -> Make:
    return lambda params: getattr(torch.optim, name)(params, **OPTIONS[name], **options).step


def _clipped(make: Make) -> Make:
    def make_clipped(params: list[Tensor]) -> Stepper:
        step = make(params)
        return lambda: (torch.nn.utils.clip_grad_norm_(params, MAX_NORM), step())

    return make_clipped


def _apex(name: str) -> dict[str, Make]:
    try:
        apex = importlib.import_module("apex.optimizers")
    except ImportError:
        return {}
    return {"apex": lambda params: getattr(apex, {"AdamW": "FusedAdam", "SGD": "FusedSGD"}[name])(
        params, **OPTIONS[name]).step}  # fmt: skip


def contestants(name: str, clip: bool) -> dict[str, Make]:
    """By their column: ours in torch's default, which counts steps on the host, and with fused=True."""
    peers = {"eager": _torch(name, foreach=True), "fused": _torch(name, fused=True), **_apex(name)}
    if clip:
        peers = {column: _clipped(make) for column, make in peers.items()}

    def ours(**options: Any) -> Make:
        extra = {**OPTIONS[name], **({"max_grad_norm": MAX_NORM} if clip else {}), **options}
        return lambda params: getattr(fused_ml.optim, name)(params, **extra).step

    return {"fused_ml": ours(), "ours fused": ours(fused=True), **peers}


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Of 0, so that steps show, with gradients that are the same for all."""
    generator = torch.Generator(device).manual_seed(0)
    params = [torch.zeros(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, device=device, generator=generator).to(dtype)
    return params


def agrees(make: Make, name: str, clip: bool, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether three steps lead where torch's lead in float64."""
    shapes = [(300,), (17, 33), (1,)]
    wide = parameters(shapes, dtype, device)
    wide = [p.detach().double().requires_grad_() for p in wide]
    params = parameters(shapes, dtype, device)
    for p, q in zip(params, wide, strict=True):
        assert p.grad is not None
        q.grad = p.grad.double()
    reference = _torch(name, foreach=False)
    expected, step = (_clipped(reference) if clip else reference)(wide), make(params)
    for _ in range(3):
        expected()
        step()
    # clip_grad_norm_ multiplies by 1 / (1 + 1e-6) again at every step, where it left the gradients clipped.
    unit = max(4 * torch.finfo(dtype).eps, 1e-5 if clip else 0)
    return all(bool((p - q).abs().max() <= unit * q.abs().max()) for p, q in zip(params, wide, strict=True))


def measure(name: str, shapes: str, clip: bool, dtype: torch.dtype, device: torch.device, medians: Any) -> dict:
    """One row."""
    makers = contestants(name, clip)
    wrong = [column for column, make in makers.items() if not agrees(make, name, clip, dtype, device)]
    steps = {}
    for column, make in makers.items():
        if column not in wrong:
            steps[column] = make(parameters(LISTS[shapes], dtype, device))
    elements = sum(torch.Size(shape).numel() for shape in LISTS[shapes])
    least = (PASSES[name] + clip) * elements * dtype.itemsize
    copied = torch.empty(least // 2, dtype=torch.uint8, device=device)
    to = torch.empty_like(copied)
    seconds = medians({**steps, "copy": lambda: to.copy_(copied)})
    return {"operator": name + (" clip" if clip else ""), "shape": [shapes], "dtype": str(dtype).removeprefix("torch."),
            "bytes": least, "seconds": seconds, "wrong": wrong}  # fmt: skip

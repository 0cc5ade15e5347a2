"""torch's own step for what the kernels cannot do, with the same loss scaling and clipping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fused_ml.optim._base import FusedStep


def torch_step(optimizer: FusedStep) -> None:
    """Step `optimizer`, whose gradients are ready, and finite if a GradScaler looked at them."""
    step = optimizer._torch_optimizer.step
    if getattr(step, "hooked", False):  # the hooks already run around our own step
        step = step.__wrapped__  # type: ignore[attr-defined]
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if fused and optimizer.max_grad_norm is None:
        step(optimizer)  # unscales by itself
        return
    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    factor = optimizer._unscale_factor()
    if optimizer.max_grad_norm is not None:
        norm = torch.nn.utils.get_total_norm([p.grad.detach() for p in params]) * factor
        if not optimizer._accept_norm(norm):
            return
        factor *= optimizer._clip_coefficient(float(norm))
    with _without_scaler(optimizer), _scaled(params, factor):
        step(optimizer)


@contextmanager
def _scaled(params: list[Tensor], factor: float) -> Iterator[None]:
    """Multiplied copies stand in for the gradients."""
    if factor == 1.0:
        yield
        return
    originals = [p.grad for p in params]
    try:
        for p in params:
            assert p.grad is not None
            p.grad = p.grad * factor
        yield
    finally:
        for p, original in zip(params, originals, strict=True):
            p.grad = original


@contextmanager
def _without_scaler(optimizer: FusedStep) -> Iterator[None]:
    """torch's single-tensor and foreach steps refuse a GradScaler's attributes."""
    names = [name for name in ("grad_scale", "found_inf") if hasattr(optimizer, name)]
    values = {name: optimizer.__dict__.pop(name) for name in names}
    try:
        yield
    finally:
        optimizer.__dict__.update(values)

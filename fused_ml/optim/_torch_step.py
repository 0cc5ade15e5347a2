"""torch's own step for what the kernels cannot do, with the same loss scaling and clipping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fused_ml._explain import note
from fused_ml.optim._compiled import step_by_lists, steps_by_lists
from fused_ml.optim._shards import Shards, all_shards, is_dtensor, local, placed, shards_of, sum_over_shards

if TYPE_CHECKING:
    from fused_ml.optim._base import FusedStep


def torch_step(optimizer: FusedStep) -> None:
    """Step `optimizer`, whose gradients are ready: by torch, or, while it is compiled, by operators of lists."""
    if torch.compiler.is_compiling():
        lists = steps_by_lists(optimizer)
        note(optimizer._name(), "" if lists else "torch.compile compiles torch's step")
        step: Any = step_by_lists if lists else _torchs_step
    else:
        lists, step = False, _torchs_step
    scale = getattr(optimizer, "grad_scale", None)
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if optimizer.max_grad_norm is None and (fused or scale is None):
        if fused:  # it unscales and skips by itself
            found_inf = getattr(optimizer, "found_inf", None)
            optimizer._skipped = False if found_inf is None else found_inf
            step(optimizer)
        elif not optimizer._found_inf():
            with _without_scaler(optimizer):
                step(optimizer)
        return
    if optimizer._found_inf():
        return
    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    coefficient = None
    with torch.no_grad():
        if optimizer.max_grad_norm is not None:
            optimizer._check_norm()
            norm = _norm(optimizer, params)
            norm = norm if scale is None else norm / scale.to(norm.device)
            if not optimizer._accept_norm(norm):
                return
            coefficient = optimizer._clip_coefficient(norm)
        if scale is not None:
            for p in params:
                p.grad.div_(scale.to(p.grad.device))
    with _without_scaler(optimizer):
        if lists:
            step_by_lists(optimizer, coefficient)
        else:
            with _scaled(params, coefficient):
                _torchs_step(optimizer)


def _torchs_step(optimizer: FusedStep) -> None:
    step = optimizer._torch_optimizer.step
    if getattr(step, "hooked", False):  # the hooks already run around our own step
        step = step.__wrapped__  # type: ignore[attr-defined]
    step(optimizer)


def _norm(optimizer: FusedStep, params: list[Tensor]) -> Tensor:
    """torch's global norm, of meta and fake gradients too; of DTensors the one over all their processes."""
    everyone = [p for group in optimizer.param_groups for p in group["params"]]
    grads: list[Any] = [p.grad for p in params]
    if not any(map(is_dtensor, everyone)):
        return torch.nn.utils.get_total_norm(grads) if grads else torch.zeros((), device="cpu")
    sums: dict[Shards | None, Tensor] = {None: torch.zeros((), dtype=torch.float64, device="cpu")}
    for p, grad in zip(params, grads, strict=True):
        if placed(grad) != placed(p):
            grad = grad.redistribute(p.device_mesh, p.placements)  # type: ignore[attr-defined]
        square = torch.linalg.vector_norm(local(grad)).double().square()
        kind = shards_of(p)
        sums[kind] = square + sums[kind].to(square.device) if kind in sums else square
    return sum_over_shards(sums, all_shards(everyone)).sqrt()


@contextmanager
def _scaled(params: list[Tensor], coefficient: Tensor | None) -> Iterator[None]:
    """Multiplied copies stand in for the gradients."""
    if coefficient is None:
        yield
        return
    originals = [p.grad for p in params]
    try:
        for p in params:
            assert p.grad is not None
            factor = coefficient.item() if is_dtensor(p.grad) else coefficient.to(p.grad.device)
            p.grad = (p.grad * factor).to(p.grad.dtype)
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

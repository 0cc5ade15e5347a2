"""A step while torch.compile traces it: one operator a group, where the kernels can take all of it.

torch's step, inlined, is compiled into loops that walk each parameter by itself: on a CPU, ten of a million elements
take AdamW five times as long as the operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fused_ml.optim._base import FusedStep

_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def steps_by_lists(optimizer: FusedStep) -> bool:
    """Whether the operators take every group: numbers, plain tensors of one type on the CPU, no GradScaler."""
    if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
        return False
    everyone = [p for group in optimizer.param_groups for p in group["params"]]
    if len(set(map(id, everyone))) < len(everyone):  # the operator steps a list's tensors side by side
        return False
    for group in optimizer.param_groups:
        if group["differentiable"] or not _numbers(group):  # "capturable" is set by torch.compile
            return False
        params = [p for p in group["params"] if p.grad is not None]
        if not all(_fits(p, p.grad, params[0].dtype) for p in params):
            return False
    return True


def _numbers(group: dict[str, Any]) -> bool:
    options = (group["lr"], *group.get("betas", ()))
    return all(isinstance(option, (int, float)) for option in options)


def _fits(p: Tensor, grad: Tensor, dtype: torch.dtype) -> bool:
    return (
        type(p) in _PLAIN
        and type(grad) in _PLAIN
        and p.is_cpu
        and p.dtype == dtype
        and dtype in _DTYPES
        and grad.layout == torch.strided
        and p.is_contiguous()
        and grad.is_contiguous()
    )


@torch.no_grad()
def step_by_lists(optimizer: FusedStep, factor: Tensor | None = None) -> None:
    """Step every group, its gradients times `factor`."""
    for group in optimizer.param_groups:
        optimizer._update_lists(group, factor)

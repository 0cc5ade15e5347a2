"""Negative log likelihood: the target's log-probability, and a gradient that is zero elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml.nn import _originals as TF
from fused_ml.nn._support import (
    CLASS_INDEX,
    FLOATING,
    REDUCTIONS,
    applier,
    autocast_dtype,
    note_fallback,
    plain,
    resolve_reduction,
)

_op = torch.ops.fused_ml.nll_loss.default
_backward = torch.ops.fused_ml.nll_loss_backward.default


class _NLLLoss(Function):
    @staticmethod
    def forward(ctx, input, target, weight, reduction, ignore_index):
        loss, total = _op(input, target, weight, REDUCTIONS[reduction], ignore_index)
        ctx.save_for_backward(input, target, weight, None if reduction == "none" else total)
        ctx.args = reduction, ignore_index
        return loss

    @staticmethod
    def backward(ctx, upstream):
        input, target, weight, total = ctx.saved_tensors
        reduction, ignore_index = ctx.args
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            loss = TF.nll_loss(input, target.long(), weight, ignore_index=ignore_index, reduction=reduction)
            (grad,) = torch.autograd.grad(loss, input, upstream.reshape(loss.shape), create_graph=True)
            return grad, None, None, None, None
        grad = _backward(
            upstream.reshape(-1) if total is None else upstream, input, target, weight, ignore_index, total
        )
        return grad, None, None, None, None


_apply = applier(_NLLLoss)


def _fusable(input: Any, target: Any, weight: Any, reduction: str) -> bool:
    if input is None or target is None or not plain(input, target, weight) or reduction not in REDUCTIONS:
        return False
    dims = input.dim()
    if input.dtype not in FLOATING or dims == 0 or input.numel() == 0 or target.dtype not in CLASS_INDEX:
        return False
    class_dim = 1 if dims > 1 else 0
    shape = input.shape
    if target.dim() != dims - 1 or target.shape != shape[:class_dim] + shape[class_dim + 1 :]:
        return False
    return weight is None or (
        weight.dtype == input.dtype and weight.shape == (shape[class_dim],) and not weight.requires_grad
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Negative log likelihood: :func:`torch.nn.functional.nll_loss`.

    :math:`-w_y x_y` for each row of log-probabilities :math:`x` and target class :math:`y`; the gradient is zero
    elsewhere.

    Args:
        input: log-probabilities, :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ..., d_K)`; float32, float64,
            bfloat16 or float16.
        target: class indices (uint8, int32, int64), the input's shape without the class dimension.
        weight: a weight for each class, :math:`(C)`, of the input's dtype.
        size_average, reduce: torch's legacy arguments.
        ignore_index: a target whose row counts for nothing.
        reduction: ``"none"``, ``"mean"`` (divided by the sum of the weights of the rows that count) or ``"sum"``.

    Returns:
        The loss, 0-d or of the target's shape.

    Raises:
        IndexError: a target is out of range. RuntimeError, ValueError: as torch's, for what torch refuses.

    Example::

        >>> nll_loss(torch.randn(4, 3).log_softmax(1), torch.tensor([0, 2, 1, 1])).shape
        torch.Size([])
    """
    reduction = resolve_reduction(reduction, size_average, reduce)
    if not _fusable(input, target, weight, reduction):
        result = TF.nll_loss(input, target, weight, ignore_index=ignore_index, reduction=reduction)
        note_fallback("nn.functional.nll_loss", input)
        return result
    dtype = autocast_dtype(input)
    if dtype is not None:
        input = input.to(dtype)
        weight = weight if weight is None else weight.to(dtype)
    try:
        if torch.is_grad_enabled() and input.requires_grad:
            loss = _apply(input, target, weight, reduction, ignore_index)
        else:
            loss, _ = _op(input, target, weight, REDUCTIONS[reduction], ignore_index)
    except RuntimeError as error:
        if "is out of bounds" in str(error):
            TF.nll_loss(input, target.long(), weight, ignore_index=ignore_index)  # torch's IndexError
        raise
    return loss.reshape(target.shape) if reduction == "none" else loss

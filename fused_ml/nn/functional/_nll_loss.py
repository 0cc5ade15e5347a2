"""Negative log likelihood: the target's log-probability, and a gradient that is zero elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml._explain import note
from fused_ml.nn import _originals as TF
from fused_ml.nn._calls import applier, by_composite, kernels_go_back, plain, scripted_as, torchs, why_not_plain
from fused_ml.nn._support import (
    REDUCTION_NAMES,
    REDUCTIONS,
    autocast_dtype,
    note_fallback,
    refusal_of_class_weight,
    refusal_of_classes,
    refusal_of_logits,
    refusal_of_options,
    resolve_reduction,
)

__all__ = ["nll_loss"]

_NAME = "nn.functional.nll_loss"
_op = torch.ops.fused_ml.nll_loss.default
_backward = torch.ops.fused_ml.nll_loss_backward.default


class _NLLLoss(Function):
    @staticmethod
    def forward(ctx, input, target, weight, reduction, ignore_index):
        loss, total = _op(input, target, weight, reduction, ignore_index)
        ctx.save_for_backward(input, target, weight, total if reduction else None)
        ctx.args = reduction, ignore_index
        return loss

    @staticmethod
    def backward(ctx, upstream):
        input, target, weight, total = ctx.saved_tensors
        reduction, ignore_index = ctx.args
        if not kernels_go_back(_NAME, upstream):
            weights = weight if weight is None else weight.to(input.dtype)
            options = {"ignore_index": ignore_index, "reduction": REDUCTION_NAMES[reduction]}
            composite = partial(TF.nll_loss, target=target.long(), weight=weights, **options)
            return (*by_composite(composite, [input], (True,), upstream), None, None, None, None)
        grad = _backward(
            upstream.reshape(-1) if total is None else upstream, input, target, weight, ignore_index, total
        )
        return grad, None, None, None, None


_apply = applier(
    _NLLLoss, "nll_loss(Tensor input, Tensor target, Tensor? weight, int reduction, int ignore_index) -> Tensor"
)


def _refusal(input: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any) -> str | None:
    """Why no kernel takes the call, or None."""
    if input is None or target is None or not plain(input, target, weight):
        return why_not_plain(input=input, target=target, weight=weight)
    return (
        refusal_of_options(reduction, ignore_index)
        or refusal_of_logits(input)
        or refusal_of_classes(target, input)
        or refusal_of_class_weight(weight, input)
    )


@scripted_as(TF.nll_loss)
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
    if reason := _refusal(input, target, weight, reduction, ignore_index):
        result = torchs(TF.nll_loss)(input, target, weight, ignore_index=ignore_index, reduction=reduction)
        note_fallback(_NAME, reason, input)
        return result
    note(_NAME)
    input = input.to(autocast_dtype(input) or input.dtype)
    code = REDUCTIONS[reduction]
    try:
        if torch.is_grad_enabled() and input.requires_grad:
            loss = _apply(input, target, weight, code, ignore_index)
        else:
            loss, _ = _op(input, target, weight, code, ignore_index)
    except RuntimeError as error:
        if "is out of bounds" in str(error):
            TF.nll_loss(input, target.long(), weight, ignore_index=ignore_index)  # torch's IndexError
        raise
    return loss.reshape(target.shape) if reduction == "none" else loss

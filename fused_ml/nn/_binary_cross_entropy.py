"""Binary cross entropy with logits: loss and gradients from one pass over the elements."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml.nn import _originals as TF
from fused_ml.nn._support import (
    FLOATING,
    REDUCTIONS,
    applier,
    autocast_dtype,
    note_fallback,
    plain,
    resolve_reduction,
    scale_gradient,
)

_op = torch.ops.fused_ml.binary_cross_entropy_with_logits.default


class _Options(NamedTuple):
    reduction: str
    focal_gamma: float
    focal_alpha: float  # negative: none
    label_smoothing: float
    ignore_index: float  # NaN: none
    loss_dtype: torch.dtype


def _composite(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, normalizer: Tensor | None,
    o: _Options,
) -> Tensor:  # fmt: skip
    """The same loss from differentiable torch operations: for second derivatives, and where no kernel exists."""
    t = target * (1 - o.label_smoothing) + o.label_smoothing / 2 if o.label_smoothing else target
    loss = TF.binary_cross_entropy_with_logits(input, t, pos_weight=pos_weight, reduction="none")
    if o.focal_gamma:
        p = torch.sigmoid(input)
        loss = loss * (p * (1 - t) + (1 - p) * t) ** o.focal_gamma
    if o.focal_alpha >= 0:
        loss = loss * (o.focal_alpha * t + (1 - o.focal_alpha) * (1 - t))
    if weight is not None:
        loss = loss * weight
    if not math.isnan(o.ignore_index):
        loss = torch.where(target == o.ignore_index, 0, loss)
    if o.reduction == "none":
        return loss.to(o.loss_dtype)
    if o.reduction == "sum":
        return loss.sum().to(o.loss_dtype)
    return (loss.sum() / normalizer if normalizer is not None else loss.mean()).to(o.loss_dtype)


def _run(inputs: Any, o: _Options, loss: bool, grads: tuple[bool, bool], upstream: Tensor | None = None):
    input, target, weight, pos_weight, normalizer = inputs
    return _op(
        input, target, weight, pos_weight, normalizer, upstream, REDUCTIONS[o.reduction], o.focal_gamma,
        o.focal_alpha, o.label_smoothing, o.ignore_index, o.loss_dtype, loss, grads[0], grads[1],
    )  # fmt: skip


class _BinaryCrossEntropyWithLogits(Function):
    """mean and sum compute the gradients in forward; none computes them in backward."""

    @staticmethod
    def forward(ctx, input, target, weight, pos_weight, normalizer, options):
        ctx.options = options
        inputs = (input, target, weight, pos_weight, normalizer)
        now = options.reduction != "none"
        grads = (now and ctx.needs_input_grad[0], now and ctx.needs_input_grad[1])
        found = iter(_run(inputs, options, True, grads))
        loss = next(found)
        ctx.save_for_backward(
            *inputs,
            next(found) if grads[0] else None,
            next(found) if grads[1] else None,
        )
        return loss

    @staticmethod
    def backward(ctx, upstream):
        *inputs, grad_input, grad_target = ctx.saved_tensors
        needs = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            wanted = [t for t, need in zip(inputs[:2], needs, strict=True) if need]
            loss = _composite(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], ctx.options)
            grads = iter(torch.autograd.grad(loss, wanted, upstream, create_graph=True))
            return (*(next(grads) if need else None for need in needs), *(None,) * 4)
        if ctx.options.reduction == "none":
            found = iter(_run(inputs, ctx.options, False, needs, upstream))
            grad_input = next(found) if needs[0] else None
            grad_target = next(found) if needs[1] else None
        else:
            grad_input = scale_gradient(grad_input, upstream) if needs[0] else None
            grad_target = scale_gradient(grad_target, upstream) if needs[1] else None
        return (grad_input, grad_target, *(None,) * 4)


_apply = applier(_BinaryCrossEntropyWithLogits)


def _same_arithmetic(input: Tensor, *others: Tensor | None) -> bool:
    double = input.dtype == torch.float64
    return all(t is None or (t.dtype in FLOATING and (t.dtype == torch.float64) == double) for t in others)


def _expanded(tensor: Tensor | None, shape: torch.Size) -> Tensor | None:
    return tensor if tensor is None or tensor.shape == shape else tensor.expand(shape)


def _broadcasts(tensor: Tensor | None, shape: torch.Size) -> bool:
    if tensor is None:
        return True
    offset = len(shape) - tensor.dim()
    return offset >= 0 and all(n in (1, shape[offset + d]) for d, n in enumerate(tensor.shape))


def _fusable(input: Any, target: Any, weight: Any, pos_weight: Any, reduction: str) -> bool:
    if input is None or target is None or not plain(input, target, weight, pos_weight) or reduction not in REDUCTIONS:
        return False
    if input.dtype not in FLOATING or input.numel() == 0 or target.shape != input.shape:
        return False
    if not _same_arithmetic(input, target, weight, pos_weight) or input.dim() > 8:
        return False
    shape = input.shape
    if not _broadcasts(weight, shape) or not _broadcasts(pos_weight, shape):
        return False
    return not any(t is not None and t.requires_grad for t in (weight, pos_weight))


def _check_extras(focal_gamma: float, focal_alpha: float | None, label_smoothing: float) -> None:
    name = "binary_cross_entropy_with_logits"
    if not (0 <= focal_gamma < math.inf):
        raise ValueError(f"{name}: expected a finite focal_gamma >= 0, got {focal_gamma}")
    if focal_alpha is not None and not (0 <= focal_alpha <= 1):
        raise ValueError(f"{name}: expected focal_alpha in [0, 1] or None, got {focal_alpha}")
    if not (0 <= label_smoothing <= 1):
        raise ValueError(f"{name}: expected label_smoothing in [0, 1], got {label_smoothing}")


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    focal_gamma: float = 0.0,
    focal_alpha: float | None = None,
    label_smoothing: float = 0.0,
    ignore_index: float | None = None,
) -> Tensor:
    r"""Binary cross entropy of logits: :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    :math:`w\,[(1 - t)\,\mathrm{softplus}(x) + p\,t\,\mathrm{softplus}(-x)]` for logit :math:`x`, target :math:`t`;
    finite wherever the mathematics is, and both gradients come from the same pass.

    Args:
        input: logits, any shape; float32, float64, bfloat16 or float16.
        target: of the input's shape, in [0, 1]; float64 with float64, else any of the other types. The loss has its
            dtype.
        weight: broadcasts to the input; multiplies the loss.
        size_average, reduce: torch's legacy arguments.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: :math:`p`, broadcasts to the input.
        focal_gamma, focal_alpha: focal loss (Lin et al., 2017, arXiv:1708.02002): the loss times
            :math:`\alpha_t (1 - p_t)^\gamma`. 0 and None: neither.
        label_smoothing: in [0, 1]; the target becomes ``target * (1 - e) + e / 2``.
        ignore_index: a target that counts for nothing: zero loss, gradient exactly 0, not in ``"mean"``'s denominator.

    Returns:
        The loss, 0-d or of the input's shape.

    Raises:
        ValueError: shapes of input and target differ, or an option is out of range. RuntimeError: as torch's.

    Example::

        >>> binary_cross_entropy_with_logits(torch.zeros(3, 2), torch.ones(3, 2), focal_gamma=2.0)
        tensor(0.1733)
    """
    reduction = resolve_reduction(reduction, size_average, reduce)
    extras = bool(focal_gamma) or focal_alpha is not None or bool(label_smoothing) or ignore_index is not None
    _check_extras(focal_gamma, focal_alpha, label_smoothing)
    if not _fusable(input, target, weight, pos_weight, reduction):
        if not extras:
            result = TF.binary_cross_entropy_with_logits(
                input, target, weight, reduction=reduction, pos_weight=pos_weight
            )
            note_fallback("nn.functional.binary_cross_entropy_with_logits", input)
            return result
        if reduction not in REDUCTIONS:
            raise ValueError(f"{reduction} is not a valid value for reduction")
    loss_dtype = autocast_dtype(input) or target.dtype
    options = _Options(
        reduction, float(focal_gamma), -1.0 if focal_alpha is None else float(focal_alpha), float(label_smoothing),
        math.nan if ignore_index is None else float(ignore_index), loss_dtype,
    )  # fmt: skip
    normalizer = None
    if ignore_index is not None and reduction == "mean":
        normalizer = (target != ignore_index).sum()
    if not _fusable(input, target, weight, pos_weight, reduction):
        note_fallback("nn.functional.binary_cross_entropy_with_logits", input)
        return _composite(input, target, weight, pos_weight, normalizer, options)
    shape = input.shape
    args = (input, target, _expanded(weight, shape), _expanded(pos_weight, shape), normalizer)
    if torch.is_grad_enabled() and (input.requires_grad or target.requires_grad):
        return _apply(*args, options)
    return _run(args, options, True, (False, False))[0]

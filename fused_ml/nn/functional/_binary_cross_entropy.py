"""Binary cross entropy with logits: loss and gradients from one pass over the elements."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.library import register_fake

from fused_ml._explain import note
from fused_ml.nn import _originals as TF
from fused_ml.nn._calls import applier, plain, scripted_as, torchs, why_not_plain
from fused_ml.nn._pointwise import (
    LOSS_ARGUMENTS,
    Operands,
    Reading,
    differentiable_loss,
    fake_loss,
    reduced,
    refusal_of_input,
    refusal_of_reduction,
)
from fused_ml.nn._support import FLOATING, REDUCTIONS, autocasts, note_fallback, resolve_reduction, widened

__all__ = ["binary_cross_entropy_with_logits"]

_NAME = "binary_cross_entropy_with_logits"
_PUBLIC = f"nn.functional.{_NAME}"
_op = torch.ops.fused_ml.binary_cross_entropy_with_logits.default


class _Options(NamedTuple):
    focal_gamma: float
    focal_alpha: float  # negative: none
    label_smoothing: float
    ignore_index: float  # NaN: none


def _composite(operands: Operands, reading: Reading, options: tuple[float, ...]) -> Tensor:
    """The same loss from differentiable torch operations: for second derivatives, and where no kernel exists."""
    o, input, target = _Options(*options), widened(operands.input), widened(operands.target)
    t = target * (1 - o.label_smoothing) + o.label_smoothing / 2 if o.label_smoothing else target
    loss = TF.binary_cross_entropy_with_logits(input, t, pos_weight=operands.pos_weight, reduction="none")
    if o.focal_gamma:
        p = torch.sigmoid(input)
        loss = loss * (p * (1 - t) + (1 - p) * t) ** o.focal_gamma
    if o.focal_alpha >= 0:
        loss = loss * (o.focal_alpha * t + (1 - o.focal_alpha) * (1 - t))
    if operands.weight is not None:
        loss = loss * operands.weight
    if not math.isnan(o.ignore_index):
        loss = torch.where(target == o.ignore_index, 0, loss)
    return reduced(loss, operands, reading)


def _run(
    operands: Operands, reading: Reading, options: tuple[float, ...], loss: bool, grads: tuple[bool, bool],
    upstream: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    found: list[Tensor] = _op(*operands, upstream, *reading, loss, *grads, *options)
    return found


@register_fake(f"fused_ml::{_NAME}")
def _fake(input, target, weight, pos_weight, normalizer, grad_output, reduction, dtype, loss, *more):
    return fake_loss(input, target, Reading(reduction, dtype), loss, more[:2])


_apply = applier(
    differentiable_loss(_PUBLIC, _run, _composite),
    f"{_NAME}({LOSS_ARGUMENTS}, float focal_gamma, float focal_alpha, float label_smoothing, float ignore_index) -> "
    "Tensor",
)


def _expanded(tensor: Tensor | None, shape: torch.Size) -> Tensor | None:
    return tensor if tensor is None or tensor.shape == shape else tensor.expand(shape)


def _refusal_of_operand(tensor: Tensor | None, input: Tensor, shape: str, dtype: str, grad: str) -> str | None:
    """Why no kernel reads a weight of the elements, in one of these words, or None."""
    if tensor is None:
        return None
    offset = input.dim() - tensor.dim()
    if offset < 0 or any(n not in (1, input.shape[offset + d]) for d, n in enumerate(tensor.shape)):
        return shape
    if tensor.dtype not in FLOATING or (tensor.dtype == torch.float64) != (input.dtype == torch.float64):
        return dtype
    return grad if tensor.requires_grad else None


def _refusal(input: Any, target: Any, weight: Any, pos_weight: Any, reduction: Any) -> str | None:
    """Why no kernel takes the call, or None."""
    if input is None or target is None or not plain(input, target, weight, pos_weight):
        return why_not_plain(input=input, target=target, weight=weight, pos_weight=pos_weight)
    if reason := refusal_of_reduction(reduction) or refusal_of_input(input):
        return reason
    if target.shape != input.shape:
        return "target must have the input's shape"
    if target.dtype not in FLOATING or (target.dtype == torch.float64) != (input.dtype == torch.float64):
        return "target must be float64 with a float64 input, else float32, bfloat16 or float16: convert it"
    for name, tensor in (("weight", weight), ("pos_weight", pos_weight)):
        reason = _refusal_of_operand(
            tensor,
            input,
            name + " must broadcast to the input's shape",
            name + " must be float64 with a float64 input, else float32, bfloat16 or float16: convert it",
            name + " requires a gradient, which no kernel computes: detach it",
        )
        if reason is not None:
            return reason
    return None


def _check_extras(**options: Any) -> None:
    for name, value in options.items():
        if value is not None and not isinstance(value, numbers.Real):
            raise TypeError(f"{_NAME}: expected {name} to be a number, got {type(value).__name__}")
    focal_gamma, focal_alpha, label_smoothing = (options[n] for n in ("focal_gamma", "focal_alpha", "label_smoothing"))
    if focal_gamma is None or not (0 <= focal_gamma < math.inf):
        raise ValueError(f"{_NAME}: expected a finite focal_gamma >= 0, got {focal_gamma}")
    if focal_alpha is not None and not (0 <= focal_alpha <= 1):
        raise ValueError(f"{_NAME}: expected focal_alpha in [0, 1] or None, got {focal_alpha}")
    if label_smoothing is None or not (0 <= label_smoothing <= 1):
        raise ValueError(f"{_NAME}: expected label_smoothing in [0, 1], got {label_smoothing}")


@scripted_as(TF.binary_cross_entropy_with_logits)
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
    if extras or focal_gamma is None or label_smoothing is None:
        _check_extras(
            focal_gamma=focal_gamma, focal_alpha=focal_alpha, label_smoothing=label_smoothing, ignore_index=ignore_index
        )
    reason = _refusal(input, target, weight, pos_weight, reduction)
    if reason and not extras:
        result = torchs(TF.binary_cross_entropy_with_logits)(
            input, target, weight, reduction=reduction, pos_weight=pos_weight
        )
        note_fallback(_PUBLIC, reason, input)
        return result
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    narrow = target.dtype in (torch.bfloat16, torch.float16)
    reading = Reading(REDUCTIONS[reduction], torch.float32 if narrow and autocasts(input) else target.dtype)
    options = _Options(
        float(focal_gamma), -1.0 if focal_alpha is None else float(focal_alpha), float(label_smoothing),
        math.nan if ignore_index is None else float(ignore_index),
    )  # fmt: skip
    normalizer = None
    if ignore_index is not None and reduction == "mean":
        normalizer = (target != ignore_index).sum()
    if reason:
        loss = _composite(Operands(input, target, weight, pos_weight, normalizer), reading, options)
        note_fallback(_PUBLIC, reason, input)
        return loss
    note(_PUBLIC)
    shape = input.shape
    operands = Operands(input, target, _expanded(weight, shape), _expanded(pos_weight, shape), normalizer)
    if torch.is_grad_enabled() and (input.requires_grad or target.requires_grad):
        differentiable: Tensor = _apply(*operands, *reading, *options)
        return differentiable
    return _run(operands, reading, options, True, (False, False), None)[0]

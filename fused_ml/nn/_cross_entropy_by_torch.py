"""Cross entropy from torch's own operations: for second derivatives, and where no kernel takes the call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fused_ml.nn import _originals as TF
from fused_ml.nn._support import REDUCTION_NAMES, REDUCTIONS, class_dim, rows_of, widened


class CrossEntropyStats(NamedTuple):
    """What a cross-entropy sweep also knows, each of the target's shape (one number a row)."""

    lse: Tensor
    """log-sum-exp of the logits; float32, float64 for float64 logits."""
    predicted: Tensor
    """int64; the first class with the largest logit."""
    correct: Tensor
    """bool; predicted is the target (the target's likeliest class) and the row is not ignored."""


class Options(NamedTuple):
    reduction: int
    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float
    loss_dtype: torch.dtype


def composite(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None,
    normalizer: Tensor | None, o: Options,
) -> Tensor:  # fmt: skip
    """The same loss from differentiable torch operations: for second derivatives, and where no kernel exists."""
    logits = capped(widened(input), o.softcap)
    distribution = target.is_floating_point()
    if not distribution:
        target = target.long()
    else:
        target = widened(target)
    weight = weight if weight is None else weight.to(logits.dtype)
    plain_mean = o.z_loss == 0 and sample_weight is None and normalizer is None
    loss = TF.cross_entropy(
        logits, target, weight, ignore_index=o.ignore_index,
        reduction=REDUCTION_NAMES[o.reduction] if plain_mean else "none", label_smoothing=o.label_smoothing,
    )  # fmt: skip
    if plain_mean:
        return loss.to(o.loss_dtype)
    keep = torch.ones_like(loss, dtype=torch.bool) if distribution else target != o.ignore_index
    if o.z_loss:
        loss = loss + torch.where(keep, o.z_loss * logits.logsumexp(class_dim(input)) ** 2, 0)
    if sample_weight is not None:
        loss = loss * sample_weight
    if o.reduction == REDUCTIONS["none"]:
        return loss.to(o.loss_dtype)
    if o.reduction == REDUCTIONS["sum"]:
        return loss.sum().to(o.loss_dtype)
    if normalizer is None:
        weights = None if distribution else weight
        normalizer = sum_of_weights(target, weights, sample_weight, None if distribution else o.ignore_index, input)
    return (loss.sum() / normalizer).to(o.loss_dtype)


def capped(input: Tensor, softcap: float) -> Tensor:
    return softcap * torch.tanh(input / softcap) if softcap else input


def sum_of_weights(
    target: Tensor, weight: Tensor | None, sample_weight: Tensor | None, ignore_index: int | None, input: Tensor
) -> Tensor:
    """Sum of the weights of class and row over the rows that count: what mean divides by. float64."""
    rows = torch.ones(rows_of(input), dtype=torch.float64, device=input.device)
    if sample_weight is not None:
        rows = rows * sample_weight
    if weight is not None:
        rows = rows * weight[target.long().clamp(min=0, max=weight.numel() - 1)]
    return (rows if ignore_index is None else torch.where(target != ignore_index, rows, 0)).sum()


def weights_beside_z_loss(
    target: Tensor, weight: Tensor, sample_weight: Tensor | None, ignore_index: int, input: Tensor
) -> tuple[Tensor, Tensor]:
    """Class weights and a normalizer that make mean average the z-loss over the rows, whatever the class weights.

    The cross entropy is divided by the sum of the rows' class weights, the z-loss by the number of rows (both with
    their sample weights): so the class weights are divided by the first, and all by the second.
    """
    by_class = sum_of_weights(target, weight, sample_weight, ignore_index, input)
    by_row = sum_of_weights(target, None, sample_weight, ignore_index, input)
    nothing = by_class == 0  # as without z-loss: no gradient
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    scaled = (weight.double() * torch.where(nothing, 0, by_row / by_class)).to(dtype)
    return scaled, torch.where(nothing, 0, by_row)


def stats_of(input: Tensor, target: Tensor, o: Options, lse: Tensor, predicted: Tensor) -> CrossEntropyStats:
    rows = rows_of(input)
    predicted = predicted.reshape(rows)
    if target.is_floating_point():
        correct = predicted == target.argmax(class_dim(input))
    else:
        correct = (predicted == target) & (target != o.ignore_index)
    return CrossEntropyStats(lse.reshape(rows), predicted, correct)


def composite_with_stats(args: tuple, o: Options, return_stats: bool) -> Any:
    """The call with options that torch's function does not have, in torch's operations."""
    input, target = args[:2]
    loss = composite(input, target, *args[2:], o)  # type: ignore[call-arg]
    if not return_stats:
        return loss
    logits = capped(input.detach(), o.softcap)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    dim = class_dim(input)
    return loss, stats_of(input, target, o, logits.logsumexp(dim), logits.argmax(dim))

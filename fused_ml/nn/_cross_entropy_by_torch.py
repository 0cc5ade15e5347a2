"""Cross entropy from torch's own operations: for second derivatives, and where no kernel takes the call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fused_ml.nn import _originals as TF
from fused_ml.nn._support import note_fallback


class CrossEntropyStats(NamedTuple):
    """What a cross-entropy sweep also knows, each of the target's shape (one number a row)."""

    lse: Tensor
    """log-sum-exp of the logits; float32, float64 for float64 logits."""
    predicted: Tensor
    """int64; the first class with the largest logit."""
    correct: Tensor
    """bool; predicted is the target (the target's likeliest class) and the row is not ignored."""


class Options(NamedTuple):
    reduction: str
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
    logits = o.softcap * torch.tanh(input / o.softcap) if o.softcap else input
    distribution = target.is_floating_point()
    if not distribution:
        target = target.long()
    plain_mean = o.z_loss == 0 and sample_weight is None and normalizer is None
    loss = TF.cross_entropy(
        logits, target, weight, ignore_index=o.ignore_index,
        reduction=o.reduction if plain_mean else "none", label_smoothing=o.label_smoothing,
    )  # fmt: skip
    if plain_mean:
        return loss.to(o.loss_dtype)
    class_dim = 1 if input.dim() > 1 else 0
    keep = torch.ones_like(loss, dtype=torch.bool) if distribution else target != o.ignore_index
    if o.z_loss:
        loss = loss + torch.where(keep, o.z_loss * logits.logsumexp(class_dim) ** 2, 0)
    if sample_weight is not None:
        loss = loss * sample_weight
    if o.reduction == "none":
        return loss.to(o.loss_dtype)
    if o.reduction == "sum":
        return loss.sum().to(o.loss_dtype)
    if normalizer is None:
        rows = torch.ones_like(loss) if sample_weight is None else sample_weight.to(loss.dtype)
        if not distribution and weight is not None:
            rows = rows * weight[target.clamp(min=0, max=weight.numel() - 1)]
        normalizer = torch.where(keep, rows, 0).sum()
    return (loss.sum() / normalizer).to(o.loss_dtype)


def stats_of(input: Tensor, target: Tensor, o: Options, lse: Tensor, predicted: Tensor) -> CrossEntropyStats:
    rows = input.shape[:1] + input.shape[2:] if input.dim() > 1 else torch.Size(())
    predicted = predicted.reshape(rows)
    if target.is_floating_point():
        correct = predicted == target.argmax(1 if input.dim() > 1 else 0)
    else:
        correct = (predicted == target) & (target != o.ignore_index)
    return CrossEntropyStats(lse.reshape(rows), predicted, correct)


def by_torch(args: tuple, o: Options, extras: bool, return_stats: bool) -> Any:
    """The call as torch answers it: with its errors if it is a bad one."""
    input, target, weight = args[:3]
    if not extras and not return_stats:
        loss = TF.cross_entropy(
            input, target, weight, ignore_index=o.ignore_index, reduction=o.reduction,
            label_smoothing=o.label_smoothing,
        )  # fmt: skip
        note_fallback("nn.functional.cross_entropy", input)
        return loss
    loss = composite(input, target, weight, args[3], args[4], o)
    note_fallback("nn.functional.cross_entropy", input)
    if not return_stats:
        return loss
    class_dim = 1 if input.dim() > 1 else 0
    logits = o.softcap * torch.tanh(input.detach() / o.softcap) if o.softcap else input.detach()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return loss, stats_of(input, target, o, logits.logsumexp(class_dim), logits.argmax(class_dim))

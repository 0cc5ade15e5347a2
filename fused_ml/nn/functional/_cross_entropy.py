"""Cross entropy: one sweep over the logits gives the loss and the gradient."""

from __future__ import annotations

import numbers
from typing import Any, Literal, overload

import torch
from torch import Tensor

from fused_ml._explain import note
from fused_ml.nn import _originals as TF
from fused_ml.nn._calls import PLAIN, foreign, plain, scripted_as, torchs, unwatched, why_not_plain
from fused_ml.nn._cross_entropy_autograd import NAME, CrossEntropyInPlace, apply, apply_common, op, run
from fused_ml.nn._cross_entropy_by_torch import (
    CrossEntropyStats,
    Options,
    composite_with_stats,
    stats_of,
    weights_beside_z_loss,
)
from fused_ml.nn._support import (
    CLASS_INDEX,
    FLOATING,
    REDUCTION_NAMES,
    REDUCTIONS,
    autocast_dtype,
    autocasts,
    note_fallback,
    refusal_of_class_weight,
    refusal_of_classes,
    refusal_of_logits,
    refusal_of_options,
    resolve_reduction,
    rows_of,
)

__all__ = ["CrossEntropyStats", "cross_entropy"]

_SUMMED = {name: code for name, code in REDUCTIONS.items() if name != "none"}


def _common(input: Tensor, target: Tensor, reduction: str, ignore_index: int) -> Tensor | None:
    """The common call's loss, or None where it is not so common: a small call's time is mostly Python's.

    What the operator refuses (layouts, shapes, types) is left to the checks of the general call, and so to torch's own
    errors.
    """
    if (
        torch.compiler.is_compiling()
        or type(input) not in PLAIN
        or type(target) is not Tensor
        or type(ignore_index) is not int
        or foreign()
        or not unwatched()
        or target.dtype not in CLASS_INDEX
        or not ((input.is_cpu and target.is_cpu) or plain(input, target))
        or autocast_dtype(input) is not None
    ):
        return None
    try:
        code = _SUMMED[reduction]
        if not (input.requires_grad and torch.is_grad_enabled()):
            loss = op(input, target, code, ignore_index, False)[0]
        elif input.dtype == torch.float16:
            return None
        else:
            loss = apply_common(input, target, (code, ignore_index))
    except (RuntimeError, KeyError, TypeError):
        return None
    note(NAME)
    return loss


def _refusal(input: Any, target: Any, weight: Any, sample_weight: Any, normalizer: Any, reduction: Any,
             ignore_index: Any, label_smoothing: Any) -> str | None:  # fmt: skip
    """Why no kernel takes the call of plain tensors, or None. What no kernel takes, torch answers or refuses."""
    reason = refusal_of_options(reduction, ignore_index) or refusal_of_logits(input)
    if reason is None and not (isinstance(label_smoothing, (float, int)) and 0.0 <= label_smoothing <= 1.0):
        reason = "label_smoothing must be in [0, 1]"
    if reason is None and target.is_floating_point():
        reason = _refusal_of_probabilities(target, input, ignore_index)
    elif reason is None:
        reason = refusal_of_classes(target, input)
    if reason is not None or (weight is None and sample_weight is None and normalizer is None):
        return reason
    if sample_weight is not None and (sample_weight.shape != rows_of(input) or sample_weight.requires_grad):
        return "sample_weight requires a gradient, which no kernel computes: detach it"
    if normalizer is not None and normalizer.requires_grad:
        return "normalizer requires a gradient, which no kernel computes: detach it"
    return refusal_of_class_weight(weight, input)


def _refusal_of_probabilities(target: Tensor, input: Tensor, ignore_index: int) -> str | None:
    if target.shape != input.shape:
        return "target must have the input's shape"
    if target.dtype != input.dtype:
        return "target must have the input's dtype: convert it"
    return "ignore_index goes with class targets" if ignore_index >= 0 else None


def _check_extras(z_loss: Any, softcap: Any, sample_weight: Any, normalizer: Any, out_dtype: Any, input: Any,
                  target: Any) -> None:  # fmt: skip
    for name, value in (("z_loss", z_loss), ("softcap", softcap), ("normalizer", normalizer)):
        optional = name != "z_loss" and (value is None or (name == "normalizer" and isinstance(value, Tensor)))
        if not optional and not isinstance(value, numbers.Real):
            raise TypeError(f"cross_entropy: expected {name} to be a number, got {type(value).__name__}")
    if not (z_loss >= 0):
        raise ValueError(f"cross_entropy: expected z_loss >= 0, got {z_loss}")
    if softcap is not None and not (0 < softcap < float("inf")):
        raise ValueError(f"cross_entropy: expected a finite softcap > 0 or None, got {softcap}")
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"cross_entropy: expected a floating point out_dtype, got {out_dtype}")
    if sample_weight is not None:
        if not isinstance(sample_weight, Tensor):
            raise TypeError(f"cross_entropy: expected sample_weight to be a Tensor, got {type(sample_weight).__name__}")
        rows = rows_of(input)
        if sample_weight.shape != rows:
            raise ValueError(
                f"cross_entropy: expected sample_weight of shape {tuple(rows)}, a weight for each target, got "
                f"{tuple(sample_weight.shape)}"
            )
    if isinstance(normalizer, Tensor) and normalizer.dim() != 0:
        raise ValueError(
            f"cross_entropy: expected normalizer to be a number or a 0-d tensor, got shape {tuple(normalizer.shape)}"
        )


def _as_autocast(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 where probabilities have another dtype than the logits, as autocast casts them."""
    single = torch.float64 not in (input.dtype, target.dtype) and input.dtype in FLOATING and target.dtype in FLOATING
    if single and input.dtype != target.dtype and autocasts(input):
        return input.float(), target.float()
    return input, target


@overload
def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0, *,
    z_loss: float = 0.0, softcap: float | None = None, sample_weight: Tensor | None = None,
    normalizer: float | Tensor | None = None, out_dtype: torch.dtype | None = None, inplace_backward: bool = False,
    return_stats: Literal[False] = False,
) -> Tensor: ...  # fmt: skip
@overload
def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean", label_smoothing: float = 0.0, *,
    z_loss: float = 0.0, softcap: float | None = None, sample_weight: Tensor | None = None,
    normalizer: float | Tensor | None = None, out_dtype: torch.dtype | None = None, inplace_backward: bool = False,
    return_stats: Literal[True],
) -> tuple[Tensor, CrossEntropyStats]: ...  # fmt: skip
@scripted_as(TF.cross_entropy)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
    sample_weight: Tensor | None = None,
    normalizer: float | Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    inplace_backward: bool = False,
    return_stats: bool = False,
) -> Any:
    r"""Cross entropy of logits and class indices or class probabilities: :func:`torch.nn.functional.cross_entropy`.

    One sweep gives the loss and, for ``"mean"`` and ``"sum"``, the gradient. With :math:`l` the (soft-capped)
    logits of a row, :math:`\mathrm{lse} = \log \sum_j e^{l_j}` and target class :math:`y`, the row's loss is
    :math:`w_y (\mathrm{lse} - l_y) + z\,\mathrm{lse}^2`, computed as ``log1p(others / own)`` so that it and the
    gradient keep their bits where the probability is nearly 1.

    Args:
        input: logits, :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, ..., d_K)`; float32, float64,
            bfloat16 or float16.
        target: class indices (uint8, int32, int64) of the input's shape without the class dimension, or probabilities
            of the input's shape and dtype.
        weight: a weight for each class, :math:`(C)`, of the input's dtype.
        size_average, reduce: torch's legacy arguments.
        ignore_index: a target whose row counts for nothing: zero loss, gradient exactly 0.
        reduction: ``"none"``, ``"mean"`` (class indices: divided by the sum of the weights of the rows that count;
            probabilities: by the number of rows) or ``"sum"``.
        label_smoothing: in [0, 1] (Szegedy et al., 2016, arXiv:1512.00567).
        z_loss: adds ``z_loss * lse ** 2`` to every row that counts (PaLM, 2022, arXiv:2204.02311). No class weight
            scales it: ``"mean"`` averages it over the rows.
        softcap: replaces the logits by ``softcap * tanh(input / softcap)`` (Gemma 2, 2024, arXiv:2408.00118).
        sample_weight: a weight for each row, of the target's shape (one number a row); it multiplies the row's loss,
            and ``"mean"`` divides by the sum of the weights of class and row.
        normalizer: a number or 0-d tensor that replaces ``"mean"``'s denominator, for gradient accumulation.
        out_dtype: the loss's dtype, if not the input's.
        inplace_backward: write the gradient over the logits, which a plain backward then returns: no memory beyond
            them. What is read from the logits afterwards is wrong. They may be a view of a whole tensor; not a leaf
            that requires grad, nor for second derivatives. Ignored for a view of a part, and under ``torch.compile``.
        return_stats: return ``(loss, CrossEntropyStats(lse, predicted, correct))``.

    Returns:
        The loss, 0-d or of the target's shape; with ``return_stats`` a pair.

    Raises:
        IndexError: a target is out of range. TypeError, RuntimeError, ValueError: as torch's, for what torch refuses;
            ValueError for an option out of range.

    Example::

        >>> logits = torch.randn(8, 5, requires_grad=True)
        >>> loss, stats = cross_entropy(logits, torch.randint(5, (8,)), z_loss=1e-4, return_stats=True)
        >>> loss.backward()
        >>> stats.lse.shape
        torch.Size([8])
    """
    if weight is size_average is reduce is softcap is sample_weight is normalizer is out_dtype is None and not (
        label_smoothing != 0 or z_loss != 0 or inplace_backward or return_stats
    ):
        loss = _common(input, target, reduction, ignore_index)
        if loss is not None:
            return loss
    reduction = resolve_reduction(reduction, size_average, reduce)
    extras = bool(z_loss) or softcap is not None or sample_weight is not None or normalizer is not None
    if extras or z_loss is None or out_dtype is not None:
        _check_extras(z_loss, softcap, sample_weight, normalizer, out_dtype, input, target)
    if normalizer is not None and not isinstance(normalizer, Tensor):
        normalizer = torch.full((), float(normalizer), dtype=torch.float64, device=getattr(input, "device", None))
    args = (input, target, weight, sample_weight, normalizer)
    if input is None or target is None or not plain(*args):
        names = ("input", "target", "weight", "sample_weight", "normalizer")
        reason: str | None = why_not_plain(**dict(zip(names, args, strict=True)))
    else:
        input, target = _as_autocast(input, target)
        out_dtype = out_dtype or autocast_dtype(input)
        args = (input, target, weight, sample_weight, normalizer)
        reason = _refusal(*args, reduction, ignore_index, label_smoothing)
    if reason and not (extras or out_dtype is not None or return_stats):
        loss = torchs(TF.cross_entropy)(
            input, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )
        note_fallback(NAME, reason, input)
        return loss
    return _general(args, reason, reduction, ignore_index, label_smoothing, z_loss, softcap, out_dtype,
                    inplace_backward, return_stats)  # fmt: skip


def _general(args, reason, reduction, ignore_index, label_smoothing, z_loss, softcap, out_dtype, inplace_backward,
             return_stats) -> Any:  # fmt: skip
    """The call whose arguments have been looked at, by a kernel unless there is a reason against it."""
    input, target, weight, sample_weight, normalizer = args
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    options = Options(
        REDUCTIONS[reduction], ignore_index, label_smoothing, float(z_loss), softcap or 0.0, out_dtype or input.dtype
    )
    if z_loss and weight is not None and normalizer is None and reduction == "mean" and not target.is_floating_point():
        weight, normalizer = weights_beside_z_loss(target, weight, sample_weight, ignore_index, input)
    args = (input, target, weight, sample_weight, normalizer)
    if reason:
        result = composite_with_stats(args, options, return_stats)
        note_fallback(NAME, reason, input)
        return result
    note(NAME)
    try:
        return _fused(args, options, inplace_backward, return_stats)
    except RuntimeError as error:
        if "is out of bounds" in str(error):
            TF.cross_entropy(input, target.long(), ignore_index=ignore_index)  # torch's IndexError
        raise


def _fused(args: tuple, options: Options, inplace_backward: bool, return_stats: bool) -> Any:
    input, target = args[0], args[1]
    needs_grad = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    place = None
    if needs_grad and inplace_backward and not torch.compiler.is_compiling():
        _check_in_place(input, target, options)
        place = _place_of(input)
    if not needs_grad:
        loss, *numbers = run(args, options, (False, False), return_stats)
    elif place is not None:
        loss, *numbers, _ = CrossEntropyInPlace.apply(place[0], *args[1:], place[1], options, return_stats)
    else:
        loss, *numbers = apply(*args, *options, return_stats)
    if options.reduction == REDUCTIONS["none"] and input.dim() != 2:
        loss = loss.reshape(rows_of(input))
    return (loss, stats_of(input, target, options, *numbers)) if return_stats else loss


def _place_of(input: Tensor) -> tuple[Tensor, tuple | None] | None:
    """The tensor that owns the logits' memory, and the logits' place in it; None if a gradient has none there.

    A view must cover its base: elsewhere the base's gradient is 0, and its memory is not.
    """
    base = input._base
    if (input if base is None else base).retains_grad:  # autograd cannot move that on to the changed tensor
        return None
    if base is None:
        return input, None
    apart = torch._debug_has_internal_overlap(input) == 0 and torch._debug_has_internal_overlap(base) == 0
    if base.requires_grad and base.numel() == input.numel() and base.dtype == input.dtype and apart:
        return base, (input.shape, input.stride(), input.storage_offset())
    return None


def _check_in_place(input: Tensor, target: Tensor, options: Options) -> None:
    owner = input if input._base is None else input._base
    if owner.is_leaf and owner.requires_grad:
        raise RuntimeError(
            "cross_entropy: a leaf tensor that requires grad cannot be overwritten with its gradient "
            "(inplace_backward=True); pass the logits a model computed, or call without inplace_backward"
        )
    if options.reduction == REDUCTIONS["none"] or target.is_floating_point():
        raise ValueError(
            "cross_entropy: inplace_backward=True needs class targets and reduction 'mean' or 'sum', got reduction "
            f"{REDUCTION_NAMES[options.reduction]!r} and targets of {target.dtype}"
        )

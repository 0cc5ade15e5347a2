"""Cross entropy: one sweep over the logits gives the loss and the gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fused_ml.nn import _originals as TF
from fused_ml.nn._cross_entropy_autograd import CrossEntropyInPlace, apply, apply_common, op, run
from fused_ml.nn._cross_entropy_by_torch import Options, by_torch, stats_of
from fused_ml.nn._support import (
    CLASS_INDEX,
    FLOATING,
    PLAIN,
    REDUCTIONS,
    autocast_dtype,
    no_transforms,
    plain,
    resolve_reduction,
)

_SUMMED = {name: code for name, code in REDUCTIONS.items() if name != "none"}


def _common(input: Tensor, target: Tensor, reduction: str, ignore_index: int) -> Tensor | None:
    """The common call's loss, or None where it is not so common: a small call's time is mostly Python's.

    What the operator refuses (layouts, shapes, types) is left to the checks of the general call, and so to torch's own
    errors.
    """
    code = _SUMMED.get(reduction)
    if (
        code is None
        or torch.compiler.is_compiling()
        or type(input) not in PLAIN
        or type(target) is not Tensor
        or target.dtype not in CLASS_INDEX
        or not (no_transforms() if input.is_cpu and target.is_cpu else plain(input, target))
        or autocast_dtype(input) is not None
    ):
        return None
    try:
        if input.requires_grad and torch.is_grad_enabled():
            return apply_common(input, target, (code, ignore_index))
        return op(input, target, code, ignore_index, False)[0]
    except RuntimeError:
        return None


def _fusable(input: Any, target: Any, weight: Any, sample_weight: Any, normalizer: Any, o: Options) -> bool:
    """Whether the kernel takes the call as it is. What it does not take, torch answers or refuses."""
    if input is None or target is None or not plain(input, target, weight, sample_weight, normalizer):
        return False
    dims = input.dim()
    if input.dtype not in FLOATING or dims == 0 or input.numel() == 0 or o.reduction not in REDUCTIONS:
        return False
    if not 0.0 <= o.label_smoothing <= 1.0:
        return False
    shape, class_dim = input.shape, 1 if dims > 1 else 0
    if target.dtype in CLASS_INDEX:
        if target.dim() != dims - 1 or target.shape != shape[:class_dim] + shape[class_dim + 1 :]:
            return False
    elif target.dtype != input.dtype or target.shape != shape or o.ignore_index >= 0:
        return False
    if weight is None and sample_weight is None and normalizer is None:
        return True
    if weight is not None and (
        weight.dtype != input.dtype or weight.shape != (shape[class_dim],) or weight.requires_grad
    ):
        return False
    rows = shape[:class_dim] + shape[class_dim + 1 :]
    if sample_weight is not None and (sample_weight.shape != rows or sample_weight.requires_grad):
        return False
    return normalizer is None or not normalizer.requires_grad


def _check_extras(z_loss: Any, softcap: Any, sample_weight: Any, normalizer: Any, out_dtype: Any, input: Any,
                  target: Any) -> None:  # fmt: skip
    if not (z_loss >= 0):
        raise ValueError(f"cross_entropy: expected z_loss >= 0, got {z_loss}")
    if softcap is not None and not (0 < softcap < float("inf")):
        raise ValueError(f"cross_entropy: expected a finite softcap > 0 or None, got {softcap}")
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"cross_entropy: expected a floating point out_dtype, got {out_dtype}")
    if sample_weight is not None:
        rows = target.shape if not target.is_floating_point() else target.shape[:1] + target.shape[2:]
        rows = rows if input.dim() > 1 else torch.Size(())
        if sample_weight.shape != rows:
            raise ValueError(
                f"cross_entropy: expected sample_weight of shape {tuple(rows)}, a weight for each target, got "
                f"{tuple(sample_weight.shape)}"
            )
    if isinstance(normalizer, Tensor) and normalizer.dim() != 0:
        raise ValueError(
            f"cross_entropy: expected normalizer to be a number or a 0-d tensor, got shape {tuple(normalizer.shape)}"
        )


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
            scales it.
        softcap: replaces the logits by ``softcap * tanh(input / softcap)`` (Gemma 2, 2024, arXiv:2408.00118).
        sample_weight: a weight for each row, of the target's shape (one number a row); it multiplies the row's loss,
            and ``"mean"`` divides by the sum of the weights of class and row.
        normalizer: a number or 0-d tensor that replaces ``"mean"``'s denominator, for gradient accumulation.
        out_dtype: the loss's dtype, if not the input's.
        inplace_backward: write the gradient over the logits, which a plain backward then returns: no memory beyond
            them. Not for a leaf that requires grad, nor for second derivatives. Ignored under ``torch.compile``.
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
        label_smoothing or z_loss or inplace_backward or return_stats
    ):
        loss = _common(input, target, reduction, ignore_index)
        if loss is not None:
            return loss
    reduction = resolve_reduction(reduction, size_average, reduce)
    extras = bool(z_loss) or softcap is not None or sample_weight is not None or normalizer is not None
    if extras or out_dtype is not None:
        _check_extras(z_loss, softcap, sample_weight, normalizer, out_dtype, input, target)
    if normalizer is not None and not isinstance(normalizer, Tensor):
        normalizer = torch.full((), float(normalizer), dtype=torch.float64, device=getattr(input, "device", None))
    if isinstance(input, Tensor):
        out_dtype = out_dtype or autocast_dtype(input)
    extras = extras or out_dtype is not None
    loss_dtype: torch.dtype = out_dtype or (input.dtype if isinstance(input, Tensor) else torch.float32)
    options = Options(
        reduction,
        ignore_index,
        label_smoothing,
        float(z_loss),
        softcap or 0.0,
        loss_dtype,
    )
    args = (input, target, weight, sample_weight, normalizer)
    if not _fusable(*args, options):
        return by_torch(args, options, extras, return_stats)
    try:
        return _fused(args, options, inplace_backward, return_stats)
    except RuntimeError as error:
        if "is out of bounds" in str(error):
            TF.cross_entropy(input, target.long(), weight, ignore_index=ignore_index)  # torch's IndexError
        raise


def _fused(args: tuple, options: Options, inplace_backward: bool, return_stats: bool) -> Any:
    input, target = args[0], args[1]
    needs_grad = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    numbers: Any = ()
    if not needs_grad:
        loss, *numbers = run(args, options, (False, False), return_stats)
    elif inplace_backward and not torch.compiler.is_compiling():
        _check_in_place(input, target, options)
        loss, *numbers, _ = CrossEntropyInPlace.apply(*args, options, return_stats)
    elif return_stats:
        loss, *numbers = apply(*args, options, True)
    else:
        loss = apply(*args, options, False)
    if options.reduction == "none" and input.dim() != 2:
        loss = loss.reshape(input.shape[:1] + input.shape[2:] if input.dim() > 1 else ())
    return (loss, stats_of(input, target, options, *numbers)) if return_stats else loss


def _check_in_place(input: Tensor, target: Tensor, options: Options) -> None:
    if input.is_leaf and input.requires_grad:
        raise RuntimeError(
            "cross_entropy: a leaf tensor that requires grad cannot be overwritten with its gradient "
            "(inplace_backward=True); pass the logits a model computed, or call without inplace_backward"
        )
    if options.reduction == "none" or target.is_floating_point():
        raise ValueError(
            "cross_entropy: inplace_backward=True needs class targets and reduction 'mean' or 'sum', got reduction "
            f"{options.reduction!r} and targets of {target.dtype}"
        )

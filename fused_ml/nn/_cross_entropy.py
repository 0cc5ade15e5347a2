"""Cross entropy: one sweep over the logits gives the loss and the gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    scale_gradient,
)

_op = torch.ops.fused_ml.cross_entropy.default
_op_in_place = torch.ops.fused_ml.cross_entropy_.default


class CrossEntropyStats(NamedTuple):
    """What a cross-entropy sweep also knows, each of the target's shape (one number a row)."""

    lse: Tensor
    """log-sum-exp of the logits; float32, float64 for float64 logits."""
    predicted: Tensor
    """int64; the first class with the largest logit."""
    correct: Tensor
    """bool; predicted is the target (the target's likeliest class) and the row is not ignored."""


class _Options(NamedTuple):
    reduction: str
    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float
    loss_dtype: torch.dtype


def _composite(
    input: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None,
    normalizer: Tensor | None, o: _Options,
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


def _run(
    inputs: Any, o: _Options, grads: tuple[bool, bool], stats: bool, upstream: Tensor | None = None
) -> list[Tensor]:
    """Loss, gradient of the input, of the target, log-sum-exp, predicted: those asked for."""
    input, target, weight, sample_weight, normalizer = inputs
    return _op(
        input, target, weight, sample_weight, normalizer, upstream, REDUCTIONS[o.reduction], o.ignore_index,
        o.label_smoothing, o.z_loss, o.softcap, o.loss_dtype, grads[0], grads[1], stats,
    )  # fmt: skip


class _CrossEntropy(Function):
    """mean and sum compute the gradient in forward, where the logits are in cache; none computes it in backward."""

    @staticmethod
    def forward(ctx, input, target, weight, sample_weight, normalizer, options, stats):
        ctx.options = options
        inputs = (input, target, weight, sample_weight, normalizer)
        grads = ctx.needs_input_grad[:2] if options.reduction != "none" else (False, False)
        found = iter(_run(inputs, options, grads, stats))
        loss = next(found)
        ctx.save_for_backward(
            *inputs,
            next(found) if grads[0] else None,
            next(found) if grads[1] else None,
        )
        if not stats:
            return loss
        lse, predicted = found
        ctx.mark_non_differentiable(lse, predicted)
        return loss, lse, predicted

    @staticmethod
    def backward(ctx, upstream, *_):
        *inputs, grad_input, grad_target = ctx.saved_tensors
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _differentiable_backward(inputs, needs, ctx.options, upstream)
        if ctx.options.reduction == "none":
            found = iter(_run(inputs, ctx.options, needs[:2], False, upstream.reshape(-1)))
            next(found)
            grad_input = next(found) if needs[0] else None
            grad_target = next(found) if needs[1] else None
        else:
            grad_input = scale_gradient(grad_input, upstream) if needs[0] else None
            grad_target = scale_gradient(grad_target, upstream) if needs[1] else None
        return grad_input, grad_target, None, None, None, None, None


_apply = applier(_CrossEntropy)


def _differentiable_backward(inputs: list, needs: tuple, options: _Options, upstream: Tensor) -> tuple:
    """The same gradients as functions of the inputs and of upstream (create_graph=True)."""
    wanted = [t for t, need in zip(inputs[:2], needs[:2], strict=True) if need]
    loss = _composite(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], options)
    grads = iter(torch.autograd.grad(loss, wanted, upstream.reshape(loss.shape), create_graph=True))
    return (*(next(grads) if need else None for need in needs[:2]), *(None,) * 5)


class _CrossEntropyInPlace(Function):
    """The gradient is written over the logits, which are marked dirty: no memory beyond them."""

    @staticmethod
    def forward(ctx, input, target, weight, sample_weight, normalizer, o, stats):
        ctx.set_materialize_grads(False)
        loss, lse, predicted = _op_in_place(
            input, target, weight, sample_weight, normalizer, REDUCTIONS[o.reduction], o.ignore_index,
            o.label_smoothing, o.z_loss, o.softcap, o.loss_dtype, stats,
        )  # fmt: skip
        ctx.mark_dirty(input)
        ctx.mark_non_differentiable(lse, predicted)
        ctx.save_for_backward(input.detach())
        return loss, lse, predicted, input

    @staticmethod
    def backward(ctx, upstream, _lse, _predicted, over_input):
        if torch.is_grad_enabled() or over_input is not None:
            raise RuntimeError(
                "cross_entropy with inplace_backward=True overwrote the logits with their gradient: expected one plain "
                "backward through the loss, got a second derivative or another use of the logits. Call without "
                "inplace_backward."
            )
        if upstream is None:
            return (None,) * 7
        (grad,) = ctx.saved_tensors
        return (scale_gradient(grad, upstream), *(None,) * 6)


def _fusable(input: Any, target: Any, weight: Any, sample_weight: Any, normalizer: Any, o: _Options) -> bool:
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
    reduction = resolve_reduction(reduction, size_average, reduce)
    extras = bool(z_loss) or softcap is not None or sample_weight is not None or normalizer is not None
    if extras or out_dtype is not None:
        _check_extras(z_loss, softcap, sample_weight, normalizer, out_dtype, input, target)
    if normalizer is not None and not isinstance(normalizer, Tensor):
        normalizer = torch.tensor(float(normalizer), dtype=torch.float64)
    if isinstance(input, Tensor):
        out_dtype = out_dtype or autocast_dtype(input)
    extras = extras or out_dtype is not None
    loss_dtype: torch.dtype = out_dtype or (input.dtype if isinstance(input, Tensor) else torch.float32)
    options = _Options(
        reduction,
        ignore_index,
        label_smoothing,
        float(z_loss),
        softcap or 0.0,
        loss_dtype,
    )
    args = (input, target, weight, sample_weight, normalizer)
    if not _fusable(*args, options):
        return _by_torch(args, options, extras, return_stats)
    try:
        return _fused(args, options, inplace_backward, return_stats)
    except RuntimeError as error:
        if "is out of bounds" in str(error):
            TF.cross_entropy(input, target.long(), weight, ignore_index=ignore_index)  # torch's IndexError
        raise


def _fused(args: tuple, options: _Options, inplace_backward: bool, return_stats: bool) -> Any:
    input, target = args[0], args[1]
    needs_grad = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    numbers: Any = ()
    if not needs_grad:
        loss, *numbers = _run(args, options, (False, False), return_stats)
    elif inplace_backward and not torch.compiler.is_compiling():
        _check_in_place(input, target, options)
        loss, *numbers, _ = _CrossEntropyInPlace.apply(*args, options, return_stats)
    elif return_stats:
        loss, *numbers = _apply(*args, options, True)
    else:
        loss = _apply(*args, options, False)
    if options.reduction == "none" and input.dim() != 2:
        loss = loss.reshape(input.shape[:1] + input.shape[2:] if input.dim() > 1 else ())
    return (loss, _stats(input, target, options, *numbers)) if return_stats else loss


def _check_in_place(input: Tensor, target: Tensor, options: _Options) -> None:
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


def _stats(input: Tensor, target: Tensor, o: _Options, lse: Tensor, predicted: Tensor) -> CrossEntropyStats:
    rows = input.shape[:1] + input.shape[2:] if input.dim() > 1 else torch.Size(())
    predicted = predicted.reshape(rows)
    if target.is_floating_point():
        correct = predicted == target.argmax(1 if input.dim() > 1 else 0)
    else:
        correct = (predicted == target) & (target != o.ignore_index)
    return CrossEntropyStats(lse.reshape(rows), predicted, correct)


def _by_torch(args: tuple, o: _Options, extras: bool, return_stats: bool) -> Any:
    """The call as torch answers it: with its errors if it is a bad one."""
    input, target, weight = args[:3]
    if not extras and not return_stats:
        loss = TF.cross_entropy(
            input, target, weight, ignore_index=o.ignore_index, reduction=o.reduction,
            label_smoothing=o.label_smoothing,
        )  # fmt: skip
        note_fallback("nn.functional.cross_entropy", input)
        return loss
    loss = _composite(input, target, weight, args[3], args[4], o)
    note_fallback("nn.functional.cross_entropy", input)
    if not return_stats:
        return loss
    class_dim = 1 if input.dim() > 1 else 0
    logits = o.softcap * torch.tanh(input.detach() / o.softcap) if o.softcap else input.detach()
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return loss, _stats(input, target, o, logits.logsumexp(class_dim), logits.argmax(class_dim))

"""Cross entropy's autograd Functions: what forward computes for backward, and what backward does with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml.nn._cross_entropy_by_torch import Options, composite
from fused_ml.nn._support import REDUCTIONS, applier, direct_applier, scale_gradient

op = torch.ops.fused_ml.cross_entropy.default
op_in_place = torch.ops.fused_ml.cross_entropy_.default


def run(inputs: Any, o: Options, grads: tuple[bool, bool], stats: bool, upstream: Tensor | None = None) -> list[Tensor]:
    """Loss, gradient of the input, of the target, log-sum-exp, predicted: those asked for."""
    input, target, weight, sample_weight, normalizer = inputs
    return op(
        input, target, REDUCTIONS[o.reduction], o.ignore_index, grads[0], stats, o.loss_dtype, weight,
        o.label_smoothing, o.z_loss, o.softcap, sample_weight, normalizer, grads[1], upstream,
    )  # fmt: skip


class CrossEntropy(Function):
    """mean and sum compute the gradient in forward, where the logits are in cache; none computes it in backward."""

    @staticmethod
    def forward(ctx, input, target, weight, sample_weight, normalizer, options, stats):
        ctx.options = options
        inputs = (input, target, weight, sample_weight, normalizer)
        grads = ctx.needs_input_grad[:2] if options.reduction != "none" else (False, False)
        found = iter(run(inputs, options, grads, stats))
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
            found = iter(run(inputs, ctx.options, needs[:2], False, upstream.reshape(-1)))
            next(found)
            grad_input = next(found) if needs[0] else None
            grad_target = next(found) if needs[1] else None
        else:
            grad_input = scale_gradient(grad_input, upstream) if needs[0] else None
            grad_target = scale_gradient(grad_target, upstream) if needs[1] else None
        return grad_input, grad_target, None, None, None, None, None


apply = applier(CrossEntropy)


class ClassCrossEntropy(Function):
    """The common call: a mean or sum over classes and no option but ignore_index.

    The call is one argument: each costs 0.2 us, and each its None in backward.
    """

    @staticmethod
    def forward(ctx, input, target, call):
        code, ignore_index = call
        loss, grad_input = op(input, target, code, ignore_index, True)
        ctx.save_for_backward(input, target, grad_input)
        ctx.call = call
        return loss

    @staticmethod
    def backward(ctx, upstream):
        input, target, grad_input = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return scale_gradient(grad_input, upstream), None, None
        code, ignore_index = ctx.call
        options = Options("mean" if code == REDUCTIONS["mean"] else "sum", ignore_index, 0.0, 0.0, 0.0, input.dtype)
        return _differentiable_backward([input, target, None, None, None], (True, False), options, upstream)[:3]


apply_common = direct_applier(ClassCrossEntropy)


def _differentiable_backward(inputs: list, needs: tuple, options: Options, upstream: Tensor) -> tuple:
    """The same gradients as functions of the inputs and of upstream (create_graph=True)."""
    wanted = [t for t, need in zip(inputs[:2], needs[:2], strict=True) if need]
    loss = composite(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], options)
    grads = iter(torch.autograd.grad(loss, wanted, upstream.reshape(loss.shape), create_graph=True))
    return (*(next(grads) if need else None for need in needs[:2]), *(None,) * 5)


class CrossEntropyInPlace(Function):
    """The gradient is written over the logits, which are marked dirty: no memory beyond them."""

    @staticmethod
    def forward(ctx, input, target, weight, sample_weight, normalizer, o, stats):
        ctx.set_materialize_grads(False)
        loss, lse, predicted = op_in_place(
            input, target, REDUCTIONS[o.reduction], o.ignore_index, stats, o.loss_dtype, weight,
            o.label_smoothing, o.z_loss, o.softcap, sample_weight, normalizer,
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

"""Cross entropy's autograd Functions: what forward computes for backward, and what backward does with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.graph import increment_version

from fused_ml.nn._calls import applier, by_composite, direct_applier, kernels_go_back
from fused_ml.nn._cross_entropy_by_torch import Options, composite
from fused_ml.nn._support import REDUCTIONS, gradients_in_forward, keeps_graph, scale_gradient

NAME = "nn.functional.cross_entropy"
op = torch.ops.fused_ml.cross_entropy.default
op_in_place = torch.ops.fused_ml.cross_entropy_.default


def run(inputs: Any, o: Options, grads: tuple[bool, bool], stats: bool, upstream: Tensor | None = None) -> list[Tensor]:
    """Loss, gradient of the input, of the target, log-sum-exp, predicted: those asked for."""
    input, target, weight, sample_weight, normalizer = inputs
    return op(
        input, target, o.reduction, o.ignore_index, grads[0], stats, o.loss_dtype, weight,
        o.label_smoothing, o.z_loss, o.softcap, sample_weight, normalizer, grads[1], upstream,
    )  # fmt: skip


def _gradients(inputs: list, o: Options, needs: tuple[bool, bool], upstream: Tensor) -> list[Tensor | None]:
    """By a sweep of their own."""
    found = iter(run(inputs, o, needs, False, upstream if o.reduction else upstream.reshape(-1)))
    next(found)
    return [next(found) if need else None for need in needs]


class CrossEntropy(Function):
    """mean and sum compute the gradient in forward, where the logits are in cache; none, and float16, in backward."""

    @staticmethod
    def forward(ctx, input, target, weight, sample_weight, normalizer, options, stats):
        ctx.options = options
        inputs = (input, target, weight, sample_weight, normalizer)
        needs = ctx.needs_input_grad[:2]
        ctx.now = options.reduction != REDUCTIONS["none"] and gradients_in_forward(inputs, needs)
        found = iter(run(inputs, options, needs if ctx.now else (False, False), stats))
        loss = next(found)
        ctx.save_for_backward(*inputs, *(next(found) if ctx.now and need else None for need in needs))
        if not stats:
            return loss
        lse, predicted = found
        ctx.mark_non_differentiable(lse, predicted)
        return loss, lse, predicted

    @staticmethod
    def backward(ctx, upstream, *_):
        *inputs, grad_input, grad_target = ctx.saved_tensors
        needs, options = ctx.needs_input_grad[:2], ctx.options
        if not kernels_go_back(NAME, upstream):
            weights = (*inputs[2:], options)
            grads = by_composite(lambda x, t: composite(x, t, *weights), inputs[:2], needs, upstream)
        elif ctx.now:
            grads = [scale_gradient(g, upstream) if g is not None else None for g in (grad_input, grad_target)]
        else:
            grads = _gradients(inputs, options, needs, upstream)
        return (*grads, *(None,) * 5)


def _call(input, target, weight, sample_weight, normalizer, *rest) -> list[Tensor]:
    *options, stats = rest
    found = CrossEntropy.apply(input, target, weight, sample_weight, normalizer, Options(*options), stats)
    return list(found) if stats else [found]


apply = applier(
    CrossEntropy,
    "cross_entropy(Tensor input, Tensor target, Tensor? weight, Tensor? sample_weight, Tensor? normalizer, "
    "int reduction, int ignore_index, float label_smoothing, float z_loss, float softcap, ScalarType loss_dtype, "
    "bool stats) -> Tensor[]",
    _call,
)


class ClassCrossEntropy(Function):
    """The common call: a mean or sum over classes, not in float16, and no option but ignore_index.

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
        if kernels_go_back(NAME, upstream):
            return scale_gradient(grad_input, upstream), None, None
        code, ignore_index = ctx.call
        options = Options(code, ignore_index, 0.0, 0.0, 0.0, input.dtype)
        (grad,) = by_composite(lambda x: composite(x, target, None, None, None, options), [input], (True,), upstream)
        return grad, None, None


apply_common = direct_applier(ClassCrossEntropy)


class CrossEntropyInPlace(Function):
    """The gradient is written over the logits, which are marked dirty: no memory beyond them.

    `base` is the tensor that owns the logits' memory, and `view` says where in it they lie (sizes, strides, offset),
    or is None: autograd lets a Function change a whole tensor only. The gradient takes its place, element by element.
    """

    @staticmethod
    def forward(ctx, base, target, weight, sample_weight, normalizer, view, o, stats):
        ctx.set_materialize_grads(False)
        logits = _logits(base, view)
        inputs = (target, weight, sample_weight, normalizer)
        ctx.now = gradients_in_forward([base], [True])
        if ctx.now:
            loss, lse, predicted = _over(logits, inputs, o, stats)
            ctx.save_for_backward(base.detach())
        else:  # the logits stay until backward, but nobody else may count on them any more
            loss, *numbers = run((logits, *inputs), o, (False, False), stats)
            lse, predicted = numbers or (base.new_empty(0), base.new_empty(0))
            increment_version(base)
            ctx.save_for_backward(base.detach(), *inputs)
        ctx.view, ctx.options = view, o
        ctx.mark_dirty(base)
        ctx.mark_non_differentiable(lse, predicted)
        return loss, lse, predicted, base

    @staticmethod
    def backward(ctx, upstream, _lse, _predicted, over_input):
        if upstream is None and over_input is None:
            return (None,) * 8
        if over_input is not None or not kernels_go_back(NAME, upstream):
            raise RuntimeError(
                "cross_entropy with inplace_backward=True overwrote the logits with their gradient: expected one plain "
                "backward through the loss, got a second derivative, a batched gradient or another use of the logits. "
                "Call without inplace_backward."
            )
        base, *inputs = ctx.saved_tensors
        if ctx.now:
            return (scale_gradient(base, upstream), *(None,) * 7)
        if keeps_graph():
            base = base.clone(memory_format=torch.preserve_format)
        _over(_logits(base, ctx.view), inputs, ctx.options, False, upstream)
        return (base, *(None,) * 7)


def _logits(base: Tensor, view: tuple | None) -> Tensor:
    return base if view is None else base.as_strided(*view)


def _over(logits: Tensor, inputs: Any, o: Options, stats: bool, upstream: Tensor | None = None) -> tuple:
    """Write the gradient over the logits; loss, log-sum-exp and predicted."""
    target, weight, sample_weight, normalizer = inputs
    return op_in_place(
        logits, target, o.reduction, o.ignore_index, stats, o.loss_dtype, weight, o.label_smoothing, o.z_loss,
        o.softcap, sample_weight, normalizer, upstream,
    )  # fmt: skip

"""What a pointwise operator does around its kernel, written once for each kind: activations, and losses.

A row of csrc/catalog/pointwise.h becomes a function by one object here: :class:`Activation` or :class:`Loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.library import register_fake

from fused_ml._explain import note
from fused_ml.nn._calls import applier, by_composite, kernels_go_back, plain, torchs, why_not_plain
from fused_ml.nn._support import (
    FLOATING,
    FLOATING_NAMES,
    REDUCTIONS,
    autocast_dtype,
    gradients_in_forward,
    note_fallback,
    scale_gradient,
    widened,
)

_MAX_DIMS = 8  # kMaxDims in csrc/frames/arguments.h


def refusal_of_input(input: Tensor) -> str | None:
    """Why no kernel takes this tensor, which is plain, or None."""
    if input.dtype in FLOATING and input.numel() and input.dim() <= _MAX_DIMS:
        return None
    return f"input must be {FLOATING_NAMES}, of one element or more and at most {_MAX_DIMS} dimensions"


def refusal_of_reduction(reduction: Any) -> str | None:
    if isinstance(reduction, str) and reduction in REDUCTIONS:
        return None
    return "reduction must be 'none', 'mean' or 'sum'"


class _Row:
    """A formula's operator, and the same function from torch's operations.

    `original`: torch's function, by default that of the same name: it answers what no kernel takes, and higher
    derivatives are its. It is called with the formula's options by name. `takes`: whether the formula holds for these
    options; torch refuses the others. `public`: the name of the function, if that is not the operator's.
    """

    def __init__(
        self,
        name: str,
        arguments: int,
        original: Callable[..., Tensor] | None,
        takes: Callable[..., bool] | None,
        public: str | None,
    ) -> None:
        self._takes = takes
        self.name = name
        self.public = f"nn.functional.{public or name}"
        self.op = getattr(torch.ops.fused_ml, name).default
        self.options = tuple(argument.name for argument in self.op._schema.arguments[arguments:])
        self.original: Callable[..., Tensor] = original or getattr(torch.nn.functional, name)

    def schema(self, arguments: str) -> str:
        """Of the differentiable operator that torch.compile sees."""
        return f"{self.name}({arguments}{''.join(f', float {option}' for option in self.options)}) -> Tensor"

    def refusal_of_options(self, options: tuple[Any, ...]) -> str | None:
        for option, value in zip(self.options, options, strict=True):
            if type(value) is not float and type(value) is not int:
                return f"{option} must be a number"
        if self._takes is None or self._takes(*options):
            return None
        return f"{' or '.join(self.options)} is out of range"

    def by_torch(self, reason: str, *args: Any, options: tuple[float, ...], **more: Any) -> Tensor:
        result = torchs(self.original)(*args, **self.named(options), **more)
        note_fallback(self.public, reason, args[0])
        return result

    def named(self, options: tuple[float, ...]) -> dict[str, float]:
        return dict(zip(self.options, options, strict=True))


class Activation(_Row):
    """An activation, called with an input and the formula's options in their order.

    `contiguous`: the result is, whatever the input (kContiguous in the formula).
    """

    def __init__(
        self,
        name: str,
        original: Callable[..., Tensor] | None = None,
        *,
        takes: Callable[..., bool] | None = None,
        contiguous: bool = False,
        public: str | None = None,
    ) -> None:
        super().__init__(name, 1, original, takes, public)
        self.backward = getattr(torch.ops.fused_ml, f"{name}_backward").default
        self._apply = applier(_activated(self), self.schema("Tensor input"))
        form = torch.contiguous_format if contiguous else torch.preserve_format
        register_fake(f"fused_ml::{name}")(lambda input, *_: torch.empty_like(input, memory_format=form))
        register_fake(f"fused_ml::{name}_backward")(lambda grad, saved, *_: torch.empty_like(saved))

    def __call__(self, input: Tensor, *options: float, **more: Any) -> Tensor:
        """`more`: what torch alone takes, where it is given."""
        if reason := self._refusal(input, more) or self.refusal_of_options(options):
            return self.by_torch(reason, input, options=options, **more)
        note(self.public)
        if torch.is_grad_enabled() and input.requires_grad:
            result: Tensor = self._apply(input, *options)
            return result
        result = self.op(input, *options)
        return result

    def _refusal(self, input: Any, more: dict[str, Any]) -> str | None:
        if more:
            return f"{', '.join(more)} is given"
        if input is None or not plain(input):
            return why_not_plain(input=input)
        return refusal_of_input(input)

    def composite(self, input: Tensor, options: tuple[float, ...]) -> Tensor:
        return self.original(widened(input), **self.named(options)).to(input.dtype)


def _activated(activation: Activation) -> type[Function]:
    class Activated(Function):
        @staticmethod
        def forward(ctx, input, *options):
            ctx.save_for_backward(input)
            ctx.options = options
            return activation.op(input, *options)

        @staticmethod
        def backward(ctx, grad):
            (input,) = ctx.saved_tensors
            if kernels_go_back(activation.public, grad):
                found = activation.backward(grad, input, *ctx.options)
            else:
                (found,) = by_composite(lambda x: activation.composite(x, ctx.options), [input], [True], grad)
            return found, *(None,) * len(ctx.options)

    return Activated


class Operands(NamedTuple):
    """Of a loss; those behind the target need no gradient."""

    input: Tensor
    target: Tensor
    weight: Tensor | None = None  # of the elements
    pos_weight: Tensor | None = None
    normalizer: Tensor | None = None  # what "mean" divides by, if not by the number of elements


class Reading(NamedTuple):
    """How a loss is reduced, and its type."""

    reduction: int
    dtype: torch.dtype


# (operands, reading, options, loss, gradients of input and target, upstream) -> those asked for, in this order
Run = Callable[[Operands, Reading, tuple[float, ...], bool, tuple[bool, bool], "Tensor | None"], list[Tensor]]
Composite = Callable[[Operands, Reading, tuple[float, ...]], Tensor]
LOSS_ARGUMENTS = (
    "Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, Tensor? normalizer, int reduction, "
    "ScalarType dtype"
)


def differentiable_loss(public: str, run: Run, composite: Composite) -> type[Function]:
    """A loss's autograd Function: mean and sum compute the gradients in forward; none, and float16, in backward.

    `composite` is the same loss from torch's operations, for whatever no kernel differentiates.
    """

    class Lost(Function):
        @staticmethod
        def forward(ctx, input, target, weight, pos_weight, normalizer, reduction, dtype, *options):
            operands = Operands(input, target, weight, pos_weight, normalizer)
            ctx.reading, ctx.options = Reading(reduction, dtype), options
            needs = ctx.needs_input_grad[:2]
            ctx.now = reduction != REDUCTIONS["none"] and gradients_in_forward(operands, needs)
            found = iter(run(operands, ctx.reading, options, True, needs if ctx.now else (False, False), None))
            loss = next(found)
            ctx.save_for_backward(*operands, *(next(found) if ctx.now and need else None for need in needs))
            return loss

        @staticmethod
        def backward(ctx, upstream):
            *saved, grad_input, grad_target = ctx.saved_tensors
            operands, needs = Operands(*saved), ctx.needs_input_grad[:2]
            if not kernels_go_back(public, upstream):

                def loss(input, target):
                    return composite(Operands(input, target, *operands[2:]), ctx.reading, ctx.options)

                grads = by_composite(loss, operands[:2], needs, upstream)
            elif ctx.now:
                grads = [scale_gradient(g, upstream) if g is not None else None for g in (grad_input, grad_target)]
            else:
                found = iter(run(operands, ctx.reading, ctx.options, False, needs, upstream))
                grads = [next(found) if need else None for need in needs]
            return *grads, *(None,) * (len(operands) - 2 + len(ctx.reading) + len(ctx.options))

    return Lost


def reduced(loss: Tensor, operands: Operands, reading: Reading) -> Tensor:
    """The losses of the elements, by torch's operations."""
    if reading.reduction == REDUCTIONS["sum"]:
        loss = loss.sum()
    elif reading.reduction == REDUCTIONS["mean"]:
        loss = loss.mean() if operands.normalizer is None else loss.sum() / operands.normalizer
    return loss.to(reading.dtype)


class Loss(_Row):
    """A loss of an input and a target of one shape and type, with torch's reductions."""

    def __init__(
        self,
        name: str,
        original: Callable[..., Tensor] | None = None,
        *,
        takes: Callable[..., bool] | None = None,
    ) -> None:
        super().__init__(name, 10, original, takes, None)
        self._apply = applier(differentiable_loss(self.public, self.run, self.composite), self.schema(LOSS_ARGUMENTS))
        register_fake(f"fused_ml::{name}")(_fake_loss)

    def __call__(self, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, *options: float) -> Tensor:
        if reason := self._refusal(input, target, weight, reduction) or self.refusal_of_options(options):
            more = {} if weight is None else {"weight": weight}
            return self.by_torch(reason, input, target, options=options, reduction=reduction, **more)
        note(self.public)
        operands = Operands(input, target, weight)
        reading = Reading(REDUCTIONS[reduction], autocast_dtype(input) or input.dtype)
        if torch.is_grad_enabled() and (input.requires_grad or target.requires_grad):
            result: Tensor = self._apply(*operands, *reading, *options)
            return result
        return self.run(operands, reading, options, True, (False, False), None)[0]

    def _refusal(self, input: Any, target: Any, weight: Any, reduction: Any) -> str | None:
        if input is None or target is None or not plain(input, target, weight):
            return why_not_plain(input=input, target=target, weight=weight)
        if reason := refusal_of_reduction(reduction) or refusal_of_input(input):
            return reason
        if target.dtype != input.dtype or target.shape != input.shape:
            return "target must have the input's shape and dtype"
        if weight is None:
            return None
        if weight.dtype != input.dtype or weight.shape != input.shape:
            return "weight must have the input's shape and dtype"
        return "weight requires a gradient, which no kernel computes: detach it" if weight.requires_grad else None

    def run(
        self, operands: Operands, reading: Reading, options: tuple[float, ...], loss: bool, grads: tuple[bool, bool],
        upstream: Tensor | None,
    ) -> list[Tensor]:  # fmt: skip
        input, target, weight, _, normalizer = operands
        found: list[Tensor] = self.op(
            input, target, weight, normalizer, upstream, reading.reduction, reading.dtype, loss, *grads, *options
        )
        return found

    def composite(self, operands: Operands, reading: Reading, options: tuple[float, ...]) -> Tensor:
        input, target = widened(operands.input), widened(operands.target)
        loss = self.original(input, target, reduction="none", **self.named(options))
        return reduced(loss if operands.weight is None else loss * operands.weight, operands, reading)


def fake_loss(input: Tensor, target: Tensor, reading: Reading, loss: bool, grads: tuple[bool, bool]) -> list[Tensor]:
    """What a loss's operator returns, for tracing."""
    results = []
    if loss and reading.reduction == REDUCTIONS["none"]:
        results.append(torch.empty_like(target, dtype=reading.dtype))
    elif loss:
        results.append(input.new_empty((), dtype=reading.dtype))
    if grads[0]:
        results.append(torch.empty_like(input))
    if grads[1]:
        results.append(torch.empty_like(input, dtype=target.dtype))
    return results


def _fake_loss(input, target, weight, normalizer, grad_output, reduction, dtype, loss, grad_input, grad_target, *_):
    return fake_loss(input, target, Reading(reduction, dtype), loss, (grad_input, grad_target))

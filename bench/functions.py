"""Functions forward and backward: the contestants of the rows that are not optimizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.cases import LABELLED, Case, function_of, takes_target
from bench.timing import Step

PADDED_TO = 128  # rows of the padded layout start at multiples of it


def arranged(tensor: Tensor, layout: str) -> Tensor:
    """`tensor`'s numbers in another order in memory."""
    if layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return tensor.t().contiguous().t()
    if layout == "padded":
        rows, columns = tensor.shape
        wide = tensor.new_zeros(rows, -(-columns // PADDED_TO) * PADDED_TO)
        return wide[:, :columns].copy_(tensor)
    return tensor


class Inputs:
    """The tensors of a row, shared by its contestants: logits, further arguments, gradient of the output."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        dtype = getattr(torch, case.dtype)
        self.logits = arranged(torch.randn(case.shape).to(dtype), case.layout).requires_grad_()
        self.plain = self.logits.detach()  # the same without grad: nothing is recorded
        self.args: tuple[Any, ...] = ()
        self.grad_output: Tensor | None = None
        if case.op in LABELLED:
            self.args = (torch.randint(case.shape[1], (case.shape[0], *case.shape[2:])),)
        elif takes_target(case.op):
            self.args = (arranged(torch.rand(case.shape).to(dtype), case.layout),)
        else:
            self.args = (1,) if "softmax" in case.op else ()
            self.grad_output = arranged(torch.randn(case.shape).to(dtype), case.layout)


Function = Callable[..., Tensor]


class ForwardStep(Step):
    """The forward pass of a call that wants no gradient."""

    def __init__(self, function: Function, inputs: Inputs) -> None:
        self.function = function
        self.inputs = inputs
        self.output: Tensor | None = None

    def prepare(self) -> None:
        """Drop the last output."""
        self.output = None

    def call(self) -> None:
        """Forward."""
        self.output = self.function(self.inputs.plain, *self.inputs.args)

    def result(self) -> list[Tensor]:
        """The output of one pass."""
        self.prepare()
        self.call()
        assert self.output is not None
        found = [self.output]
        self.output = None
        return found


class FunctionStep(Step):
    """One forward and backward pass; the gradient is allocated by the pass and becomes that of a leaf."""

    def __init__(self, function: Function, inputs: Inputs) -> None:
        self.function = function
        self.inputs = inputs
        self.output: Tensor | None = None

    def prepare(self) -> None:
        """Drop the last pass's gradient and output."""
        self.output = self.inputs.logits.grad = None

    def forward(self) -> None:
        """The forward pass under grad."""
        self.output = self.function(self.inputs.logits, *self.inputs.args)

    def backward(self) -> None:
        """The backward pass."""
        assert self.output is not None
        self.output.backward(self.inputs.grad_output)

    def call(self) -> None:
        """Forward and backward."""
        self.forward()
        self.backward()

    def result(self) -> list[Tensor]:
        """Output and gradient of one pass, or the output alone of a forward pass."""
        self.inputs.logits.grad = None
        self.prepare()
        self.call()
        assert self.output is not None
        grad = self.inputs.logits.grad
        found = [self.output.detach()] if grad is None else [self.output.detach(), grad]
        self.output = self.inputs.logits.grad = None
        return found


class TrainStep(FunctionStep):
    """The forward pass under grad alone."""

    def call(self) -> None:
        """Forward."""
        self.forward()


class BackwardStep(FunctionStep):
    """The backward pass alone."""

    def prepare(self) -> None:
        """Drop what the last pass left; forward, outside of the clock."""
        super().prepare()
        self.forward()

    def call(self) -> None:
        """Backward."""
        self.backward()


class ReusedStep(FunctionStep):
    """As `FunctionStep`, adding to a gradient that is there: what torch does for a leaf when gradients accumulate."""

    def prepare(self) -> None:
        """Drop the last output; the gradient stays, and grows with every pass."""
        self.output = None
        if self.inputs.logits.grad is None:
            self.inputs.logits.grad = torch.zeros_like(self.inputs.logits)


class _Upstream(torch.autograd.Function):
    """Stands for the layer before the loss: hands out fresh logits, takes the gradient that comes back."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, sink: list[Tensor]) -> Tensor:
        """A copy of `base`."""
        ctx.sink = sink
        return base.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None]:
        """Keep the gradient; nothing is computed from it."""
        ctx.sink.extend(grads)
        return None, None


class RefreshedStep(FunctionStep):
    """As `FunctionStep`, on logits made anew outside of the clock, which the pass may overwrite."""

    def __init__(self, function: Function, inputs: Inputs) -> None:
        super().__init__(function, inputs)
        self.logits: Tensor | None = None
        self.sink: list[Tensor] = []

    def prepare(self) -> None:
        """Drop what the last pass left and copy the logits."""
        self.output = self.logits = None
        self.sink.clear()
        self.logits = _Upstream.apply(self.inputs.logits, self.sink)

    def forward(self) -> None:
        """The forward pass on the copy."""
        self.output = self.function(self.logits, *self.inputs.args)

    def result(self) -> list[Tensor]:
        """Output and gradient of one pass."""
        self.prepare()
        self.call()
        assert self.output is not None
        found = [self.output.detach(), *self.sink]
        self.output = self.logits = None
        self.sink.clear()
        return found


PART_STEPS = {"forward": ForwardStep, "train": TrainStep, "backward": BackwardStep}
VARIANT_STEPS = {"inplace": RefreshedStep, "reused": ReusedStep}


def step(case: Case, function: Function, inputs: Inputs) -> Step:
    """What the row times of `function`: its part, on a gradient of its variant."""
    if case.part != "both":
        return PART_STEPS[case.part](function, inputs)
    return VARIANT_STEPS.get(case.variant, FunctionStep)(function, inputs)


def ours(case: Case, inputs: Inputs) -> Step:
    """Our function."""
    function = function_of(case.op)
    return step(case, partial(function, inplace_backward=True) if case.variant == "inplace" else function, inputs)

"""Forward and backward of a function: the contestants of the rows that are not optimizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.cases import LABELLED, Case

Forward = Callable[[Tensor], Tensor]


class Inputs:
    """The tensors of a row, shared by its contestants: logits, further arguments, gradient of the output."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        dtype = getattr(torch, case.dtype)
        self.logits = torch.randn(case.shape).to(dtype).requires_grad_()
        self.args: tuple[Any, ...] = ()
        self.grad_output: Tensor | None = None
        if case.op in LABELLED:
            self.args = (torch.randint(case.shape[1], (case.shape[0], *case.shape[2:])),)
        elif case.op == "binary_cross_entropy_with_logits":
            self.args = (torch.rand(case.shape).to(dtype),)
        else:
            self.args = (1,) if "softmax" in case.op else ()
            self.grad_output = torch.randn(case.shape).to(dtype)


class FunctionStep:
    """One forward and backward pass; the gradient is allocated by the pass and accumulated in a leaf."""

    def __init__(self, forward: Callable[..., Tensor], inputs: Inputs) -> None:
        self.forward = forward
        self.inputs = inputs
        self.output: Tensor | None = None

    def prepare(self) -> None:
        """Drop the last pass's gradient and output."""
        self.output = self.inputs.logits.grad = None

    def call(self) -> None:
        """Forward and backward."""
        inputs = self.inputs
        self.output = self.forward(inputs.logits, *inputs.args)
        self.output.backward(inputs.grad_output)  # type: ignore[no-untyped-call]

    def result(self) -> list[Tensor]:
        """Output and gradient of one pass."""
        self.prepare()
        self.call()
        assert self.output is not None
        assert self.inputs.logits.grad is not None
        found = [self.output.detach(), self.inputs.logits.grad]
        self.prepare()
        return found


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

    def __init__(self, forward: Callable[..., Tensor], inputs: Inputs) -> None:
        super().__init__(forward, inputs)
        self.logits: Tensor | None = None
        self.sink: list[Tensor] = []

    def prepare(self) -> None:
        """Drop what the last pass left and copy the logits."""
        self.output = self.logits = None
        self.sink.clear()
        self.logits = _Upstream.apply(self.inputs.logits, self.sink)  # type: ignore[no-untyped-call]

    def call(self) -> None:
        """Forward and backward."""
        self.output = self.forward(self.logits, *self.inputs.args)
        self.output.backward()  # type: ignore[no-untyped-call]

    def result(self) -> list[Tensor]:
        """Output and gradient of one pass."""
        self.prepare()
        self.call()
        assert self.output is not None
        found = [self.output.detach(), *self.sink]
        self.release()
        return found

    def release(self) -> None:
        """Hold nothing."""
        self.output = self.logits = None
        self.sink.clear()


def contestants(case: Case) -> dict[str, FunctionStep]:
    """Our function and its peers, by name; the compiled one compiles when it is first called."""
    import fused_ml.nn.functional as fused

    inplace = case.variant == "inplace"
    inputs = Inputs(case)
    make = RefreshedStep if inplace else FunctionStep
    ours = getattr(fused, case.op)
    plain = getattr(torch.nn.functional, case.op)
    steps = {
        "ours": make(partial(ours, inplace_backward=True) if inplace else ours, inputs),
        "eager": make(plain, inputs),
    }
    if "compile" in case.peers:
        torch._dynamo.reset()
        steps["compile"] = make(torch.compile(lambda *args: plain(*args), dynamic=False), inputs)
    return steps

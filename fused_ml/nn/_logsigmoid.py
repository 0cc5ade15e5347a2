"""Log-sigmoid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml._explain import note
from fused_ml.nn import _originals as TF
from fused_ml.nn._calls import applier, kernels_go_back, plain, scripted_as, why_not_plain
from fused_ml.nn._support import FLOATING, FLOATING_NAMES, note_fallback, widened

_NAME = "nn.functional.logsigmoid"
_op = torch.ops.fused_ml.logsigmoid.default
_backward = torch.ops.fused_ml.logsigmoid_backward.default


class _LogSigmoid(Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return _op(input, input.dtype)

    @staticmethod
    def backward(ctx, grad):
        (input,) = ctx.saved_tensors
        if not kernels_go_back(_NAME, grad):
            return (widened(grad) * torch.sigmoid(-widened(input))).to(input.dtype)
        return _backward(grad, input)


_apply = applier(_LogSigmoid, "logsigmoid(Tensor input) -> Tensor")


def _refusal(input: Any, out: Any) -> str | None:
    """Why no kernel takes the call, or None."""
    if out is not None:
        return "out is given"
    if input is None or not plain(input):
        return why_not_plain(input=input)
    return None if input.dtype in FLOATING and input.numel() else f"input must be {FLOATING_NAMES}, and not empty"


def _scripted(input: Tensor) -> Tensor:
    return torch._C._nn.log_sigmoid(input)


@scripted_as(_scripted)
def logsigmoid(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    r"""Log-sigmoid, elementwise: :func:`torch.nn.functional.logsigmoid`.

    :math:`\log \sigma(x) = \min(x, 0) - \log(1 + e^{-|x|})`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16. Other dtypes go to torch.
        out: a tensor for the result, as torch's builtin takes; the call is then torch's.

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        TypeError: ``input`` is no tensor.

    Example::

        >>> logsigmoid(torch.zeros(2))
        tensor([-0.6931, -0.6931])
    """
    if reason := _refusal(input, out):
        result = TF.logsigmoid(input, **({} if out is None else {"out": out}))
        note_fallback(_NAME, reason, input)
        return result
    note(_NAME)
    if torch.is_grad_enabled() and input.requires_grad:
        return _apply(input)
    return _op(input, input.dtype)

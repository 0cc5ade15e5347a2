"""Log-sigmoid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml.nn import _originals as TF
from fused_ml.nn._support import FLOATING, applier, note_fallback, plain

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
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return grad * torch.sigmoid(-input)
        return _backward(grad, input)


_apply = applier(_LogSigmoid)


def logsigmoid(input: Tensor) -> Tensor:
    r"""Log-sigmoid, elementwise: :func:`torch.nn.functional.logsigmoid`.

    :math:`\log \sigma(x) = \min(x, 0) - \log(1 + e^{-|x|})`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16. Other dtypes go to torch.

    Returns:
        A tensor of the input's shape and dtype.

    Raises:
        TypeError: ``input`` is no tensor.

    Example::

        >>> logsigmoid(torch.zeros(2))
        tensor([-0.6931, -0.6931])
    """
    if input is None or not plain(input) or input.dtype not in FLOATING or input.numel() == 0:
        result = TF.logsigmoid(input)
        note_fallback("nn.functional.logsigmoid", input)
        return result
    if torch.is_grad_enabled() and input.requires_grad:
        return _apply(input)
    return _op(input, input.dtype)

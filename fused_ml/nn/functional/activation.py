"""The activations of single elements."""

from __future__ import annotations

import torch
from torch import Tensor

from fused_ml.nn._calls import scripted_as
from fused_ml.nn._pointwise import Activation

__all__ = ["logsigmoid"]

_logsigmoid = Activation("logsigmoid", contiguous=True)


def _log_sigmoid(input: Tensor) -> Tensor:
    return torch._C._nn.log_sigmoid(input)


@scripted_as(_log_sigmoid)
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
    return _logsigmoid(input) if out is None else _logsigmoid(input, out=out)

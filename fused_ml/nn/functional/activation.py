"""The activations of single elements."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fused_ml.nn._calls import scripted_as
from fused_ml.nn._pointwise import Activation

__all__ = ["logsigmoid"]

_logsigmoid = Activation("logsigmoid", contiguous=True)
_gelu = Activation("gelu")
_gelu_tanh = Activation("gelu_tanh", partial(torch._C._nn.gelu, approximate="tanh"), public="gelu")


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


def _torchs_gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    return torch._C._nn.gelu(input, approximate=approximate)


# torch's is faster for some thousand elements: the name fused_ml.nn.functional.gelu is torch's own.
@scripted_as(_torchs_gelu)
def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    r"""Gaussian error linear unit, elementwise: :func:`torch.nn.functional.gelu`, its lower tail to the last digits.

    :math:`x \Phi(x)`, with :math:`\Phi` the normal distribution function; with ``approximate="tanh"``
    :math:`x \, (1 + \tanh(\sqrt{2 / \pi} (x + 0.044715 x^3))) / 2`. Shapes, dtypes and errors: as logsigmoid.

    Source: Hendrycks and Gimpel, `Gaussian Error Linear Units <https://arxiv.org/abs/1606.08415>`_.

    >>> gelu(torch.ones(2))
    tensor([0.8413, 0.8413])
    """
    if approximate == "tanh":
        return _gelu_tanh(input)
    return _gelu(input) if approximate == "none" else _gelu(input, approximate=approximate)

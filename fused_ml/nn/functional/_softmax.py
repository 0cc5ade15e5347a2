"""Softmax, softmin and log-softmax along any dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fused_ml._explain import note
from fused_ml.nn import _originals as TF
from fused_ml.nn._calls import applier, kernels_go_back, plain, scripted_as, torchs, why_not_plain
from fused_ml.nn._support import FLOATING, FLOATING_NAMES, autocasts, note_fallback, widened

__all__ = ["log_softmax", "softmax", "softmin"]

_SOFTMAX, _SOFTMIN, _LOG_SOFTMAX = "nn.functional.softmax", "nn.functional.softmin", "nn.functional.log_softmax"
_softmax = torch.ops.fused_ml.softmax.default
_softmax_backward = torch.ops.fused_ml.softmax_backward.default
_log_softmax = torch.ops.fused_ml.log_softmax.default
_log_softmax_backward = torch.ops.fused_ml.log_softmax_backward.default


class _Softmax(Function):
    @staticmethod
    def forward(ctx, input, dim, negate, dtype):
        output = _softmax(input, dim, negate, dtype)
        ctx.save_for_backward(output)
        ctx.args = dim, negate, input.dtype
        return output

    @staticmethod
    def backward(ctx, grad):
        (output,) = ctx.saved_tensors
        dim, negate, input_dtype = ctx.args
        if not kernels_go_back(_SOFTMIN if negate else _SOFTMAX, grad):
            grad, output = widened(grad), widened(output)
            result = output * (grad - (grad * output).sum(dim, keepdim=True))
            return (-result if negate else result).to(input_dtype), None, None, None
        return _softmax_backward(grad, output, dim, negate, input_dtype), None, None, None


_apply_softmax = applier(_Softmax, "softmax(Tensor input, int dim, bool negate, ScalarType dtype) -> Tensor")


class _LogSoftmax(Function):
    @staticmethod
    def forward(ctx, input, dim, dtype):
        output = _log_softmax(input, dim, dtype)
        ctx.save_for_backward(output)
        ctx.args = dim, input.dtype
        return output

    @staticmethod
    def backward(ctx, grad):
        (output,) = ctx.saved_tensors
        dim, input_dtype = ctx.args
        if not kernels_go_back(_LOG_SOFTMAX, grad):
            grad, output = widened(grad), widened(output)
            return (grad - output.exp() * grad.sum(dim, keepdim=True)).to(input_dtype), None, None
        return _log_softmax_backward(grad, output, dim, input_dtype), None, None


_apply_log_softmax = applier(_LogSoftmax, "log_softmax(Tensor input, int dim, ScalarType dtype) -> Tensor")


def _refusal(input: Any, dim: Any, dtype: Any) -> str | None:
    """Why no kernel takes the call, or None."""
    if input is None or not plain(input):
        return why_not_plain(input=input)
    if input.dtype not in FLOATING:
        return f"input must be {FLOATING_NAMES}"
    if dtype is not None and dtype not in FLOATING:
        return f"dtype must be {FLOATING_NAMES}"
    if input.numel() == 0 or input.dim() == 0:
        return "input is a single number, or empty"
    return None if type(dim) is int and -input.dim() <= dim < input.dim() else "dim must be an int within the range"


def _cast(input: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, torch.dtype]:
    """The input as torch casts it first, but for half types to float32: there the kernel computes in float32 anyway."""
    if dtype is None and input.is_cuda and autocasts(input):  # only there autocast computes softmax in float32
        dtype = torch.promote_types(input.dtype, torch.float32)
    if dtype is None or dtype == input.dtype:
        return input, input.dtype
    if dtype == torch.float32 and input.dtype != torch.float64:
        return input, dtype
    return input.to(dtype), dtype


@scripted_as(TF.softmax)
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    r"""Softmax along a dimension: :func:`torch.nn.functional.softmax`.

    :math:`y_j = e^{x_j - m} / \sum_k e^{x_k - m}`, with :math:`m` the largest element.

    Args:
        input: any shape; float32, float64, bfloat16 or float16. Other dtypes go to torch.
        dim: the dimension that sums to one; None chooses it as torch does, with torch's warning.
        dtype: convert the input to it first, as torch does. Half types to float32 are read as they are.

    Returns:
        A tensor of the input's shape, contiguous, of ``dtype`` or the input's dtype.

    Raises:
        IndexError: ``dim`` is out of range.

    Example::

        >>> softmax(torch.randn(2, 3), dim=1).shape
        torch.Size([2, 3])
    """
    if dim is None and plain(input):
        dim = TF._get_softmax_dim("softmax", input.dim(), _stacklevel)
    if reason := _refusal(input, dim, dtype):
        result = torchs(TF.softmax)(input, dim, _stacklevel + 1, dtype)
        note_fallback(_SOFTMAX, reason, input)
        return result
    assert dim is not None
    return _run_softmax(input, dim, False, dtype)


@scripted_as(TF.softmin)
def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    r"""Softmax of the negated input: :func:`torch.nn.functional.softmin`.

    :math:`y_j = e^{-x_j} / \sum_k e^{-x_k}`, without a pass to negate.

    Args:
        input: any shape; float32, float64, bfloat16 or float16. Other dtypes go to torch.
        dim: the dimension that sums to one; None chooses it as torch does, with torch's warning.
        dtype: convert the input to it first, as torch does. Half types to float32 are read as they are.

    Returns:
        A tensor of the input's shape, contiguous, of ``dtype`` or the input's dtype.

    Raises:
        IndexError: ``dim`` is out of range.

    Example::

        >>> softmin(torch.randn(2, 3), dim=1).shape
        torch.Size([2, 3])
    """
    if dim is None and plain(input):
        dim = TF._get_softmax_dim("softmin", input.dim(), _stacklevel)
    if reason := _refusal(input, dim, dtype):
        result = torchs(TF.softmin)(input, dim, _stacklevel + 1, dtype)
        note_fallback(_SOFTMIN, reason, input)
        return result
    assert dim is not None
    return _run_softmax(input, dim, True, dtype)


def _run_softmax(input: Tensor, dim: int, negate: bool, dtype: torch.dtype | None) -> Tensor:
    note(_SOFTMIN if negate else _SOFTMAX)
    input, dtype = _cast(input, dtype)
    if torch.is_grad_enabled() and input.requires_grad:
        return _apply_softmax(input, dim, negate, dtype)
    return _softmax(input, dim, negate, dtype)


@scripted_as(TF.log_softmax)
def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    r"""Logarithm of softmax along a dimension: :func:`torch.nn.functional.log_softmax`.

    :math:`y_j = (x_j - m) - \log \sum_k e^{x_k - m}`; the largest element's is ``-log1p(others)``, exact to
    the last bits.

    Args:
        input: any shape; float32, float64, bfloat16 or float16. Other dtypes go to torch.
        dim: the dimension that sums to one; None chooses it as torch does, with torch's warning.
        dtype: convert the input to it first, as torch does. Half types to float32 are read as they are.

    Returns:
        A tensor of the input's shape, contiguous, of ``dtype`` or the input's dtype.

    Raises:
        IndexError: ``dim`` is out of range.

    Example::

        >>> log_softmax(torch.randn(2, 3), dim=1).shape
        torch.Size([2, 3])
    """
    if dim is None and plain(input):
        dim = TF._get_softmax_dim("log_softmax", input.dim(), _stacklevel)
    if reason := _refusal(input, dim, dtype):
        result = torchs(TF.log_softmax)(input, dim, _stacklevel + 1, dtype)
        note_fallback(_LOG_SOFTMAX, reason, input)
        return result
    note(_LOG_SOFTMAX)
    input, dtype = _cast(input, dtype)
    if torch.is_grad_enabled() and input.requires_grad:
        return _apply_log_softmax(input, dim, dtype)
    return _log_softmax(input, dim, dtype)

"""What the fused functions share: which tensors the kernels take, reductions, and scaling a saved gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.nn import _reduction

from fused_ml._fallback import warn_fallback
from fused_ml._library import cuda_problem

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
FLOATING = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
CLASS_INDEX = frozenset({torch.uint8, torch.int32, torch.int64})
_NARROW = frozenset({torch.bfloat16, torch.float16})
PLAIN = (Tensor, torch.nn.Parameter)
_STRIDED = torch.strided
_is_compiling = torch.compiler.is_compiling
_transforms = torch._C._functorch.peek_interpreter_stack
_keep_graph = torch._C._autograd._get_current_graph_task_keep_graph


def plain(*tensors: Tensor | None) -> bool:
    """Whether every one is None or a dense tensor that the kernels may read: no subclass, no function transform."""
    for t in tensors:
        if t is not None and (type(t) not in PLAIN or not t.is_cpu or t.layout is not _STRIDED):
            if not _plain_on_cuda(tensors):
                return False
            break
    return _is_compiling() or no_transforms()


def no_transforms() -> bool:
    """Whether neither a function transform nor forward-mode differentiation is under way."""
    return _transforms() is None and forward_ad._current_level < 0


def _plain_on_cuda(tensors: tuple[Tensor | None, ...]) -> bool:
    there = [t for t in tensors if t is not None]
    return not cuda_problem() and all(
        type(t) in PLAIN and t.is_cuda and t.layout is _STRIDED and t.device == there[0].device for t in there
    )


def direct_applier(function: type[Function]) -> Callable[..., Any]:
    """As :func:`applier`, for calls that nobody compiles."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, function)


def applier(function: type[Function]) -> Callable[..., Any]:
    """``function.apply`` without its Python wrapper, which unwraps what :func:`plain` has ruled out (5 us a call)."""
    direct = direct_applier(function)

    def apply(*args: Any) -> Any:
        return function.apply(*args) if _is_compiling() else direct(*args)

    return apply


def note_fallback(name: str, *tensors: object) -> None:
    """Warn if torch is about to answer a call that looks valid."""
    first = tensors[0]
    if isinstance(first, Tensor) and first.numel() and first.is_floating_point():
        reason = "no fused kernel for these dtypes, devices, tensor types or options"
        warn_fallback(name, (cuda_problem() if first.is_cuda else "") or reason)


def resolve_reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """torch's reading of the legacy arguments."""
    if size_average is None and reduce is None:
        return reduction
    return _reduction.legacy_get_string(size_average, reduce)


def autocast_dtype(input: Tensor) -> torch.dtype | None:
    """float32 where torch's autocast would compute a loss of `input` in it, else None."""
    return torch.float32 if input.dtype in _NARROW and torch.is_autocast_enabled(input.device.type) else None


def scale_gradient(grad: Tensor, upstream: Tensor) -> Tensor:
    """`grad * upstream` for a gradient that forward saved and backward hands out.

    In place where nobody will ask for it again, and not at all where upstream is 1.
    """
    if _is_compiling():
        return grad * upstream.to(grad.dtype)
    if _keep_graph():
        return grad * upstream
    if grad.is_cuda:  # not worth waiting for: the kernel looks at the number
        torch.ops.fused_ml.scale_(grad, upstream)
        return grad
    return grad if upstream.item() == 1 else grad.mul_(upstream)

"""What the fused functions share: dtypes, reductions, and the gradient that forward has computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction

from fused_ml._explain import note, warn_fallback
from fused_ml.nn._calls import foreign, is_memory

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
REDUCTION_NAMES = tuple(REDUCTIONS)
FLOATING = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16})
CLASS_INDEX = frozenset({torch.uint8, torch.int32, torch.int64})
FLOATING_NAMES = "float32, float64, bfloat16 or float16"
_NARROW = frozenset({torch.bfloat16, torch.float16})
_SINGLE = _NARROW | {torch.float32}  # computed in float32
_WITH_AUTOCAST = frozenset({"cpu", "cuda"})
keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


def note_fallback(name: str, reason: str, input: object) -> None:
    """Note that torch has answered a call, and warn where it could have been a kernel's."""
    unseen = foreign(input) or torch.jit.is_tracing()  # a look at the input would be seen
    if isinstance(input, Tensor) and (unseen or (input.is_floating_point() and (input.is_nested or input.numel()))):
        warn_fallback(name, reason)
    else:
        note(name, reason)


def resolve_reduction(reduction: str, size_average: bool | None, reduce: bool | None) -> str:
    """torch's reading of the legacy arguments."""
    if size_average is None and reduce is None:
        return reduction
    return _reduction.legacy_get_string(size_average, reduce)


def widened(tensor: Tensor) -> Tensor:
    """In float32 if it has 16 bits: derivatives by torch's operations are rounded once too."""
    return tensor.float() if tensor.dtype in _NARROW else tensor


def autocasts(tensor: Tensor) -> bool:
    """Whether autocast is on for operators on this tensor."""
    device = tensor.device.type
    return device in _WITH_AUTOCAST and torch.is_autocast_enabled(device)


def autocast_dtype(input: Tensor) -> torch.dtype | None:
    """float32 where torch's autocast would compute a loss of `input` in it, else None."""
    return torch.float32 if input.dtype in _NARROW and autocasts(input) else None


def gradients_in_forward(inputs: Sequence[Tensor | None], needs: Sequence[bool]) -> bool:
    """Whether the gradients needed may be computed before the gradient from above is known.

    Not in float16: rounded before a loss scale is applied, small ones would be 0, which is what the scale is for.
    """
    return not any(need and t is not None and t.dtype == torch.float16 for t, need in zip(inputs, needs, strict=False))


def scale_gradient(grad: Tensor, upstream: Tensor) -> Tensor:
    """`grad * upstream` for a gradient that forward saved and backward hands out.

    In place where nobody will ask for it again, and not at all where upstream is 1. `upstream` is never rounded to
    16 bits.
    """
    if not is_memory(upstream) or keeps_graph():
        wide = torch.float32 if grad.dtype in _NARROW else grad.dtype
        return (grad.to(wide) * upstream.to(wide)).to(grad.dtype)
    if grad.is_cuda:  # not worth waiting for: the kernel looks at the number
        torch.ops.fused_ml.scale_(grad, upstream)
        return grad
    return grad if upstream.item() == 1 else grad.mul_(upstream)


def class_dim(input: Tensor) -> int:
    """Where the classes of logits are."""
    return 1 if input.dim() > 1 else 0


def rows_of(input: Tensor) -> torch.Size:
    """The shape of logits without the classes."""
    return input.shape[: class_dim(input)] + input.shape[class_dim(input) + 1 :]


# Why no kernel takes an argument, as a warning puts it; None if one does. Constant words: torch.compile traces them.


def refusal_of_options(reduction: Any, ignore_index: Any) -> str | None:
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        return "reduction must be 'none', 'mean' or 'sum'"
    number = isinstance(ignore_index, int) and not isinstance(ignore_index, bool)
    return None if number else "ignore_index must be an int"


def refusal_of_logits(input: Tensor) -> str | None:
    if input.dtype not in FLOATING:
        return f"input must be {FLOATING_NAMES}"
    return None if input.dim() and input.numel() else "input must have at least one row and one class"


def refusal_of_classes(target: Tensor, input: Tensor) -> str | None:
    if target.dtype not in CLASS_INDEX:
        return "target must be int64, int32 or uint8"
    return None if target.shape == rows_of(input) else "target must have the input's shape without the classes"


def refusal_of_class_weight(weight: Tensor | None, input: Tensor) -> str | None:
    if weight is None:
        return None
    if weight.requires_grad:
        return "weight requires a gradient, which no kernel computes: detach it"
    if weight.shape != (input.shape[class_dim(input)],):
        return "weight must have one number for each class"
    # autocast would cast both to float32, in which the kernels compute anyway
    if weight.dtype == input.dtype or (autocasts(input) and input.dtype != torch.float64 and weight.dtype in _SINGLE):
        return None
    return "weight must have the input's dtype: convert it"

"""Shapes and dtypes of the operators' results, for tracing: no data is touched."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.library import register_fake


def _wide(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _rows(input: Tensor) -> int:
    return input.numel() // input.shape[1 if input.dim() > 1 else 0]


def _cross_entropy_results(input, reduction, loss_dtype, stats):
    rows = _rows(input)
    loss = input.new_empty((rows,) if reduction == 0 else (), dtype=loss_dtype or input.dtype)
    if not stats:
        return [loss]
    return [loss, input.new_empty((rows,), dtype=_wide(input)), input.new_empty((rows,), dtype=torch.int64)]


def _lie_evenly(tensors: list[Tensor], others: list[int]) -> bool:
    """Whether the dimensions but the classes' fall apart into outer and inner ones at one place at most."""
    places = 0
    for d, following in pairwise(others):
        places += not all(t.stride(d) == t.stride(following) * t.size(following) for t in tensors)
    return places <= 1


def _is_scattered(t: Tensor, dim: int, others: list[int]) -> bool:
    by_inner = t.stride(others[-1]) if others else 1
    if by_inner == 0 and others[-1] > dim:
        return True
    return by_inner != 1 and t.stride(dim) not in (0, 1)


def _gradients(input: Tensor, target: Tensor, wanted: tuple[bool, bool]) -> list[Tensor]:
    """Laid out as the inputs, or contiguous: what csrc/operators/rows_geometry.h does."""
    dim = 1 if input.dim() > 1 else 0
    others = [d for d in range(input.dim()) if d != dim and input.size(d) != 1]
    streams = [input, target] if target.is_floating_point() else [input]
    if input.device.type == "cpu" and _lie_evenly(streams, others):
        streams = [t.contiguous() if _is_scattered(t, dim, others) else t for t in streams]
    made: list[Tensor] = []
    for source, want in zip(streams, wanted, strict=False):
        if want:
            like = torch.empty_like(source)
            evenly = _lie_evenly([*streams, *made, like], others)
            made.append(like if evenly else torch.empty_like(source, memory_format=torch.contiguous_format))
    return made


@register_fake("fused_ml::cross_entropy")
def _(input, target, reduction, ignore_index, grad_input, stats=False, loss_dtype=None, weight=None,
      label_smoothing=0.0, z_loss=0.0, softcap=0.0, sample_weight=None, normalizer=None, grad_target=False,
      grad_output=None):  # fmt: skip
    loss, *numbers = _cross_entropy_results(input, reduction, loss_dtype, stats)
    return [loss, *_gradients(input, target, (grad_input, grad_target)), *numbers]


@register_fake("fused_ml::cross_entropy_")
def _(input, target, reduction, ignore_index, stats=False, loss_dtype=None, weight=None, label_smoothing=0.0,
      z_loss=0.0, softcap=0.0, sample_weight=None, normalizer=None):  # fmt: skip
    loss, *numbers = _cross_entropy_results(input, reduction, loss_dtype, stats)
    return (loss, *(numbers or (input.new_empty((0,)), input.new_empty((0,)))))


@register_fake("fused_ml::softmax")
def _(input, dim, negate, dtype):
    return input.new_empty(input.shape, dtype=dtype)


@register_fake("fused_ml::softmax_backward")
def _(grad_output, output, dim, negate, input_dtype):
    return grad_output.new_empty(grad_output.shape, dtype=input_dtype)


@register_fake("fused_ml::log_softmax")
def _(input, dim, dtype):
    return input.new_empty(input.shape, dtype=dtype)


@register_fake("fused_ml::log_softmax_backward")
def _(grad_output, output, dim, input_dtype):
    return grad_output.new_empty(grad_output.shape, dtype=input_dtype)


@register_fake("fused_ml::nll_loss")
def _(input, target, weight, reduction, ignore_index):
    if reduction == 0:
        return input.new_empty((_rows(input),)), input.new_empty((0,))
    return input.new_empty(()), input.new_empty((), dtype=torch.float64)


@register_fake("fused_ml::nll_loss_backward")
def _(grad_output, input, target, weight, ignore_index, total_weight):
    return torch.empty_like(input)


@register_fake("fused_ml::scale_")
def _(tensor, factor):
    return None

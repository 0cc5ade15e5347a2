"""Shapes and dtypes of the operators' results, for tracing: no data is touched."""

from __future__ import annotations

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


@register_fake("fused_ml::cross_entropy")
def _(input, target, reduction, ignore_index, grad_input, stats=False, loss_dtype=None, weight=None,
      label_smoothing=0.0, z_loss=0.0, softcap=0.0, sample_weight=None, normalizer=None, grad_target=False,
      grad_output=None):  # fmt: skip
    loss, *numbers = _cross_entropy_results(input, reduction, loss_dtype, stats)
    grads = [torch.empty_like(t) for t, wanted in ((input, grad_input), (target, grad_target)) if wanted]
    return [loss, *grads, *numbers]


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


@register_fake("fused_ml::binary_cross_entropy_with_logits")
def _(input, target, weight, pos_weight, normalizer, grad_output, reduction, focal_gamma, focal_alpha, label_smoothing,
      ignore_index, loss_dtype, loss, grad_input, grad_target):  # fmt: skip
    outputs = []
    if loss:
        outputs.append(
            torch.empty_like(target, dtype=loss_dtype) if reduction == 0 else input.new_empty((), dtype=loss_dtype)
        )
    if grad_input:
        outputs.append(torch.empty_like(input))
    if grad_target:
        outputs.append(torch.empty_like(input, dtype=target.dtype))
    return outputs


@register_fake("fused_ml::logsigmoid")
def _(input, dtype):
    return input.new_empty(input.shape, dtype=dtype)


@register_fake("fused_ml::logsigmoid_backward")
def _(grad_output, input):
    return torch.empty_like(input)


@register_fake("fused_ml::scale_")
def _(tensor, factor):
    return None

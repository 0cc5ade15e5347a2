"""What the optimizers' operators look like to tracing: they write into their arguments and return nothing."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.register_fake("fused_ml::sgd_")
def _sgd_(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffers: list[Tensor],
    options: list[float],
    first: bool,
    gradient_factor: Tensor | None = None,
) -> None:
    return None


@torch.library.register_fake("fused_ml::adam_")
def _adam_(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    options: list[float],
    gradient_factor: Tensor | None = None,
) -> None:
    return None

"""The losses of single elements."""

from __future__ import annotations

import torch
from torch import Tensor

from fused_ml.nn._calls import scripted_as
from fused_ml.nn._pointwise import Loss

__all__ = ["huber_loss"]

_huber_loss = Loss("huber_loss", takes=lambda delta: delta > 0)


@scripted_as(torch.nn.functional.huber_loss)
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    r"""Huber loss: :func:`torch.nn.functional.huber_loss`.

    :math:`d^2 / 2` where :math:`|d| = |x - t| \le \delta`, and :math:`\delta (|d| - \delta / 2)` beyond.

    >>> huber_loss(torch.tensor([0.0, 3.0]), torch.zeros(2))
    tensor(1.2500)
    """
    return _huber_loss(input, target, weight, reduction, delta)

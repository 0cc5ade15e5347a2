"""``torch.nn.functional`` with the fused functions in place of torch's. Every other name is torch's own."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as _torch
from torch.nn.functional import *  # noqa: F403

from fused_ml.nn._binary_cross_entropy import binary_cross_entropy_with_logits
from fused_ml.nn._cross_entropy import cross_entropy
from fused_ml.nn._cross_entropy_by_torch import CrossEntropyStats
from fused_ml.nn._logsigmoid import logsigmoid
from fused_ml.nn._nll_loss import nll_loss
from fused_ml.nn._softmax import log_softmax, softmax, softmin

__all__ = [
    "CrossEntropyStats",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "log_softmax",
    "logsigmoid",
    "nll_loss",
    "softmax",
    "softmin",
]
FUSED = tuple(name for name in __all__ if name != "CrossEntropyStats")


def __getattr__(name: str) -> Any:
    return getattr(_torch, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_torch)})

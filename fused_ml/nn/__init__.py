"""``torch.nn`` with the fused modules in place of torch's. Every other name is torch's own."""

from __future__ import annotations

import importlib
from typing import Any

import torch.nn as _torch
from torch.nn import *  # noqa: F403

from fused_ml.nn.modules import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    LogSigmoid,
    LogSoftmax,
    NLLLoss,
    Softmax,
    Softmin,
)

# torch.nn has a `functional` too, which the star import brought.
functional = importlib.import_module("fused_ml.nn.functional")

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "LogSigmoid",
    "LogSoftmax",
    "NLLLoss",
    "Softmax",
    "Softmin",
    "functional",
]
FUSED = tuple(name for name in __all__ if name != "functional")


def __getattr__(name: str) -> Any:
    return getattr(_torch, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_torch)})

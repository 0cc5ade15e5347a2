"""``torch.nn`` with the fused modules in place of torch's. Every other name is torch's own."""

from __future__ import annotations

from typing import Any

import torch.nn as _torch
from torch.nn import *  # noqa: F403

from fused_ml.nn import functional
from fused_ml.nn.modules import BCEWithLogitsLoss, CrossEntropyLoss, LogSigmoid, LogSoftmax, NLLLoss, Softmax, Softmin

FUSED = ("BCEWithLogitsLoss", "CrossEntropyLoss", "LogSigmoid", "LogSoftmax", "NLLLoss", "Softmax", "Softmin")
__all__ = [*FUSED, "functional"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    return getattr(_torch, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_torch)})

"""torch.optim with fused optimizers: ``from fused_ml import optim`` replaces ``from torch import optim``.

SGD, Adam and AdamW step all parameters in one pass over memory; every other name is torch.optim's own.
"""

from __future__ import annotations

import sys
from typing import Any

import torch.optim as _torch_optim
from torch.optim import *  # noqa: F403
from torch.optim import lr_scheduler, swa_utils

from fused_ml.optim.adam import Adam as Adam
from fused_ml.optim.adamw import AdamW as AdamW
from fused_ml.optim.sgd import SGD as SGD

FUSED = ("SGD", "Adam", "AdamW")
__all__ = list(_torch_optim.__all__)

# So that `from fused_ml.optim.lr_scheduler import StepLR` finds the module too.
sys.modules[f"{__name__}.lr_scheduler"] = lr_scheduler
sys.modules[f"{__name__}.swa_utils"] = swa_utils


def __getattr__(name: str) -> Any:
    try:
        return getattr(_torch_optim, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_torch_optim)})

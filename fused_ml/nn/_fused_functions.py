"""The fused functions."""

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

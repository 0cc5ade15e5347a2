"""torch's own functions, held from import on: :func:`fused_ml.enable` may replace the names they are found under."""

from torch.nn.functional import (  # type: ignore[attr-defined]
    _get_softmax_dim,
    binary_cross_entropy_with_logits,
    cross_entropy,
    log_softmax,
    nll_loss,
    softmax,
    softmin,
)

__all__ = [
    "_get_softmax_dim",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "log_softmax",
    "nll_loss",
    "softmax",
    "softmin",
]

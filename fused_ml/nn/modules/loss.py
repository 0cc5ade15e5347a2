"""``torch.nn.modules.loss`` with the fused losses: torch's classes, with forward replaced.

Constructors, checks, repr and state are torch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fused_ml._namespaces import complete
from fused_ml.nn.functional._binary_cross_entropy import binary_cross_entropy_with_logits
from fused_ml.nn.functional._cross_entropy import cross_entropy
from fused_ml.nn.functional._nll_loss import nll_loss
from fused_ml.nn.functional.loss import huber_loss
from fused_ml.nn.modules._torchs import TracedAsTorchs, in_torchs_words

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "NLLLoss"]


class CrossEntropyLoss(torch.nn.CrossEntropyLoss, TracedAsTorchs):
    """:class:`torch.nn.CrossEntropyLoss` on :func:`fused_ml.nn.functional.cross_entropy`.

    Takes torch's arguments, and as keywords the function's: ``z_loss``, ``softcap``, ``out_dtype``,
    ``inplace_backward``, ``return_stats``. ``sample_weight`` and ``normalizer`` belong to a batch: pass them to the
    call.

    >>> loss = CrossEntropyLoss(label_smoothing=0.1)
    >>> loss(torch.randn(8, 5), torch.randint(5, (8,))).shape
    torch.Size([])
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        softcap: float | None = None,
        out_dtype: torch.dtype | None = None,
        inplace_backward: bool = False,
        return_stats: bool = False,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.z_loss = z_loss
        self.softcap = softcap
        self.out_dtype = out_dtype
        self.inplace_backward = inplace_backward
        self.return_stats = return_stats

    def forward(
        self, input: Tensor, target: Tensor, *, sample_weight: Tensor | None = None,
        normalizer: float | Tensor | None = None,
    ) -> Any:  # fmt: skip
        return cross_entropy(  # type: ignore[call-overload,misc]
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            softcap=self.softcap,
            sample_weight=sample_weight,
            normalizer=normalizer,
            out_dtype=self.out_dtype,
            inplace_backward=self.inplace_backward,
            return_stats=self.return_stats,
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        extras = {"z_loss": 0.0, "softcap": None, "out_dtype": None, "inplace_backward": False, "return_stats": False}
        return in_torchs_words(self, torch.nn.CrossEntropyLoss, extras)


class NLLLoss(torch.nn.NLLLoss, TracedAsTorchs):
    """:class:`torch.nn.NLLLoss` on :func:`fused_ml.nn.functional.nll_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss, TracedAsTorchs):
    """:class:`torch.nn.BCEWithLogitsLoss` on :func:`fused_ml.nn.functional.binary_cross_entropy_with_logits`.

    Takes torch's arguments, and as keywords the function's: ``focal_gamma``, ``focal_alpha``, ``label_smoothing``,
    ``ignore_index``.

    >>> loss = BCEWithLogitsLoss(focal_gamma=2.0, focal_alpha=0.25)
    >>> loss(torch.randn(8, 3), torch.rand(8, 3)).shape
    torch.Size([])
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        *,
        focal_gamma: float = 0.0,
        focal_alpha: float | None = None,
        label_smoothing: float = 0.0,
        ignore_index: float | None = None,
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction, pos_weight)
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            pos_weight=self.pos_weight,
            reduction=self.reduction,
            focal_gamma=self.focal_gamma,
            focal_alpha=self.focal_alpha,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
        )

    def __prepare_scriptable__(self) -> torch.nn.Module:
        extras = {"focal_gamma": 0.0, "focal_alpha": None, "label_smoothing": 0.0, "ignore_index": None}
        return in_torchs_words(self, torch.nn.BCEWithLogitsLoss, extras)


class HuberLoss(torch.nn.HuberLoss, TracedAsTorchs):
    """:class:`torch.nn.HuberLoss` on :func:`fused_ml.nn.functional.huber_loss`."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, self.reduction, self.delta)


complete(__name__)
if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...

"""``torch.nn.modules.activation`` with the fused activations: torch's classes, with forward replaced.

Constructors, checks, repr and state are torch's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fused_ml._namespaces import complete
from fused_ml.nn.functional._softmax import log_softmax, softmax, softmin
from fused_ml.nn.functional.activation import logsigmoid
from fused_ml.nn.modules._torchs import TracedAsTorchs

__all__ = ["LogSigmoid", "LogSoftmax", "Softmax", "Softmin"]


class Softmax(torch.nn.Softmax, TracedAsTorchs):
    """:class:`torch.nn.Softmax` on :func:`fused_ml.nn.functional.softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return softmax(input, self.dim, _stacklevel=5)


class Softmin(torch.nn.Softmin, TracedAsTorchs):
    """:class:`torch.nn.Softmin` on :func:`fused_ml.nn.functional.softmin`."""

    def forward(self, input: Tensor) -> Tensor:
        return softmin(input, self.dim, _stacklevel=5)


class LogSoftmax(torch.nn.LogSoftmax, TracedAsTorchs):
    """:class:`torch.nn.LogSoftmax` on :func:`fused_ml.nn.functional.log_softmax`."""

    def forward(self, input: Tensor) -> Tensor:
        return log_softmax(input, self.dim, _stacklevel=5)


class LogSigmoid(torch.nn.LogSigmoid, TracedAsTorchs):
    """:class:`torch.nn.LogSigmoid` on :func:`fused_ml.nn.functional.logsigmoid`."""

    def forward(self, input: Tensor) -> Tensor:
        return logsigmoid(input)


complete(__name__)
if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...

"""The pointwise operators that follow from csrc/catalog/pointwise.h, a row each: what the tests of all run over.

A row is tried by operators/test_rows.py (values, derivatives, layouts, threads, instruction sets, its module) and joins
the tables of operators/test_modes.py, test_opcheck.py, test_torch_samples.py and test_modules.py, and of
package/test_explain.py, test_surface.py and test_patch.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import references
import torch
from torch import Tensor

import fused_ml.nn.functional as F
from fused_ml.nn.functional import activation


class _Ours:
    """Our functions by name: those too whose name is torch's under fused_ml.nn.functional, being faster there."""

    def __getattr__(self, name: str) -> Any:
        return getattr(activation, name, None) or getattr(F, name)


OURS = _Ours()


class Row(NamedTuple):
    name: str  # of the function
    module: str  # "": name and module are torch's
    options: tuple[dict[str, Any], ...] = ({},)  # keywords of both
    loss: bool = False
    refused: tuple[dict[str, Any], ...] = ()  # options for which torch raises
    operators: tuple[str, ...] = ()  # of its options in turn, if they are not of one name
    exact: Callable[..., Tensor] | None = None  # the function in float64, where torch's own loses digits

    def __str__(self) -> str:
        return self.name

    @property
    def torchs(self) -> Callable[..., Tensor]:
        return getattr(torch.nn.functional, self.name)

    @property
    def reference(self) -> Callable[..., Tensor]:
        """Of float64 tensors."""
        return self.exact or self.torchs

    @property
    def weighted(self) -> bool:
        """Whether torch's function takes weights of the elements."""
        return self.loss and "weight" in inspect.signature(self.torchs).parameters

    def operands(self, x: Tensor) -> tuple[Tensor, ...]:
        """An input and what the function takes beside it, at some distance."""
        return (x, (0.7 * x + 0.3 * x.flip(-1 if x.dim() else ())).detach()) if self.loss else (x,)

    def call(self, space: Any, x: Tensor, options: dict[str, Any]) -> Tensor:
        """By the function of a module of functions."""
        return getattr(OURS if space is F else space, self.name)(*self.operands(x), **options)


def loss(name: str, module: str, *options: dict[str, Any], **more: Any) -> Row:
    return Row(name, module, options or ({},), loss=True, **more)


ROWS = (
    Row("gelu", "", ({}, {"approximate": "tanh"}), exact=references.gelu, operators=("gelu", "gelu_tanh")),
    Row("logsigmoid", "LogSigmoid"),
    loss("huber_loss", "HuberLoss", {}, {"delta": 0.25}, {"delta": 3.0},
         refused=({"delta": 0.0}, {"delta": -1}, {"delta": float("nan")})),
)  # fmt: skip
PUBLIC = [row for row in ROWS if row.module]
CALLS = [(row, options) for row in ROWS for options in row.options]
LOSSES = [(row, options) for row, options in CALLS if row.loss]
WEIGHTED = [(row, options) for row, options in CALLS if row.weighted]


def name_of_options(value: Any) -> str | None:
    """For a test's name."""
    return ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None

"""The table of fused calls that every mode is tried on: one row a name and form. A new operator adds its rows here.

`rows` are calls `f(F, x)`, where F is fused_ml.nn.functional or torch.nn.functional and x a matrix of 6 rows and 5
classes; the result is differentiable by x twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from rows import CALLS, name_of_options
from torch import Tensor

ROWS, CLASSES = 6, 5
INDEX = torch.tensor([0, 4, 1, 1, 2, 3])


class Row(NamedTuple):
    name: str  # under torch.nn.functional
    form: str
    call: Callable[[Any, Tensor], Tensor]

    def __str__(self) -> str:
        return f"{self.name} {self.form}".strip()


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """In [0, 1), the same for every call; no random operation, which transforms and compilers refuse."""
    return ((torch.arange(prod(shape), dtype=torch.float64) * 0.6180339887 + seed * 0.37) % 1).view(shape).to(dtype)


def like(x: Tensor, seed: int, *shape: int) -> Tensor:
    """:func:`numbers` of x's type."""
    return numbers(seed, *shape).to(x.dtype)


def index(x: Tensor) -> Tensor:
    return INDEX[: x.shape[0]]


def probabilities(x: Tensor) -> Tensor:
    return numbers(1, *x.shape).softmax(-1).to(x.dtype)


rows = [
    Row("softmax", "rows", lambda F, x: F.softmax(x, 1)),
    Row("softmax", "columns, dtype", lambda F, x: F.softmax(x, 0, dtype=torch.float64)),
    Row("softmin", "rows", lambda F, x: F.softmin(x, -1)),
    Row("log_softmax", "rows", lambda F, x: F.log_softmax(x, 1)),
    Row("log_softmax", "columns", lambda F, x: F.log_softmax(x, 0)),
    Row("nll_loss", "mean", lambda F, x: F.nll_loss(x.square(), index(x))),
    Row("nll_loss", "none, weight", lambda F, x: F.nll_loss(x.square(), index(x), like(x, 2, 5), reduction="none")),
    Row("cross_entropy", "mean", lambda F, x: F.cross_entropy(x, index(x))),
    Row("cross_entropy", "sum", lambda F, x: F.cross_entropy(x, index(x), reduction="sum")),
    Row("cross_entropy", "none", lambda F, x: F.cross_entropy(x, index(x), reduction="none")),
    Row("cross_entropy", "weight, ignore_index, smoothing",
        lambda F, x: F.cross_entropy(x, index(x), like(x, 2, 5), ignore_index=1, label_smoothing=0.2)),
    Row("cross_entropy", "probabilities", lambda F, x: F.cross_entropy(x, probabilities(x))),
    Row("cross_entropy", "probabilities, weight, sum",
        lambda F, x: F.cross_entropy(x, probabilities(x), like(x, 2, 5), reduction="sum")),
    Row("cross_entropy", "by both", lambda F, x: F.cross_entropy(x, (2 * x).softmax(1))),
    Row("binary_cross_entropy_with_logits", "mean",
        lambda F, x: F.binary_cross_entropy_with_logits(x, like(x, 3, *x.shape))),
    Row("binary_cross_entropy_with_logits", "none, pos_weight, weight",
        lambda F, x: F.binary_cross_entropy_with_logits(
            x, like(x, 3, *x.shape), like(x, 4, 5), pos_weight=like(x, 5, 5), reduction="none")),
    Row("binary_cross_entropy_with_logits", "sum by both",
        lambda F, x: F.binary_cross_entropy_with_logits(x, x.square().tanh(), reduction="sum")),
]  # fmt: skip
rows += [Row(row.name, name_of_options(options), partial(row.call, options=options)) for row, options in CALLS]

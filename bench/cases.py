"""The rows of the benchmark, as data: operator, shape, type, floors, and the bytes it must move."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

ITEM_SIZE = {"float32": 4, "bfloat16": 2}
LABEL_SIZE = 8  # class indices are int64

# The least an operator can do, in passes over a tensor of the row's shape.
PASSES = {
    "cross_entropy": 2,  # read logits, write gradient
    "nll_loss": 1,  # write gradient; the few log-probabilities it gathers are left out
    "binary_cross_entropy_with_logits": 3,  # read logits and targets, write gradient
    "log_softmax": 5,  # read x, write out; read out and its gradient, write gradient
    "softmax": 5,  # the same
    "logsigmoid": 5,  # read x, write out; read x and the gradient of out, write gradient
    "SGD": 5,  # read p, g, momentum; write p, momentum
    "Adam": 7,  # read p, g, m, v; write p, m, v
    "AdamW": 7,  # the same
}
LABELLED = ("cross_entropy", "nll_loss")
OPTIMIZERS = ("SGD", "Adam", "AdamW")


@dataclass(frozen=True)
class Case:
    """One row.

    `shape` is that of the logits, or (tensors, elements in each) for an optimizer. `variant` is one of

    * ``fresh``: the gradient is allocated anew by every backward pass;
    * ``inplace``: cross entropy with ``inplace_backward=True`` (torch does its plain step);
    * ``clip``: a step with ``max_grad_norm`` against ``clip_grad_norm_`` and a step;
    * ``denormal``: Adam whose moments have underflowed, also against itself on normal moments.

    `floors` holds the least ratio peer time / our time that is promised against each peer;
    `remark` explains a difference of the results that is known.
    """

    op: str
    shape: tuple[int, ...]
    quick_shape: tuple[int, ...]
    dtype: str = "float32"
    variant: str = "fresh"
    floors: Mapping[str, float] = field(default_factory=dict)
    compiled: bool = True
    remark: str = ""

    @property
    def is_optimizer(self) -> bool:
        """Whether the row steps an optimizer, rather than running a function forward and backward."""
        return self.op in OPTIMIZERS

    @property
    def label(self) -> str:
        """The row's name, which ``--only`` matches; float32 goes without saying."""
        size = "x".join(str(extent) for extent in self.shape)
        dtype = "" if self.dtype == "float32" else f" {self.dtype}"
        variant = "" if self.variant == "fresh" else f" {self.variant}"
        return f"{self.op} {size}{dtype}{variant}"

    @property
    def peers(self) -> tuple[str, ...]:
        """What the row is compared with."""
        if self.variant == "denormal":
            return ("eager", "fused", "normal")
        if self.is_optimizer:
            return ("eager", "fused")
        return ("eager", "compile") if self.compiled else ("eager",)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of one tensor of the row's shape (of all the parameters, for an optimizer)."""
        return prod(self.shape) * ITEM_SIZE[self.dtype]

    @property
    def moved_bytes(self) -> int:
        """The least number of bytes that the operator reads and writes."""
        passes = PASSES[self.op] + (self.variant == "clip")  # the norm reads the gradients once more
        labels = prod(self.shape) // self.shape[1] * LABEL_SIZE if self.op in LABELLED else 0
        return passes * self.tensor_bytes + labels


def _floors(eager: float, compiled: float) -> dict[str, float]:
    return {"eager": eager, "compile": compiled}


_BCE = "binary_cross_entropy_with_logits"
_BIG, _BIG_QUICK = (25, 1_000_000), (25, 20_000)
_MANY, _MANY_QUICK = (161, 256), (161, 256)
_SGD_REMARK = "torch 2.13's fused bfloat16 SGD never writes the parameters back (pytorch issue 191763)"

CASES: tuple[Case, ...] = (
    Case("cross_entropy", (4096, 1000), (512, 1000), floors=_floors(4.5, 2)),
    Case("cross_entropy", (2048, 32000), (64, 32000), floors=_floors(5, 2.5)),
    Case("cross_entropy", (2048, 32000), (64, 32000), variant="inplace", floors=_floors(8, 2.5)),
    Case("cross_entropy", (512, 128256), (16, 128256), floors=_floors(5, 2.5)),
    Case("cross_entropy", (512, 128256), (16, 128256), variant="inplace", floors=_floors(8, 2.5)),
    Case("cross_entropy", (1_000_000, 10), (50_000, 10), floors=_floors(10, 3)),
    Case("cross_entropy", (8, 21, 256, 256), (2, 21, 96, 96), floors=_floors(5, 2.2)),
    Case("cross_entropy", (2048, 32000), (64, 32000), "bfloat16", floors=_floors(4, 2)),
    Case("cross_entropy", (64, 10), (64, 10), floors={"eager": 1.1}),
    Case(_BCE, (4096, 4096), (512, 1024), floors=_floors(5, 2.2)),
    Case("log_softmax", (4096, 1000), (512, 1000), floors=_floors(1.5, 1)),
    Case("softmax", (4096, 1000), (512, 1000)),
    Case("logsigmoid", (4096, 4096), (512, 1024)),
    Case("nll_loss", (4096, 1000), (512, 1000)),
    Case("Adam", _BIG, _BIG_QUICK, floors={"fused": 0.95}),
    Case("Adam", _BIG, _BIG_QUICK, "bfloat16", floors={"fused": 1.5}),
    Case("Adam", _MANY, _MANY_QUICK, floors={"fused": 4}),
    Case("Adam", _BIG, _BIG_QUICK, variant="clip", floors={"fused": 1.4}),
    Case("Adam", _BIG, _BIG_QUICK, variant="denormal", floors={"fused": 0.95, "normal": 0.95}),
    Case("AdamW", _BIG, _BIG_QUICK),
    Case("SGD", _BIG, _BIG_QUICK, floors={"fused": 0.95}),
    Case("SGD", _BIG, _BIG_QUICK, "bfloat16", floors={"fused": 1.5}, remark=_SGD_REMARK),
    Case("SGD", _MANY, _MANY_QUICK, floors={"fused": 4}),
    Case("SGD", _BIG, _BIG_QUICK, variant="clip", floors={"fused": 1.4}),
)


def _quick(case: Case) -> Case:
    """The small form of a row: no floors, and compiled only where the full row has a floor for it."""
    compiled = "compile" in case.floors and case.variant == "fresh"
    return replace(case, shape=case.quick_shape, floors={}, compiled=compiled)


def select(quick: bool = False, only: str = "", compiled: bool = True) -> list[Case]:
    """The rows whose label contains the shell pattern `only`, in their small form if `quick`."""
    chosen = [_quick(case) if quick else case for case in CASES]
    pattern = f"*{only.lower()}*"
    return [
        replace(case, compiled=case.compiled and compiled)
        for case in chosen
        if fnmatch.fnmatchcase(case.label.lower(), pattern)
    ]

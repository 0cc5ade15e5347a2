"""The table of ``python -m bench.layouts``: every fused function at every layout, broadcast and upstream stride."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

BCE = "binary_cross_entropy_with_logits"
ROWWISE = ("softmax", "softmin", "log_softmax")
# Without grad; the backward pass alone; forward and backward. Of a loss never the backward pass alone: what forward
# leaves to it, or does for it, is each library's own choice.
PARTS = ("forward", "backward", "step")

# One long row, many short ones, maps; 100,000 elements and more.
SHAPES = (
    (1, 1000000), (4, 250000), (200000, 2), (100000, 10), (1000, 1000), (1000000, 1), (500, 2, 1000), (8, 21, 64, 64),
    (64, 128, 12, 12),
)  # fmt: skip

Make = Callable[..., Tensor]
Shape = tuple[int, ...]


def _swapped(make: Make, shape: Shape, first: int, second: int) -> Tensor:
    """A tensor of the shape whose dimensions `first` and `second` have changed places in memory."""
    order = list(shape)
    order[first], order[second] = order[second], order[first]
    return make(order).transpose(first, second)


LAYOUTS: dict[str, Callable[[Make, Shape], Tensor]] = {
    "contiguous": lambda make, shape: make(shape),
    "transposed": lambda make, shape: _swapped(make, shape, 0, -1),
    "channels last": lambda make, shape: make((shape[0], *shape[2:], shape[1])).movedim(-1, 1),
    "every other": lambda make, shape: make((*shape[:-1], 2 * shape[-1]))[..., ::2],
    "first expanded": lambda make, shape: make((1, *shape[1:])).expand(shape),
    "last expanded": lambda make, shape: make((*shape[:-1], 1)).expand(shape),
    "one number": lambda make, shape: make(()).expand(shape),  # what .sum() and .mean() send
}


def layouts_of(shape: Shape) -> Iterator[str]:
    """Those that differ at the shape."""
    seen = set()
    for name, arrange in LAYOUTS.items():
        strides = tuple(s for s, n in zip(arrange(torch.empty, shape).stride(), shape, strict=True) if n > 1)
        if strides not in seen:
            seen.add(strides)
            yield name


@dataclass(frozen=True)
class Case:
    """A call: `extra` is what else it takes, `dim` the classes' dimension of a softmax."""

    op: str
    part: str
    shape: Shape
    dtype: str
    layout: str = "contiguous"
    upstream: str = "contiguous"
    dim: int = 1
    extra: str = ""
    reduction: str = "none"

    @property
    def label(self) -> str:
        """What tells it from the others."""
        shape = "x".join(map(str, self.shape))
        where = f" dim {self.dim}" if self.op in ROWWISE else ""
        extra = f", {self.extra}" if self.extra else ""
        reduction = "" if self.op in ROWWISE or self.op == "logsigmoid" else f" {self.reduction}"
        upstream = f" from {self.upstream}" if self.part != "forward" and self.reduction == "none" else ""
        return f"{self.op}{reduction} {self.part}: {shape} {self.dtype} {self.layout}{where}{extra}{upstream}"


# What a classifier's loss takes beside its target; the first word is the kind of target.
EXTRAS = ("classes", "classes weighted", "classes smoothed", "probabilities", "probabilities weighted")
# The dimensions that BCE's weight, or positive weight, has; the others are 1.
BROADCASTS = ("weight first", "weight last", "weight both", "pos_weight first", "pos_weight last", "pos_weight both")


def _extras(op: str) -> tuple[str, ...]:
    if op == "cross_entropy":
        return EXTRAS
    if op == "nll_loss":
        return EXTRAS[:2]
    return ("", *BROADCASTS) if op == BCE else ("",)


def _forward_cases(op: str, shape: Shape, dtype: str) -> Iterator[Case]:
    """The forward pass, and a whole step of a loss's mean."""
    dims = sorted({0, 1, len(shape) - 1}) if op in ROWWISE else [1]
    for layout in layouts_of(shape):
        for dim in dims:
            for extra in _extras(op):
                yield Case(op, "forward", shape, dtype, layout, dim=dim, extra=extra)
                if op not in ROWWISE and op != "logsigmoid" and layout in ("contiguous", "transposed"):
                    yield Case(op, "step", shape, dtype, layout, extra=extra, reduction="mean")


def _backward_cases(op: str, shape: Shape, dtype: str) -> Iterator[Case]:
    part = "backward" if op in ROWWISE else "step"
    dims = sorted({0, 1, len(shape) - 1}) if op in ROWWISE else [1]
    output = (shape[0], *shape[2:]) if op in ("cross_entropy", "nll_loss") else shape
    upstreams = list(layouts_of(output)) if len(output) > 1 else ["contiguous", "one number", "every other"]
    for dim in dims:
        for extra in _extras(op):
            for upstream in upstreams if extra in ("", EXTRAS[0]) else upstreams[:1]:
                yield Case(op, part, shape, dtype, upstream=upstream, dim=dim, extra=extra)
            for layout in layouts_of(shape):
                if layout != "contiguous":
                    yield Case(op, part, shape, dtype, layout, dim=dim, extra=extra)


def cases(dtypes: tuple[str, ...]) -> Iterator[Case]:
    """All of them."""
    for dtype in dtypes:
        for shape in SHAPES:
            for op in (*ROWWISE, "logsigmoid", "cross_entropy", "nll_loss", BCE):
                yield from _forward_cases(op, shape, dtype)
                yield from _backward_cases(op, shape, dtype)


def _labels(case: Case, make: Make) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Target and options of a classifier's loss."""
    kind, *more = case.extra.split()
    classes = case.shape[1]
    if kind == "classes":
        target = torch.randint(classes, (case.shape[0], *case.shape[2:]))
    else:
        target = LAYOUTS[case.layout](lambda shape: make(shape).abs() / classes, case.shape)
    options: dict[str, Any] = {"reduction": case.reduction}
    if "weighted" in more:
        options["weight"] = make((classes,)).abs() + 0.1
    if "smoothed" in more:
        options["label_smoothing"] = 0.1
    return (target,), options


def _weights(case: Case, make: Make) -> dict[str, Any]:
    """What BCE takes beside its target."""
    options: dict[str, Any] = {"reduction": case.reduction}
    if case.extra:
        name, where = case.extra.split()
        kept = {"first": {0}, "last": {len(case.shape) - 1}}.get(where, set(range(len(case.shape))))
        options[name] = make([n if d in kept else 1 for d, n in enumerate(case.shape)]).abs() + 0.1
    return options


def arguments(case: Case) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The input, and what the function takes beside it."""
    torch.manual_seed(math.prod(case.shape))

    def make(shape: Any) -> Tensor:
        return torch.randn(tuple(shape)).to(getattr(torch, case.dtype))

    x = LAYOUTS[case.layout](make, case.shape)
    if case.op in ROWWISE:
        return x, (case.dim,), {}
    if case.op == "logsigmoid":
        return x, (), {}
    if case.op == BCE:
        return x, (LAYOUTS[case.layout](make, case.shape).sigmoid(),), _weights(case, make)
    return x, *_labels(case, make)


def call(functional: ModuleType, case: Case) -> Callable[[], object]:
    """What is timed, with the functions of `functional`."""
    function = getattr(functional, case.op)
    x, args, options = arguments(case)
    if case.part == "forward":
        return lambda: function(x, *args, **options)
    x.requires_grad_()
    output = function(x, *args, **options)
    make = LAYOUTS[case.upstream if output.dim() else "contiguous"]
    upstream = make(lambda shape: torch.randn(tuple(shape)).to(output.dtype), tuple(output.shape))
    if case.part == "step":
        return lambda: torch.autograd.grad(function(x, *args, **options), x, upstream)
    return lambda: torch.autograd.grad(output, x, upstream, retain_graph=True)

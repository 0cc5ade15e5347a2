"""The rows of the benchmark, as data: operator, shape, type, layout, variant, floors, and the bytes it must move."""

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from bench.models import MODELS

ITEM_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
LABEL_SIZE = 8  # class indices are int64

# The least an operator can do, in passes over a tensor of the row's shape, by part: forward, backward, both in one go.
PASSES: Mapping[str, tuple[int, int, int]] = {
    "cross_entropy": (1, 2, 2),  # read logits; read logits, write gradient; read logits, write gradient
    "nll_loss": (0, 1, 1),  # write gradient; the few log-probabilities it gathers are left out
    "log_softmax": (2, 3, 5),  # read x, write out; read out and its gradient, write gradient
    "softmax": (2, 3, 5),  # the same
}
# The optimizers, and what they are timed with.
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "weight_decay": 1e-2},
    "RMSprop": {"lr": 1e-3},
}
LOSS = (2, 3, 3)  # of single elements: read input and target; also write gradient
ACTIVATION = (2, 3, 5)  # read x, write out; read x and the gradient of out, write gradient
PART = {"forward": 0, "train": 0, "backward": 1, "both": 2}
MORE_PASSES = {
    "reused": 1,  # read the gradient that is added to
    "clip": 1,  # the norm reads the gradients once more
    "amp": 1,  # so does the check that they are finite
    "ema": 2,  # read and write the averages; the parameters are at hand
}


def function_of(op: str) -> Callable[..., Any]:
    """Our function, where the name is torch's own too."""
    functions = importlib.import_module("fused_ml.nn.functional")
    function: Callable[..., Any] = getattr(functions.activation, op, None) or getattr(functions, op)
    return function


def takes_target(op: str) -> bool:
    """Whether a function is a loss."""
    return "target" in inspect.signature(function_of(op)).parameters


@functools.cache
def passes_of(op: str) -> tuple[int, int, int]:
    """The least number of passes, by part."""
    if op in OPTIMIZERS:  # read p, g and the states; write p and the states
        kind = getattr(importlib.import_module("fused_ml.optim"), op)
        defaults = {name: parameter.default for name, parameter in inspect.signature(kind.__init__).parameters.items()}
        return 0, 0, 3 + 2 * len(kind._family.names(kind._family.states_of({**defaults, **OPTIMIZERS[op]})))
    return PASSES.get(op) or (LOSS if takes_target(op) else ACTIVATION)


LABELLED = ("cross_entropy", "nll_loss")
LAYOUTS = ("contiguous", "channels_last", "transposed", "padded")
VARIANTS = ("fresh", "reused", "inplace", "call", "clip", "amp", "ema", "denormal")


@dataclass(frozen=True)
class Case:
    """One row.

    `shape` is that of the logits, or (tensors, elements in each) for an optimizer that has no `model`.
    `quick_shape` is what ``--quick`` runs; rows without it are left out there. `variant` is one of

    * ``fresh``: the gradient is allocated by every backward pass;
    * ``reused``: the leaf has a gradient, to which backward adds (torch: a fresh gradient, then an addition);
    * ``inplace``: cross entropy with ``inplace_backward=True`` (torch does its plain step);
    * ``call``: what a call costs beyond its kernel, against the operator and the kernel themselves;
    * ``clip``: a step with ``max_grad_norm`` against ``clip_grad_norm_`` and a step;
    * ``amp``: a step through ``GradScaler``, of scale 1 so that the gradients stay as they are;
    * ``ema``: a step, then torch's ``_foreach_lerp_`` of the averaged weights on both sides;
    * ``denormal``: Adam whose moments have underflowed, also against itself on normal moments.

    `part` is what the clock sees of a function: ``both``, ``forward`` (no gradient wanted), ``train`` (the forward
    pass under grad) or ``backward``. `cold`: the caches are flushed before every call. `layout` is one of ``LAYOUTS``;
    ``padded`` is a slice of rows whose length is a multiple of 128.

    `floors` holds the least ratio peer time / our time that is promised against each peer; `remark` explains a
    difference of the results that is known; `headline` rows are those of the README.
    """

    op: str
    shape: tuple[int, ...] = ()
    quick_shape: tuple[int, ...] = ()
    dtype: str = "float32"
    variant: str = "fresh"
    part: str = "both"
    layout: str = "contiguous"
    cold: bool = False
    model: str = ""
    floors: Mapping[str, float] = field(default_factory=dict)
    compiled: bool = True
    remark: str = ""
    headline: bool = False

    @property
    def is_optimizer(self) -> bool:
        """Whether the row steps an optimizer, rather than running a function."""
        return self.op in OPTIMIZERS

    @property
    def label(self) -> str:
        """The row's name, which ``--only`` matches; what is usual goes without saying."""
        size = self.model or "x".join(str(extent) for extent in self.shape)
        usual = ("float32", "contiguous", "fresh", "both")
        words = (word for word in (self.dtype, self.layout, self.variant, self.part) if word not in usual)
        return " ".join([self.op, size, *words, *(["cold"] if self.cold else [])])

    @property
    def params(self) -> list[tuple[int, ...]]:
        """The shapes of an optimizer's parameters."""
        return MODELS[self.model]() if self.model else [self.shape[1:]] * self.shape[0]

    @property
    def elements(self) -> int:
        """Elements of the logits, or of all the parameters."""
        return sum(map(prod, self.params)) if self.is_optimizer else prod(self.shape)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the logits, or of all the parameters."""
        return self.elements * ITEM_SIZE[self.dtype]

    @property
    def moved_bytes(self) -> int:
        """The least number of bytes that the operator reads and writes."""
        passes = passes_of(self.op)[PART[self.part]] + MORE_PASSES.get(self.variant, 0)
        labels = self.elements // self.shape[1] * LABEL_SIZE if self.op in LABELLED else 0
        return passes * self.tensor_bytes + labels


def _floors(eager: float, compiled: float) -> dict[str, float]:
    return {"eager": eager, "compile": compiled}


CE, BCE = "cross_entropy", "binary_cross_entropy_with_logits"
_BIG, _BIG_QUICK = (25, 1_000_000), (25, 20_000)
_MANY = (161, 256)
_SGD_REMARK = "torch 2.13's fused bfloat16 SGD never writes the parameters back (pytorch issue 191763)"

HEADLINE: tuple[Case, ...] = (
    Case(CE, (4096, 1000), (512, 1000), floors=_floors(6, 2.5)),
    Case(CE, (2048, 32000), (64, 32000), floors=_floors(7, 4)),
    Case(CE, (2048, 32000), (64, 32000), variant="inplace", floors=_floors(8, 2.5)),
    Case(CE, (512, 128256), (16, 128256), floors=_floors(7, 4)),
    Case(CE, (512, 128256), (16, 128256), variant="inplace", floors=_floors(8, 2.5)),
    Case(CE, (1_000_000, 10), (50_000, 10), floors=_floors(14, 5)),
    Case(CE, (8, 21, 256, 256), (2, 21, 96, 96), floors=_floors(7, 3)),
    Case(CE, (2048, 32000), (64, 32000), "bfloat16", floors=_floors(6, 4)),
    Case(CE, (64, 10), (64, 10), floors={"eager": 1.3}),
    Case(BCE, (4096, 4096), (512, 1024), floors=_floors(7, 3.5)),
    Case("log_softmax", (4096, 1000), (512, 1000), floors=_floors(1.5, 1)),
    Case("softmax", (4096, 1000), (512, 1000)),
    Case("logsigmoid", (4096, 4096), (512, 1024)),
    Case("nll_loss", (4096, 1000), (512, 1000)),
    Case("Adam", _BIG, _BIG_QUICK, floors={"fused": 0.95}),
    Case("Adam", _BIG, _BIG_QUICK, "bfloat16", floors={"fused": 1.5}),
    Case("Adam", _MANY, _MANY, floors={"fused": 8}),
    Case("Adam", _BIG, _BIG_QUICK, variant="clip", floors={"fused": 1.4}),
    Case("Adam", _BIG, _BIG_QUICK, variant="denormal", floors={"fused": 0.95, "normal": 0.95}),
    Case("AdamW", _BIG, _BIG_QUICK),
    Case("AdamW", _BIG, dtype="bfloat16", floors={"fused": 1.9}),
    Case("SGD", _BIG, _BIG_QUICK, floors={"fused": 0.95}),
    Case("SGD", _BIG, _BIG_QUICK, "bfloat16", floors={"fused": 1.5}, remark=_SGD_REMARK),
    Case("SGD", _MANY, _MANY, floors={"fused": 6}),
    Case("SGD", _BIG, _BIG_QUICK, variant="clip", floors={"fused": 1.4}),
)

# Heads of models: ImageNet's 1,000 and 21,843 classes, the vocabularies of GPT-2 (50,257, in practice padded to
# 50,304), Llama 3 (128,256) and Gemma (256,000), Pascal VOC's 21 and Cityscapes' 19 classes, COCO's 80 labels.
FUNCTIONS: tuple[Case, ...] = (
    Case(CE, (256, 1000)),
    Case(CE, (256, 1000), dtype="bfloat16"),
    Case(CE, (4096, 1000), dtype="float64"),
    Case(CE, (4096, 1000), layout="transposed"),
    Case(CE, (1024, 21843)),
    Case(CE, (2048, 50257)),
    Case(CE, (2048, 50257), dtype="bfloat16"),
    Case(CE, (2048, 50257), (64, 50257), layout="padded", compiled=False),
    Case(CE, (512, 128256), dtype="bfloat16"),
    Case(CE, (512, 256000)),
    Case(CE, (512, 256000), dtype="bfloat16"),
    Case(CE, (8, 21, 256, 256), (2, 21, 96, 96), layout="channels_last"),
    Case(CE, (8, 21, 256, 256), dtype="bfloat16"),
    Case(CE, (4, 19, 512, 1024)),
    Case(BCE, (12500, 80)),
    Case(BCE, (1_000_000,)),
    Case(BCE, (4096, 4096), dtype="bfloat16"),
    Case(BCE, (8, 21, 256, 256), layout="channels_last"),
    Case("log_softmax", (2048, 50257)),
    Case("log_softmax", (1_000_000, 10)),
    Case("log_softmax", (4096, 1000), dtype="bfloat16"),
    Case("softmax", (12288, 1024)),  # attention of GPT-2 small: 12 heads of 1,024 by 1,024
    Case("softmax", (12288, 1024), dtype="bfloat16"),
    Case("softmax", (8, 21, 256, 256)),
    Case("logsigmoid", (1_000_000,)),
    Case("huber_loss", (4096, 4096), (512, 1024)),
    Case("gelu", (4096, 4096), (512, 1024)),
    Case("gelu", (64, 128), (64, 128)),
    Case("nll_loss", (8, 21, 256, 256)),
    Case("nll_loss", (2048, 50257)),
)

PARTS: tuple[Case, ...] = (
    *(Case(CE, (4096, 1000), (512, 1000) if part == "forward" else (), part=part) for part in PART if part != "both"),
    *(Case(CE, (2048, 32000), part=part) for part in PART if part != "both"),
    *(Case(BCE, (4096, 4096), part=part) for part in PART if part != "both"),
    *(Case("log_softmax", (4096, 1000), part=part) for part in ("forward", "backward")),
    *(Case("softmax", (12288, 1024), part=part) for part in ("forward", "backward")),
    Case("logsigmoid", (4096, 4096), part="forward"),
    Case("nll_loss", (4096, 1000), part="forward"),
)

VARIED: tuple[Case, ...] = (
    Case(CE, (4096, 1000), (512, 1000), variant="reused"),
    Case(CE, (2048, 32000), variant="reused"),
    Case(BCE, (4096, 4096), variant="reused"),
    Case(CE, (4096, 1000), variant="inplace"),
    Case(CE, (2048, 32000), dtype="bfloat16", variant="inplace"),
    Case(CE, (256, 1000), (256, 1000), cold=True),
    Case(CE, (4096, 1000), cold=True),
    Case(CE, (64, 10), cold=True),
    Case(BCE, (12500, 80), cold=True),
    Case("log_softmax", (256, 1000), cold=True),
    *(Case(CE, shape, shape, variant="call", part="forward") for shape in ((1, 10), (64, 10), (8, 1000))),
)

STEPS: tuple[Case, ...] = (
    Case("SGD", model="resnet50"),
    Case("SGD", model="resnet50", variant="amp"),
    Case("SGD", model="resnet50", variant="ema"),
    Case("Adam", model="resnet50"),
    Case("AdamW", model="resnet50", variant="ema"),
    Case("AdamW", model="gpt2-small"),
    Case("AdamW", model="gpt2-small", dtype="bfloat16"),
    Case("AdamW", model="gpt2-small", variant="clip"),
    Case("AdamW", model="llama-block"),
    Case("AdamW", model="llama-block", dtype="bfloat16"),
    Case("AdamW", _BIG, _BIG_QUICK, variant="amp"),
    Case("AdamW", _BIG, _BIG_QUICK, variant="ema"),
    Case("Adam", _MANY, cold=True),
    Case("RMSprop", _BIG, _BIG_QUICK),
    Case("Adam", _MANY, variant="amp"),
    Case("Adam", _MANY, variant="clip"),
)

CASES = (*(replace(case, headline=True) for case in HEADLINE), *FUNCTIONS, *PARTS, *VARIED, *STEPS)
THREADS = (2,)  # what is timed unless ``--threads`` says otherwise


def _quick(case: Case) -> Case:
    """The small form of a row: no floors, and compiled only where the full row has a floor for it."""
    compiled = "compile" in case.floors and case.variant == "fresh"
    return replace(case, shape=case.quick_shape, floors={}, compiled=compiled)


def select(quick: bool = False, only: str = "", compiled: bool = True, headline: bool = False) -> list[Case]:
    """The rows whose label contains the shell pattern `only`, in their small form if `quick`; the README's alone."""
    chosen = [_quick(case) for case in CASES if case.quick_shape] if quick else CASES
    pattern = f"*{only.lower()}*"
    return [
        replace(case, compiled=case.compiled and compiled)
        for case in chosen
        if fnmatch.fnmatchcase(case.label.lower(), pattern) and (case.headline or not headline)
    ]


@dataclass(frozen=True)
class Sweep:
    """Rows that differ in one extent: ``--scaling`` times them and fits the byte model to them.

    The model knows one bandwidth, so a sweep stays in the caches or out of them, and with one of the kernels. Neither
    `variant` nor `part` should allocate much: page faults are not in the model.
    """

    op: str
    axis: str  # what grows, in words
    shapes: tuple[tuple[int, ...], ...]
    variant: str = "fresh"
    part: str = "both"

    @property
    def cases(self) -> list[Case]:
        """The rows, smallest first; never compiled, since the shape is the point."""
        return [Case(self.op, shape, variant=self.variant, part=self.part, compiled=False) for shape in self.shapes]


def _powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(first << step for step in range(32) if first << step <= last)


SWEEPS: tuple[Sweep, ...] = (
    Sweep(CE, "rows, in the caches", tuple((rows, 1000) for rows in _powers(64, 1024)), variant="inplace"),
    Sweep(CE, "rows, from memory", tuple((rows, 1000) for rows in _powers(16384, 131072)), variant="inplace"),
    Sweep(CE, "few classes", tuple((8192, classes) for classes in _powers(8, 128)), variant="inplace"),
    Sweep(CE, "classes, in the caches", tuple((1024, classes) for classes in _powers(256, 2048)), variant="inplace"),
    Sweep(CE, "classes, from memory", tuple((512, classes) for classes in _powers(32768, 262144)), variant="inplace"),
    Sweep(BCE, "rows, in the caches", tuple((rows, 1024) for rows in _powers(64, 1024)), part="forward"),
    Sweep(BCE, "rows, from memory", tuple((rows, 1024) for rows in _powers(16384, 131072)), part="forward"),
    Sweep("Adam", "tensors, in the caches", tuple((tensors, 65536) for tensors in _powers(1, 8))),
    Sweep("Adam", "tensors, from memory", tuple((tensors, 65536) for tensors in _powers(128, 1024))),
    Sweep("Adam", "elements of each of 16", tuple((16, elements) for elements in _powers(1024, 32768))),
)
THREAD_SWEEPS: tuple[Case, ...] = (
    Case(CE, (2048, 32000), (64, 32000), compiled=False),
    Case(BCE, (4096, 4096), (512, 1024), compiled=False),
    Case("Adam", _BIG, _BIG_QUICK, compiled=False),
)

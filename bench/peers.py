"""What a row is compared with: a registry of peers, each of which says why it is missing.

torch's own are always there. The others are optional; ``make bench-peers`` installs them (bench/peers.txt). With
Python 3.11, torch 2.13.0+cpu and gcc 12 all three of them install and run:

* ``deepspeed`` 0.19.8, DeepSpeedCPUAdam: compiles its kernel at the first use (36 s on two cores; needs ninja and a
  C++ compiler). Its OpenMP is torch's as long as torch brings ``libgomp.so.1``, and so are its threads. It has Adam and
  AdamW alone, and keeps float32 moments of bfloat16 parameters, which is more bytes than the row's.
* ``torchao`` 0.18.0, ``_AdamW``: one ``torch.compile`` for every distinct shape, so it is left out of models' lists,
  whose compilation would take minutes. It is the base of torchao's 8-bit, 4-bit and fp8 Adams with states that are not
  quantised; those do other work, with other results, and are no peers of a row. Its CPUOffloadOptimizer needs a GPU.
* ``jax`` 0.10.2 (the last for Python 3.11) with ``optax`` 0.2.8, jitted: see `bench.jax_peer`.

A peer's result must be ours to the row's tolerance; if it is not, its time carries a mark.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import sysconfig
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench import functions, jax_peer, optimizers
from bench.cases import CE, OPTIMIZERS, Case
from bench.functions import Inputs
from bench.timing import Step

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns, when it is imported, that it found no GPU


@functools.cache
def _missing(modules: tuple[str, ...]) -> str:
    for module in modules:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as problem:  # a package that is there may still fail in its own ways
            lines = str(problem).strip().splitlines()
            return f"{module} does not import: {type(problem).__name__}: {lines[0] if lines else ''}"
    return ""


@dataclass(frozen=True)
class Peer:
    """One contestant besides ours.

    `takes` says which rows it is compared in, `build` makes its step from the row and what its contestants share
    (functions: `Inputs`; optimizers: nothing), `modules` must import, `packages` are those whose versions count.
    """

    name: str
    title: str
    takes: Callable[[Case], bool]
    build: Callable[[Case, Any], Step]
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    compiles: bool = False  # whether ``--no-compile`` leaves it out

    @property
    def optional(self) -> bool:
        """Whether it comes from a package that need not be there."""
        return bool(self.packages)

    def missing(self) -> str:
        """Why the peer cannot run here; empty if it can."""
        reason = _missing(self.modules)
        return f"{reason}; make bench-peers installs it" if reason and self.optional else reason

    def versions(self) -> str:
        """The packages and their versions."""
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in self.packages)


def _eager(case: Case, inputs: Any) -> Step:
    if case.is_optimizer:
        return optimizers.torchs(case, foreach=True)
    return functions.step(case, getattr(torch.nn.functional, case.op), inputs)


def _compile(case: Case, inputs: Inputs) -> Step:
    torch._dynamo.reset()
    plain = getattr(torch.nn.functional, case.op)
    return functions.step(case, torch.compile(lambda *args: plain(*args), dynamic=False), inputs)


def _normal(case: Case, inputs: None) -> Step:
    """Our own step, on moments that have not underflowed."""
    return optimizers.ours(replace(case, variant="fresh"))


def _operator(case: Case, inputs: Inputs) -> Step:
    """The call's operator, without the function around it: mean over rows, nothing ignored, no gradient."""
    operator = torch.ops.fused_ml.cross_entropy.default
    return functions.step(case, lambda x, target: operator(x, target, 1, -100, False)[0], inputs)


class _KernelStep(Step):
    """The kernel of a call without torch: NumPy arrays in, the rows' losses out."""

    def __init__(self, case: Case, inputs: Inputs) -> None:
        import numpy as np

        import fused_ml
        from bench import raw

        self.losses = np.empty(case.shape[0], np.float32)
        arrays = (inputs.plain.numpy(), inputs.args[0].numpy(), self.losses)
        self.run = functools.partial(raw.cross_entropy, *arrays, isa=fused_ml.cpu_isa())

    def call(self) -> None:
        """The kernel, and pybind11's way to it."""
        self.run()

    def result(self) -> list[Tensor]:
        """The mean over the rows."""
        self.run()
        return [torch.tensor(self.losses.mean())]


def _deepspeed(case: Case, inputs: None) -> Step:
    scripts = sysconfig.get_path("scripts")
    if scripts not in os.environ["PATH"].split(os.pathsep):  # ninja may be in the environment alone
        os.environ["PATH"] = scripts + os.pathsep + os.environ["PATH"]
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    options = {"weight_decay": 0.0, **OPTIMIZERS[case.op], "adamw_mode": case.op == "AdamW"}
    return optimizers.OptimizerStep(
        case, lambda params: DeepSpeedCPUAdam(params, **options), clip=case.variant == "clip"
    )


def _torchao(case: Case, inputs: None) -> Step:
    from torchao.optim.adam import _AdamW

    torch._dynamo.reset()
    options = {"weight_decay": 0.0, **OPTIMIZERS[case.op]}
    return optimizers.OptimizerStep(case, lambda params: _AdamW(params, **options), clip=case.variant == "clip")


def _plain_adam(case: Case) -> bool:
    return case.op in ("Adam", "AdamW") and case.variant in ("fresh", "clip", "ema")


def _has_fused(case: Case) -> bool:
    return case.is_optimizer and "fused" in inspect.signature(getattr(torch.optim, case.op)).parameters


def _raw_kernel(case: Case) -> bool:
    return case.variant == "call" and case.op == CE and case.dtype == "float32"


PEERS: tuple[Peer, ...] = (
    Peer("eager", "eager", lambda case: True, _eager),
    Peer("compile", "compile", lambda case: not case.is_optimizer, _compile, compiles=True),
    Peer("fused", "fused=True", _has_fused, lambda case, _: optimizers.torchs(case, fused=True)),
    Peer("normal", "normal", lambda case: case.variant == "denormal", _normal),
    Peer("operator", "operator", lambda case: case.variant == "call" and case.op == CE, _operator),
    Peer("kernel", "kernel", _raw_kernel, _KernelStep, ("bench.raw",)),
    Peer("deepspeed", "DeepSpeed", _plain_adam, _deepspeed, ("deepspeed",), ("deepspeed",)),
    Peer(
        "torchao", "torchao", lambda case: _plain_adam(case) and not case.model, _torchao,
        ("torchao.optim.adam",), ("torchao",), compiles=True,
    ),
    Peer("jax", "JAX", jax_peer.takes, jax_peer.build, ("jax", "optax"), ("jax", "optax")),
)  # fmt: skip
NAMES = tuple(peer.name for peer in PEERS)
TITLES = {peer.name: peer.title for peer in PEERS}
RIVALS = tuple(name for name in NAMES if name not in ("normal", "operator", "kernel"))  # the same work another way
BUILT_IN = tuple(peer.name for peer in PEERS if not peer.optional)


def of(case: Case) -> list[Peer]:
    """The peers that `case` is compared with, here or elsewhere."""
    return [peer for peer in PEERS if peer.takes(case) and (case.compiled or not peer.compiles)]


def about(names: tuple[str, ...]) -> dict[str, str]:
    """For each of the optional peers among `names`: its versions, or why it is missing."""
    chosen = [peer for peer in PEERS if peer.optional and peer.name in names]
    return {peer.name: f"missing: {peer.missing()}" if peer.missing() else peer.versions() for peer in chosen}

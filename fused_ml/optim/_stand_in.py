"""The fused step on instances of torch's own optimizers, while :func:`fused_ml.patch_torch` is in force.

The classes and their `step` stay the objects they are; what is exchanged is the code of the innermost function of
`step`. Another function in its place would reach too few: for its hooks torch wraps the one that it meets on whichever
subclass is made first, a scheduler keeps the one that it finds, and so do trainers' wrappers. All of them end in that
function, and all that they do is done around it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import Optimizer

from fused_ml._explain import note, warn_fallback
from fused_ml.optim._base import FusedStep

_stand_ins: WeakKeyDictionary[Optimizer, FusedStep] = WeakKeyDictionary()


class _TorchStep:
    """The step of a class of torch's, whose code `put_in_place` exchanges for `code`."""

    def __init__(self, cls: type[Optimizer], code: CodeType) -> None:
        self.cls, self.code = cls, code
        self.function: Any = inspect.unwrap(cls.step)
        self.is_torchs = getattr(self.function, "__globals__", {}).get("__name__") == cls.__module__
        if self.is_torchs:
            f = self.function
            self.own = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, f.__closure__)

    def put_in_place(self) -> None:
        if self.is_torchs:
            self.function.__code__ = self.code
        else:
            warn_fallback(f"optim.{self.cls.__name__}", "its step is not torch's: some library has replaced it")

    def take_back(self) -> None:
        if self.is_torchs:
            self.function.__code__ = self.own.__code__


def _code_of_step(name: str) -> CodeType:
    """Code for the step of torch's class of this name: it runs, and torch.compile compiles it, with torch's names."""

    def step(self, closure=None):
        from fused_ml.optim._stand_in import step

        return step("NAME", self, closure)

    code = step.__code__
    return code.replace(co_consts=tuple(name if const == "NAME" else const for const in code.co_consts))


# By the class that has it: AdamW's step is Adam's.
_steps = {
    cls.__name__: _TorchStep(cls, _code_of_step(cls.__name__)) for cls in FusedStep.known if "step" in cls.__dict__
}


def put_in_place() -> None:
    """Let torch's own classes step by the kernels."""
    for each in _steps.values():
        each.put_in_place()


def take_back() -> None:
    """Give torch's steps their own code again, and forget what was made for the kernels."""
    for each in _steps.values():
        each.take_back()
    _stand_ins.clear()


def step(name: str, optimizer: Optimizer, closure: Callable[[], Any] | None) -> Any:
    """What the step of torch's class of this name does meanwhile, inside its hooks and without gradients."""
    theirs = _steps[name]
    kinds = (FusedStep.known.get(cls) for cls in type(optimizer).__mro__ if issubclass(cls, theirs.cls))
    return _step(optimizer, closure, next(filter(None, kinds), FusedStep.known[theirs.cls]), theirs.own)


def _step(optimizer: Optimizer, closure: Callable[[], Any] | None, fused: type[FusedStep], own: FunctionType) -> Any:
    if torch.compiler.is_compiling():
        note(fused._name(), "torch.compile compiles torch's step")
        return own(optimizer, closure)
    if not _is_torchs_own(optimizer, fused._torch_optimizer):
        if not isinstance(optimizer, FusedStep):  # whose torch's step this is
            note(fused._name(), "a subclass changes the step, or a GradScaler watches it (fused=True)")
        return own(optimizer, closure)
    loss = None
    if closure is not None:
        with torch.enable_grad():
            loss = closure()
    if not _stand_in(optimizer, fused)._update_by_plan():
        own(optimizer)
    return loss


def _is_torchs_own(optimizer: Optimizer, base: type[Optimizer]) -> bool:
    """Whether torch's step, run on `optimizer`, would run nothing but torch's code, and no GradScaler counts on it.

    A fused optimizer comes here for torch's step, and a step that a GradScaler watches (of `fused=True`) unscales the
    gradients where they are.
    """
    if isinstance(optimizer, FusedStep) or not isinstance(optimizer, base):
        return False
    own = vars(optimizer)
    if own.get("grad_scale") is not None or own.get("found_inf") is not None or "_init_group" in own:
        return False
    if type(optimizer).__hash__ is not object.__hash__:
        return False
    for cls in type(optimizer).__mro__:
        if function := cls.__dict__.get("_init_group"):
            # In torch's classes torch.compile wraps it in another function of torch's.
            names = getattr(function, "__globals__", {})
            return cls in base.__mro__ and names.get("__name__", "").startswith("torch.")
    return False


def _stand_in(optimizer: Optimizer, fused: type[FusedStep]) -> FusedStep:
    """A fused optimizer of the same groups and states. It is kept beside the instance, on which nothing is left."""
    stand_in = _stand_ins.get(optimizer)
    if stand_in is None:
        stand_in = _stand_ins[optimizer] = fused.__new__(fused)
        stand_in._begin()
        stand_in._max_grad_norm = None
        warned = "_warned_capturable_if_run_uncaptured"
        setattr(stand_in, warned, getattr(optimizer, warned, False))
    stand_in.defaults, stand_in.state = optimizer.defaults, optimizer.state
    stand_in.param_groups = optimizer.param_groups
    return stand_in

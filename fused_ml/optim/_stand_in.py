"""The fused step on instances of torch's own SGD, Adam and AdamW, while :func:`fused_ml.patch_torch` is in force.

The classes and their `step` stay the objects they are; what is exchanged is the code of the innermost function of
`step`. Another function in its place would reach too few: for its hooks torch wraps the one that it meets on whichever
subclass is made first, a scheduler keeps the one that it finds, and so do trainers' wrappers. All of them end in that
function, and all that they do is done around it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import Optimizer

from fused_ml.optim._base import FusedStep
from fused_ml.optim.adam import Adam
from fused_ml.optim.adamw import AdamW
from fused_ml.optim.sgd import SGD

Step = Callable[..., Any]

_stand_ins: WeakKeyDictionary[Optimizer, FusedStep] = WeakKeyDictionary()


def _copy(function: FunctionType) -> FunctionType:
    code, names = function.__code__, function.__globals__
    return FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)


_sgd: Any = inspect.unwrap(torch.optim.SGD.step)
_adam: Any = inspect.unwrap(torch.optim.Adam.step)  # AdamW's too
_own_sgd, _own_adam = _copy(_sgd), _copy(_adam)


# Their code runs with the names of torch's modules.
def _sgd_code(self, closure=None):
    from fused_ml.optim._stand_in import sgd_step

    return sgd_step(self, closure)


def _adam_code(self, closure=None):
    from fused_ml.optim._stand_in import adam_step

    return adam_step(self, closure)


def put_in_place() -> None:
    """Let torch's own classes step by the kernels."""
    _sgd.__code__ = _sgd_code.__code__
    _adam.__code__ = _adam_code.__code__


def take_back() -> None:
    """Give torch's steps their own code again, and forget what was made for the kernels."""
    _sgd.__code__ = _own_sgd.__code__
    _adam.__code__ = _own_adam.__code__
    _stand_ins.clear()


def sgd_step(optimizer: Optimizer, closure: Callable[[], Any] | None) -> Any:
    """What torch.optim.SGD.step does meanwhile, inside its hooks and without gradients."""
    return _step(optimizer, closure, SGD, _own_sgd)


def adam_step(optimizer: Optimizer, closure: Callable[[], Any] | None) -> Any:
    """What torch.optim.Adam.step, which is AdamW's too, does meanwhile."""
    return _step(optimizer, closure, AdamW if isinstance(optimizer, torch.optim.AdamW) else Adam, _own_adam)


def _step(optimizer: Optimizer, closure: Callable[[], Any] | None, fused: type[FusedStep], own: Step) -> Any:
    if torch.compiler.is_compiling() or not _is_torchs_own(optimizer, fused._torch_optimizer):
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
        stand_in._warned_capturable_if_run_uncaptured = True
    stand_in.defaults, stand_in.state = optimizer.defaults, optimizer.state
    stand_in.param_groups = optimizer.param_groups
    return stand_in

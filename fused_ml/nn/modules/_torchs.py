"""How torch.fx and torch.jit.script take a fused module: as torch's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

import torch


def is_ours(cls: type) -> bool:
    """Whether the class is one of ours, and no subclass."""
    return cls.__module__.rpartition(".")[0] == __package__


class TracedAsTorchs:
    """Lets torch.fx keep a fused module as one node, as it keeps torch's.

    Its tracers ask whether a module's ``__module__`` is within ``torch.nn``, so the instance says what torch's says;
    the class, by which it is pickled and made again, does not. A subclass elsewhere is traced into, as one of torch's.
    """

    __jit_ignored_attributes__ = ["__module__"]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if is_ours(cls):
            cls.__init__ = _saying_where_torchs_is(cls.__init__)  # type: ignore[method-assign]


def _saying_where_torchs_is(constructor: Callable[..., None]) -> Callable[..., None]:
    @wraps(constructor)
    def __init__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        constructor(self, *args, **kwargs)
        if is_ours(type(self)):
            self.__module__ = type(self).__bases__[0].__module__

    __init__.__signature__ = signature(constructor)  # type: ignore[attr-defined]  # inspect.getfullargspec unwraps nothing
    return __init__


def in_torchs_words(module: torch.nn.Module, cls: type[torch.nn.Module], extras: dict[str, Any]) -> torch.nn.Module:
    """torch's own module in place of `module`, for torch.jit.script, which reads no keyword-only arguments.

    `extras` are the options that torch's module lacks, with the values that leave them out.
    """
    if not is_ours(type(module)):
        return module  # a subclass with a forward of its own
    for name, absent in extras.items():
        if getattr(module, name) != absent:
            raise RuntimeError(
                f"torch.jit.script: expected fused_ml.nn.{cls.__name__} without options of its own, got "
                f"{name}={getattr(module, name)}: TorchScript knows torch's operators alone"
            )
    torchs = cls.__new__(cls)
    torchs.__dict__.update({name: value for name, value in module.__dict__.items() if name not in extras})
    del torchs.__dict__["__module__"]
    return torchs

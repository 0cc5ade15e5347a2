"""Puts the fused functions, modules and optimizers under torch's own names, and restores torch's."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import torch

from fused_ml import nn, optim
from fused_ml.nn.functional import FUSED as FUNCTIONS

_NAMESPACES = (
    ("nn.functional", torch.nn.functional, nn.functional, FUNCTIONS),
    ("nn", torch.nn, nn, nn.FUSED),
    ("nn.modules", torch.nn.modules, nn, nn.FUSED),
    ("optim", torch.optim, optim, optim.FUSED),
)
_originals: list[tuple[object, str, object]] = []


def fused_ops() -> list[str]:
    """The fused names, as they are under ``torch``: ``"nn.functional.cross_entropy"``, ``"optim.Adam"``, ...

    >>> "nn.functional.cross_entropy" in fused_ops()
    True
    """
    return [f"{name}.{each}" for name, _, _, fused in _NAMESPACES if name != "nn.modules" for each in fused]


def _show_names_to_dynamo() -> None:
    """Let torch.compile note which functions are torch's own while the names still say so.

    It looks once, when first needed; found under torch's names, ours would go into graphs as torch's, and lose their
    kernels there.
    """
    with contextlib.suppress(ImportError, AttributeError):
        trace_rules = importlib.import_module("torch._dynamo.trace_rules")
        trace_rules.get_torch_obj_rule_map()


def enable() -> None:
    """Put every fused name in torch's namespaces, for code that cannot be edited. Idempotent."""
    if _originals:
        return
    _show_names_to_dynamo()
    for _, theirs, ours, names in _NAMESPACES:
        for name in names:
            if hasattr(theirs, name):
                _originals.append((theirs, name, getattr(theirs, name)))
                setattr(theirs, name, getattr(ours, name))


def disable() -> None:
    """Restore exactly what :func:`enable` replaced. Idempotent."""
    while _originals:
        theirs, name, original = _originals.pop()
        setattr(theirs, name, original)


@contextlib.contextmanager
def patch_torch() -> Iterator[None]:
    """Within the block, torch's own names are the fused ones; an outer :func:`enable` stays in force after it.

    >>> with patch_torch():
    ...     loss = torch.nn.functional.cross_entropy(torch.randn(4, 3), torch.randint(3, (4,)))
    """
    outer = bool(_originals)
    enable()
    try:
        yield
    finally:
        if not outer:
            disable()

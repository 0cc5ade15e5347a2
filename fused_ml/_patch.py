"""Puts the fused functions and steps under torch's own names, and gives torch's back. No class is replaced."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

from fused_ml import nn, optim
from fused_ml.nn.functional import FUSED as FUNCTIONS
from fused_ml.optim import _stand_in

_lock = threading.RLock()
_users = 0  # blocks under way, and one for enable()
_enabled = False
_replaced: dict[str, Any] = {}  # what was in torch.nn.functional, while our functions are


def fused_ops() -> list[str]:
    """The fused names, as they are under ``torch``: ``"nn.functional.cross_entropy"``, ``"optim.Adam"``, ...

    These :mod:`fused_ml` has under the same names, and these :func:`patch_torch` makes fused under torch's.

    >>> "nn.functional.cross_entropy" in fused_ops()
    True
    """
    spaces = (("nn.functional", FUNCTIONS), ("nn", nn.FUSED), ("optim", optim.FUSED))
    return [f"{space}.{name}" for space, names in spaces for name in names]


def _show_names_to_dynamo() -> None:
    """Let torch.compile note which functions are torch's own while the names still say so.

    It looks once, when first needed; found under torch's names, ours would go into graphs as torch's, and lose their
    kernels there.
    """
    with contextlib.suppress(ImportError, AttributeError):
        trace_rules = importlib.import_module("torch._dynamo.trace_rules")
        trace_rules.get_torch_obj_rule_map()


def _come_in() -> None:
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        try:
            _show_names_to_dynamo()
            for name in FUNCTIONS:
                _replaced[name] = getattr(torch.nn.functional, name)
                setattr(torch.nn.functional, name, getattr(nn.functional, name))
            _stand_in.put_in_place()
        except BaseException:  # a warning that is an error, an interrupt
            _go_out()
            raise


def _go_out() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _stand_in.take_back()
            while _replaced:
                setattr(torch.nn.functional, *_replaced.popitem())


def enable() -> None:
    """Make torch's own names fused, as :func:`patch_torch` says, until :func:`disable`. Idempotent."""
    global _enabled
    with _lock:
        if not _enabled:
            _come_in()
            _enabled = True


def disable() -> None:
    """Take back what :func:`enable` did; a :func:`patch_torch` block under way stays in force. Idempotent."""
    global _enabled
    with _lock:
        if _enabled:
            _enabled = False
            _go_out()


@contextlib.contextmanager
def patch_torch() -> Iterator[None]:
    """Within the block, torch's own names are the fused ones, for code that cannot be edited.

    What they do changes, not what they are: ``torch.nn.functional`` has the fused functions, which torch's modules
    look up when they are called, and the `step` of ``torch.optim.SGD``, ``Adam``, ``AdamW`` and ``RMSprop`` runs the
    kernels on the optimizer as it is. Classes, ``isinstance``, pickles and subclasses stay as they were; modules,
    optimizers and schedulers made before the block are fused within it, and torch's again after it. A step is torch's
    own where a subclass overrides ``_init_group``, where a GradScaler watches it (``fused=True``) and inside
    ``torch.compile``.

    It holds for all threads, while at least one block, or :func:`enable`, is in force.

    A function that was bound by its own name (``from torch.nn.functional import cross_entropy``, a table of
    functions) stays the one that it was when it was bound, before the block, within it or after it.

    Only the functions take fused_ml's own keywords under torch's names; torch's modules and optimizers have no
    ``z_loss``, ``focal_gamma`` or ``max_grad_norm``: use :mod:`fused_ml.nn` and :mod:`fused_ml.optim` for those.

    >>> with patch_torch():
    ...     loss = torch.nn.CrossEntropyLoss()(torch.randn(4, 3), torch.randint(3, (4,)))
    """
    _come_in()
    try:
        yield
    finally:
        _go_out()

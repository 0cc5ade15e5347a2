"""The `__init__` of a fused optimizer: torch's, as it is in the torch that runs, and `max_grad_norm`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

_EXTRA = inspect.Parameter("max_grad_norm", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=float | None)


def constructor(cls: type[Any], theirs: type[Optimizer]) -> Callable[..., None]:
    """An `__init__` for `cls` that passes everything on, and says that it takes what that of `theirs` takes.

    Libraries filter keywords by it; torch adds some over time, so that they are not written down here.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super(cls, self).__init__(*args, **kwargs)

    signature = inspect.signature(theirs.__init__)
    parameters = [*signature.parameters.values(), _EXTRA]
    __init__.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    __init__.__annotations__ = {**theirs.__init__.__annotations__, _EXTRA.name: _EXTRA.annotation}
    __init__.__module__, __init__.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    return __init__

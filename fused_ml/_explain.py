"""Which calls the kernels answer, which torch does, and why: listed on request, and warned about once each."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

import torch


class FusedFallbackWarning(UserWarning):
    """A valid call went to torch's own implementation because no fused kernel covers it."""


class Call(NamedTuple):
    """One kind of call at one place in a program."""

    name: str  #: as in :func:`fused_ml.fused_ops`; a backward pass that is torch's: with ``" (backward)"`` behind it
    reason: str  #: why torch's own implementation answers it; empty: a kernel does
    where: str  #: the first line of the program outside of torch and fused_ml, ``"file:line"``; empty: not known
    compiled: bool  #: met while torch.compile or torch.export traced, not while it ran

    @property
    def fused(self) -> bool:
        """Whether a kernel answers."""
        return not self.reason


class Explanation:
    """What :func:`explain` and :func:`explaining` return: the calls met, and how often; printed, a table."""

    def __init__(self) -> None:
        self.counts: Counter[Call] = Counter()  #: how often each was met
        self.result: Any = None  #: what the explained function returned

    @property
    def calls(self) -> list[Call]:
        """The calls, in the order in which they were first met."""
        return list(self.counts)

    def __str__(self) -> str:
        rows = [("call", "times", "by", "at", "why")]
        for call, count in self.counts.items():
            by = "kernel" if call.fused else "torch"
            rows.append((call.name, str(count), by + (", compiled" if call.compiled else ""), call.where, call.reason))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines if self.counts else ["no call of a fused name was met"])


listening: list[Explanation] = []
_warned: set[tuple[str, str]] = set()
_PACKAGES = ("fused_ml", "torch")
_FOLDERS = tuple(os.path.dirname(os.path.abspath(path)) + os.sep for path in (__file__, torch.__file__))


@contextlib.contextmanager
def explaining() -> Iterator[Explanation]:
    """Within the block, list each call of a fused name: whether a kernel answers it or torch does, and why.

    The calls of all threads are listed. Of code under ``torch.compile`` and ``torch.export`` those that are traced
    within the block: it is traced anew in the first block that it meets, and, after ``torch.compiler.reset()``, in
    another.

    >>> with explaining() as found:
    ...     loss = fused_ml.nn.functional.cross_entropy(torch.randn(4, 3), torch.randint(3, (4,)))
    >>> [(call.name, call.fused) for call in found.calls]
    [('nn.functional.cross_entropy', True)]
    """
    found = Explanation()
    listening.append(found)
    try:
        yield found
    finally:
        listening[:] = [other for other in listening if other is not found]


def explain(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
    """Call `function` and list its calls of fused names, as :func:`explaining` does; `result` is what it returns.

    >>> print(explain(fused_ml.nn.functional.softmax, torch.ones(2, 2), 1))  # doctest: +ELLIPSIS
    call                   times  by      at ...
    nn.functional.softmax  1      kernel ...
    """
    with explaining() as found:
        found.result = function(*args, **kwargs)
    return found


def note(name: str, reason: str = "") -> None:
    """Tell who listens that a kernel answers the call; with a reason, that torch does."""
    if listening:  # compiled code is traced anew where that has changed
        _tell(name, reason)


def warn_fallback(name: str, reason: str) -> None:
    """Note that torch answers the call, and warn once for each name and reason, at the user's line."""
    note(name, reason)
    if torch.compiler.is_compiling() or (name, reason) in _warned:
        return
    _warned.add((name, reason))
    text = f"fused_ml: {name} runs torch's own implementation: {reason}"
    warnings.warn(text, FusedFallbackWarning, stacklevel=1 + _levels_to_user(sys._getframe(0)))


def _tell(name: str, reason: str) -> None:
    traced = torch.compiler.is_compiling() or torch._guards.TracingContext.try_get() is not None
    call = Call(name, reason, _traced_place() if traced else _place(sys._getframe(1)), traced)
    for found in list(listening):
        found.counts[call] += 1


# torch.compile runs it while it traces, as a constant: what torch.compiler.assume_constant_result sets.
_tell._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _is_users(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] not in _PACKAGES


def _levels_to_user(frame: FrameType) -> int:
    """How many frames above `frame` the first one is that is neither torch's nor ours; 1 if there is none."""
    levels, at = 0, frame.f_back
    while at is not None:
        levels += 1
        if _is_users(at):
            return levels
        at = at.f_back
    return 1


def _place(frame: FrameType | None) -> str:
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _traced_place() -> str:
    """The user's line that torch.compile is tracing; where it does not trace (torch.export), the one that runs."""
    for frame in reversed(torch._guards.TracingContext.extract_stack()):
        if not os.path.abspath(frame.filename).startswith(_FOLDERS):
            return f"{frame.filename}:{frame.lineno}"
    return _place(sys._getframe(1))

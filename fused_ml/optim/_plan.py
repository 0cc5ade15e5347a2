"""A plan: the tensors of one step handed to the compiled library once, and used until something changes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import chain
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

import fused_ml._library  # noqa: F401
from fused_ml._fallback import no_kernel_for

_ops = torch.ops.fused_ml
_bind = _ops.multi_tensor_bind.default
_bind_in_place = _ops.multi_tensor_bind_in_place.default
_PLAIN_TYPES = (Tensor, Parameter)
_END = (object(),)
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Problem(IntEnum):
    """Why the compiled library declines a parameter; csrc/multi_tensor_plan.h has the same list."""

    none = 0
    device = 1
    layout = 2
    dtype = 3
    state_dtype = 4
    shape = 5
    overlap = 6
    dimensions = 7
    step = 8


class ParameterState(NamedTuple):
    """One parameter's tensors in the order of the formula's states."""

    states: Sequence[Tensor]
    step: Tensor | None
    fresh: dict[str, Tensor]  # what the optimizer's state lacks: put there when the step goes ahead
    first: bool = False  # the states are new, and zero


def unsuitable(tensors: Iterable[Any]) -> str | None:
    """Why a kernel cannot read the first of `tensors` that it cannot read, or None."""
    for tensor in tensors:
        if type(tensor) not in _PLAIN_TYPES:
            return "tensor subclasses have no kernel"
        if tensor.device.type != "cpu":
            return no_kernel_for(tensor.device.type)
        if tensor.dtype not in _DTYPES:
            return f"there is no kernel for {tensor.dtype}"
        if tensor.is_neg():
            return "there is no kernel for tensors whose negation is pending"
    return None


def _values(state: dict[Any, Any]) -> chain[Any]:
    """Every object in the state of every parameter, then an end mark."""
    return chain(chain.from_iterable(map(dict.values, state.values())), _END)


def _identical(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))


class Plan:
    """The parameters that have a gradient, with their states.

    Objects are compared by identity at every step, in Python; what may change within an object (address,
    sizes, strides, type) the compiled library compares.
    """

    def __init__(
        self,
        params: list[Tensor],
        active: list[Tensor],
        kinds: list[int],
        groups: list[int],
        entries: list[ParameterState],
    ) -> None:
        self.params = params  # of all groups
        self.active = active  # those of them with a gradient
        self.kinds = kinds  # what each group asks of the formula
        self.groups = groups  # the number of each active parameter's group
        self.entries = entries
        self.fresh = [(p, entry.fresh) for p, entry in zip(active, entries, strict=True) if entry.fresh]
        states = [state for entry in entries for state in entry.states]
        steps = [entry.step for entry in entries if entry.step is not None]
        self.number: int = _ops.multi_tensor_plan(
            states,
            steps,
            groups,
            [len(entry.states) for entry in entries],
            [entry.first for entry in entries],
        )
        weakref.finalize(self, _ops.multi_tensor_free, self.number).atexit = False
        self.state_values: list[Any] = []
        self.committed = False

    def tensors_of(self, index: int) -> list[tuple[str, Tensor]]:
        """The gradient and the states of active parameter `index`, named."""
        grad = self.active[index].grad
        assert grad is not None
        entry = self.entries[index]
        return [("grad", grad), *((f"state {k}", state) for k, state in enumerate(entry.states))]

    def commit(self, state: dict[Any, Any]) -> None:
        """Put the states made for this plan where the optimizer keeps its own."""
        for p, fresh in self.fresh:
            state[p].update(fresh)
        self.fresh = []
        self.committed = True
        entries = [entry for entry in state.values() if isinstance(entry, dict)]
        self.state_values = [value for entry in entries for value in entry.values()] + list(_END)

    def holds(self, params: list[Tensor], kinds: list[int], state: dict[Any, Any]) -> bool:
        """Whether every object is still the one that was planned with."""
        if kinds != self.kinds or not _identical(params, self.params):
            return False
        try:
            return all(map(is_, _values(state), self.state_values))
        except TypeError:  # someone keeps an object of their own among the states: a new plan at every step
            return False

    def bind(self, grads: list[Tensor]) -> tuple[Problem, int]:
        """Hand over this step's gradients; what stands in the way of the step, and at which parameter."""
        if all(map(Tensor.is_contiguous, self.active)):
            addresses = list(map(Tensor.data_ptr, self.active))
            if _bind_in_place(self.number, addresses, grads):
                return Problem.none, 0
        result = _bind(self.number, self.active, grads)
        return Problem(result % 16), result // 16

    def square_sum(self) -> float:
        """Sum of the squares of all bound gradients."""
        return _ops.multi_tensor_square_sum(self.number)

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

from fused_ml._library import cuda_problem, no_kernel_for
from fused_ml.optim._family import on_host
from fused_ml.optim._shards import Shards, all_shards, is_dtensor, local, partial, placed, shards_of, sum_over_shards

try:
    from fused_ml._gather import gather
except ImportError:  # a Python without the limited API; the step then takes the long way
    gather = None  # type: ignore[assignment]

_FIRST, _HOST_STEP = 1, 2  # csrc/operators/plan.h's StateFlag
_PLAIN_TYPES = (Tensor, Parameter)
_GRADIENTS = {*_PLAIN_TYPES, type(None)}
_VIEW_BYTES = 48  # of a csrc/operators/tensor_view.h
_FLOATS = {float}
NO_MEMORY = "meta and fake tensors hold no elements"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Problem(IntEnum):
    """Why the compiled library declines a parameter; csrc/operators/plan.h has the same list."""

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


def operators_for(device: torch.device) -> Any:
    """The library's operators for a plan on `device`."""
    return torch.ops.fused_ml_cuda if device.type == "cuda" else torch.ops.fused_ml


def unsuitable(tensors: Iterable[Any]) -> str | None:
    """Why a kernel cannot read the first of `tensors` that it cannot read, or None."""
    for tensor in map(local, tensors):
        if tensor.is_meta or type(tensor).__name__ == "FakeTensor":
            return NO_MEMORY
        if type(tensor) not in _PLAIN_TYPES:
            return "tensor subclasses have no kernel"
        if tensor.device.type != "cpu" and (tensor.device.type != "cuda" or cuda_problem()):
            return no_kernel_for(tensor.device.type)
        if tensor.dtype not in _DTYPES:
            return f"there is no kernel for {tensor.dtype}"
        if tensor.is_neg():
            return "there is no kernel for tensors whose negation is pending"
    return None


def apart(param: Tensor, others: Iterable[Tensor]) -> str | None:
    """Why a kernel cannot step the elements that this process has of a parameter by those that it has of `others`."""
    where = placed(param)
    if partial(param) or any(placed(other) != where for other in others):
        return "there is no kernel for DTensors whose gradients or states are placed otherwise"
    return None


def _values(state: dict[Any, Any]) -> chain[Any]:
    """Every object in the state of every parameter."""
    return chain.from_iterable(map(dict.values, state.values()))


def _identical(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))


class Part:
    """The share of a plan that lies on one device, in shards of one kind, held by the compiled library."""

    def __init__(self, device: torch.device, shards: Shards | None, plan: Plan, indices: list[int]) -> None:
        self.device = device
        self.shards = shards
        self.active = [local(plan.active[i]) for i in indices]
        self.indices = indices
        self.operators = ops = operators_for(device)
        entries = [plan.entries[i] for i in indices]
        self.number: int = ops.multi_tensor_plan(
            torch.empty(0, device=device),
            [local(state) for entry in entries for state in entry.states],
            [entry.step for entry in entries if entry.step is not None],
            [plan.groups[i] for i in indices],
            [plan.kinds[plan.groups[i]] for i in indices],
            [_FIRST * entry.first + _HOST_STEP * (entry.step is not None and on_host(entry.step)) for entry in entries],
        )
        self.views = torch.empty(2 * _VIEW_BYTES * len(indices), dtype=torch.uint8, device="cpu")
        weakref.finalize(self, ops.multi_tensor_free, self.number).atexit = False

    def bind(self, grads: list[Tensor]) -> int:
        """0, or a Problem + 16 times the number of the parameter among those of this device."""
        return self.operators.multi_tensor_bind.default(self.number, self.active, grads)

    def rebind(self) -> bool:
        """Bind what `views` say of parameters and gradients, if nothing has changed but the gradients' addresses."""
        return self.operators.multi_tensor_rebind.default(self.number, self.views)

    def run(self, operator: str, options: list[float], **arguments: Any) -> list[Tensor]:
        """A step, by the library's operator of this name."""
        return getattr(self.operators, operator).default(self.number, options, **arguments)

    def here(self, number: Any) -> Tensor:
        """A number, on this device."""
        if not isinstance(number, Tensor):
            number = torch.tensor(number, device="cpu")
        return number.to(self.device, non_blocking=self.device.type == "cuda")


class Plan:
    """The parameters that have a gradient, with their states.

    Objects are compared by identity at every step, in Python; what may change within an object (address,
    sizes, strides, type) the compiled library compares.
    """

    def __init__(
        self,
        params: list[Tensor],
        absent: bytes,
        kinds: list[int],
        groups: list[int],
        entries: list[ParameterState],
    ) -> None:
        self.params = params  # of all groups
        self.absent = absent  # 1 for each of them without a gradient
        self.active = active = [p for p, missing in zip(params, absent, strict=True) if not missing]
        self.kinds = kinds  # which states the parameters of each group have, by bit
        self.groups = groups  # the number of each active parameter's group
        self.entries = entries
        self.fresh = [(p, entry.fresh) for p, entry in zip(active, entries, strict=True) if entry.fresh]
        self.state_values: list[Any] = []
        self.committed = False
        sharded = [p for p in params if is_dtensor(p)]
        self.shards = all_shards(sharded)
        states = [state for entry in entries for state in entry.states]
        self.locals = [(t, local(t)) for t in (*active, *states) if is_dtensor(t)] if sharded else []
        places: dict[tuple[torch.device, Shards | None], list[int]] = {}
        for i, p in enumerate(active):
            places.setdefault((p.device, shards_of(p) if sharded else None), []).append(i)
        if not active:  # this process's part of the norm, if it is asked for, is 0
            places[torch.device("cpu") if unsuitable(params[:1]) else params[0].device, None] = []
        self.parts = [Part(device, shards, self, indices) for (device, shards), indices in places.items()]
        self.on_cuda = any(device.type == "cuda" for device, _ in places)
        # Whether a step under a GradScaler waits to hear if it was skipped: for counts that the host keeps, or for
        # momentum buffers that have not had a step. csrc/operators/cuda/optimizer_step.cpp has the same rule.
        self._counts_on_host = any(entry.step is not None and on_host(entry.step) for entry in entries)
        self.waits = self._counts_on_host or any(entry.first for entry in entries)

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
        self.waits = self._counts_on_host
        entries = [entry for entry in state.values() if isinstance(entry, dict)]
        self.state_values = [value for entry in entries for value in entry.values()]

    def holds(self, params: list[Tensor], grads: list[Any], kinds: list[int], state: dict[Any, Any]) -> bool:
        """Whether every object but the gradients is still the one that was planned with, and those are plain."""
        if kinds != self.kinds or not _identical(params, self.params):
            return False
        if not _GRADIENTS.issuperset(map(type, grads)) and not self._shards_fit(params, grads):
            return False
        if any(local(tensor) is not mine for tensor, mine in self.locals):
            return False
        try:
            return _identical(list(_values(state)), self.state_values)
        except TypeError:  # someone keeps an object of their own among the states: a new plan at every step
            return False

    def _shards_fit(self, params: list[Tensor], grads: list[Any]) -> bool:
        """Whether each gradient is plain, or a DTensor of such that is placed as its parameter is."""
        pairs = [(p, grad) for p, grad in zip(params, grads, strict=True) if grad is not None]
        return all(type(local(grad)) in _PLAIN_TYPES and placed(grad) == placed(p) for p, grad in pairs)

    def rebind(self, groups: list[dict[str, Any]], kinds: list[int], state: dict[Any, Any]) -> list[Tensor] | None:
        """Hand over the gradients of a step that differs from this plan's last one in nothing but their addresses.

        None: it differs in more, and nothing is done; or the gradients, which must live until the step is done.
        """
        if gather is None or not self.committed or kinds != self.kinds or len(self.parts) != 1:
            return None
        part = self.parts[0]
        grads = gather(groups, self.params, self.absent, state, self.state_values, part.views.data_ptr())
        return grads if grads is not None and part.rebind() else None

    def bind(self, grads: list[Tensor]) -> tuple[Problem, int]:
        """Hand over this step's gradients; what stands in the way of the step, and at which parameter."""
        if self.locals:
            grads = list(map(local, grads))
        for part in self.parts:
            result = part.bind(grads if len(self.parts) == 1 else [grads[i] for i in part.indices])
            if result:
                return Problem(result % 16), part.indices[result // 16]
        return Problem.none, 0

    def square_sum(self) -> Tensor:
        """Sum of the squares of all bound gradients, over all processes that have shards of them.

        A 0-d float64 tensor, on the first device.
        """
        sums: dict[Shards | None, Tensor] = {}
        for part in self.parts:
            more = part.operators.multi_tensor_square_sum(part.number)
            sums[part.shards] = sums[part.shards] + more.to(sums[part.shards].device) if part.shards in sums else more
        return sum_over_shards(sums, self.shards) if self.shards else sums[None]

    @torch.no_grad()
    def unscale(self, scale: Tensor, skipped: Tensor | bool) -> None:
        """Divide the gradients by a GradScaler's scale, as torch's fused steps do, unless the step was skipped."""
        if isinstance(skipped, Tensor):
            scale = torch.where(skipped != 0, 1.0, scale.to(skipped.device))
        for part in self.parts:
            grads = [self.active[i].grad for i in part.indices]
            if grads:
                torch._foreach_div_([local(grad) for grad in grads if grad is not None], part.here(scale))

    def run(self, operator: str, options: list[Any], max_norm: float, numbers: dict[str, Any]) -> list[Tensor]:
        """Step by an operator; `numbers` are its optional tensors. The norm and whether it was skipped, if clipped.

        Options are numbers, or tensors that are not to be waited for.
        """
        places = []
        if set(map(type, options)) != _FLOATS:
            places = [i for i, option in enumerate(options) if isinstance(option, Tensor)]
        if not places and not numbers:
            for part in self.parts:
                part.run(operator, options)
            return []
        plain = [0.0 if isinstance(option, Tensor) else option for option in options]
        reports = []
        with torch.no_grad():
            for part in self.parts:
                arguments: dict[str, Any] = {name: part.here(number) for name, number in numbers.items()}
                arguments |= {"max_norm": max_norm, "numbers": [part.here(options[i]) for i in places]}
                reports.append(part.run(operator, plain, places=places, **arguments))
        return reports[0]

"""The one step of every fused optimizer. A subclass says what its family's options and states are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import compress, repeat
from operator import attrgetter, is_, not_
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.optim import optimizer as _torch_hooks

from fused_ml._explain import note, warn_fallback
from fused_ml._watched import traced
from fused_ml.optim._clipping import Clipping, refuse_norm_of_a_group
from fused_ml.optim._constructor import constructor
from fused_ml.optim._family import Family, on_host
from fused_ml.optim._plan import NO_MEMORY, ParameterState, Plan, Problem, apart, unsuitable
from fused_ml.optim._torch_step import torch_step

TORCH_STEP = -1  # the kind of a group whose options ask for torch's own step
_MAX_PLANS = 8  # one for each set of parameters that had gradients together
_grad_of = attrgetter("grad")


class FusedStep(Clipping):
    """Replaces the step of the torch optimizer that follows it among a class's bases.

    Constructor, checks, hooks, `repr` and state handling are torch's. A step that the kernels cannot do (see
    `_update`) is torch's too, with the same gradient scaling and clipping.
    """

    _torch_optimizer: ClassVar[type[Optimizer]]
    _family: ClassVar[Family]
    known: ClassVar[dict[type[Optimizer], type[FusedStep]]] = {}  # torch's classes, and ours in their place

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_torch_optimizer" in cls.__dict__:
            FusedStep.known[cls._torch_optimizer] = cls
            cls.__init__ = constructor(cls, cls._torch_optimizer)  # type: ignore[method-assign]

    def _begin(self) -> None:
        super()._begin()
        self._plans: dict[bytes, Plan] = {}

    # What an optimizer may have to say beyond its family.

    def _kind(self, group: dict[str, Any]) -> int:
        """The states of a parameter in `group`, by bit, or TORCH_STEP."""
        if group["differentiable"]:
            return TORCH_STEP
        # capturable on the CPU is an error of torch's own step.
        if group.get("capturable") and not group.get("fused") and any(p.is_cpu for p in group["params"]):
            return TORCH_STEP
        return self._family.states_of(group)

    def _states(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> ParameterState | None:
        """The states of `param`, new ones by torch's rules if it has none; None if they are incomplete."""
        family = self._family
        names, fresh = family.names(family.states_of(group)), {}
        if not state:
            state = fresh = self._new_state(group, param, names)
        if any(not isinstance(state.get(name), Tensor) for name in (("step", *names) if family.counts else names)):
            return None  # torch's step says what is missing
        return ParameterState([state[name] for name in names], state["step"] if family.counts else None, fresh)

    def _new_state(self, group: dict[str, Any], param: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        state = {}
        if self._family.counts:
            wide = torch.get_default_dtype() is torch.float64 and not group.get("fused")
            there = param.device if group.get("fused") or group["capturable"] else "cpu"
            state["step"] = torch.zeros((), dtype=torch.float64 if wide else torch.float32, device=there)
        for name in names:
            state[name] = torch.zeros_like(param, memory_format=torch.preserve_format, requires_grad=False)
        return state

    def _torchs_lists(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[list[Any]]]:
        """Parameters with a gradient, gradients, and the lists of states and steps, by torch's own function.

        It makes states that are not there, and refuses what torch refuses.
        """
        params: list[Tensor] = []
        grads: list[Tensor] = []
        lists: list[list[Any]] = [[] for _ in range(len(self._family.states) + self._family.counts)]
        self._init_group(group, params, grads, *lists)  # type: ignore[attr-defined]
        return params, grads, lists

    def _update_lists(self, group: dict[str, Any], factor: Tensor | None) -> None:
        """Step the parameters of `group` that have a gradient, times `factor`, by the operator that takes lists."""
        family = self._family
        params, grads, lists = self._torchs_lists(group)
        steps = lists.pop() if family.counts else []
        states = [state for states in zip(*filter(None, lists), strict=True) for state in states]
        arguments = params, grads, states, steps, family.states_of(group), family.numbers(group)
        getattr(torch.ops.fused_ml, family.run_lists)(*arguments, False, factor)

    # The step.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a single optimization step.

        Args:
            closure (Callable, optional): A closure that reevaluates the model and returns the loss.

        Afterwards `grad_norm` is the norm of the unscaled gradients before clipping, a 0-d tensor, if
        `max_grad_norm` is set. A GradScaler unscales the gradients before the step, or does not call it. With
        `fused=True` it leaves both to the step, as with torch's own: the gradients are unscaled within, and
        `skipped` says whether there was an infinity or NaN among them. On a GPU nothing waits for the device
        then, but for step counts on the host or momentum buffers that are new.
        """
        # torch's wrapper takes 25 us even with nothing to do; a subclass's own step is wrapped already.
        if type(self).step is FusedStep.step and (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _torch_hooks._global_optimizer_pre_hooks
            or _torch_hooks._global_optimizer_post_hooks
            or (not torch.compiler.is_compiling() and torch.autograd._profiler_enabled())
        ):
            return _observed_step(self) if closure is None else _observed_step(self, closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._skipped = False
        found_inf = getattr(self, "found_inf", None)
        if torch.compiler.is_compiling():
            torch_step(self)
        elif found_inf is None or traced() or not (on_host(found_inf) and self._found_inf()):
            self._update()
        return loss

    def _found_inf(self) -> bool:
        """Whether a GradScaler found an infinity or NaN; then the step is left out."""
        found_inf = getattr(self, "found_inf", None)
        self._skipped = found_inf is not None and float(found_inf) != 0.0
        if self._skipped:
            self.grad_norm = None if self._max_grad_norm is None else torch.tensor(math.inf, device="cpu")
        return self._skipped

    def _update(self) -> None:
        if not self._update_by_plan():
            torch_step(self)

    @classmethod
    def _name(cls) -> str:
        return f"optim.{cls._torch_optimizer.__name__}"

    def _update_by_plan(self) -> bool:
        """Run the kernels; False, with nothing done, if the step has to be torch's."""
        if traced():
            note(self._name(), "a transform or a tracing mode (make_fx, fake tensors) is active")
            return False
        kinds = [self._kind(group) for group in self.param_groups]
        plan = next(reversed(self._plans.values()), None)  # of the last step
        grads = None if plan is None else plan.rebind(self.param_groups, kinds, self.state)
        if grads is None:
            plan = self._bound_plan(kinds)
        if plan is None:
            return False
        note(self._name())
        self._run_plan(plan)
        return True

    def _run_plan(self, plan: Plan) -> None:
        if plan.on_cuda and "capturable" in self.defaults:
            self._check_capture()
        numbers = {}
        for name in ("grad_scale", "found_inf"):
            if (value := getattr(self, name, None)) is not None:
                numbers[name] = value
        if self._max_grad_norm is not None:
            numbers["square_sum"] = plan.square_sum()
        options = [number for group in self.param_groups for number in self._family.numbers(group)]
        report = plan.run(self._family.run, options, self._max_grad_norm or 0.0, numbers)
        if report:
            self.grad_norm, self._skipped = report
        else:
            self._skipped = numbers.get("found_inf", False)
        if self._skipped is not False and (plan.waits or on_host(self._skipped)) and self.skipped:
            self._plans.clear()  # with the states made for a step that did not happen
            return
        if not plan.committed:
            plan.commit(self.state)
        increment_version(plan.active)
        if "grad_scale" in numbers:
            plan.unscale(numbers["grad_scale"], self._skipped)

    def _check_capture(self) -> None:
        """Raise torch's error where a graph is captured and `capturable` is not set."""
        check = getattr(self, "_accelerator_graph_capture_health_check", None)
        (check or self._cuda_graph_capture_health_check)()  # torch 2.12 and older

    @torch.no_grad()
    def _bound_plan(self, kinds: list[int]) -> Plan | None:
        """The plan for what has a gradient now, bound to it; None if the step has to be torch's."""
        params = [p for group in self.param_groups for p in group["params"]]
        grads: list[Any] = list(map(_grad_of, params))
        absent = bytes(map(is_, grads, repeat(None)))
        plan = self._plans.pop(absent, None)
        if plan is None or not plan.holds(params, grads, kinds, self.state):
            plan = self._new_plan(params, absent, kinds)
            if plan is None:
                return None
        if 1 in absent:
            grads = list(compress(grads, map(not_, absent)))
        problem, index = plan.bind(grads)
        if problem is not Problem.none:
            self._decline(problem, plan, index)
            return None
        self._plans[absent] = plan
        return plan

    def _new_plan(self, params: list[Tensor], absent: bytes, kinds: list[int]) -> Plan | None:
        self._check_norm()
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        if TORCH_STEP in kinds:
            note(
                self._name(),
                "its options ask for torch's step: differentiable, or capturable or foreach as torch refuses",
            )
            return None
        if len(set(map(id, params))) < len(params):
            note(self._name(), "a parameter is in it twice")
            return None
        present = [not missing for missing in absent]
        numbers = [i for i, group in enumerate(self.param_groups) for _ in group["params"]]
        active, groups = list(compress(params, present)), list(compress(numbers, present))
        for p, number in zip(active, groups, strict=True):
            if p.grad is not None and p.grad.is_sparse:
                self._decline_sparse(p, self.param_groups[number])
                return None
        if reason := unsuitable(active) or unsuitable(p.grad for p in active):
            self._warn(reason)
            return None
        entries = []
        for p, number in zip(active, groups, strict=True):
            grad: Any = p.grad
            entry = self._states(self.param_groups[number], p, self.state.get(p, {}))
            if entry is None:
                note(self._name(), "the state of a parameter is incomplete")
                return None
            entries.append(entry)
            if reason := unsuitable(entry.states) or apart(p, [grad, *entry.states]):
                self._warn(reason)
                return None
        return Plan(params, absent, kinds, groups, entries)

    # Steps that are torch's.

    def _warn(self, reason: str) -> None:
        if reason is NO_MEMORY:
            note(self._name(), reason)
        else:
            warn_fallback(self._name(), reason)

    def _decline_sparse(self, param: Tensor, group: dict[str, Any]) -> None:
        """Raise, before anything is written, if sparse gradients are an error of torch's."""
        self._torchs_lists({**group, "params": [param]})
        self._warn("there is no kernel for sparse gradients")

    def _decline(self, problem: Problem, plan: Plan, index: int) -> None:
        """Raise if parameter `index` is at fault, or warn that there is no kernel for it."""
        param = plan.active[index]
        if param.grad is not None and param.grad.is_sparse:
            self._decline_sparse(param, self.param_groups[plan.groups[index]])
            return None
        if problem is Problem.shape:
            shapes = {name: tuple(value.shape) for name, value in plan.tensors_of(index)}
            raise RuntimeError(
                f"{type(self).__name__}: expected the gradient and the states of a parameter of shape "
                f"{tuple(param.shape)} to have its shape; got {shapes}. If a state_dict was loaded, it is "
                "that of other parameters."
            )
        if problem is Problem.overlap:
            raise RuntimeError(
                "unsupported operation: more than one element of the written-to tensor refers to a single "
                "memory location. Please clone() the tensor before performing the operation."
            )
        self._warn(f"there is no kernel for this {problem.name.replace('_', ' ')} of its tensors")
        return None

    # Loading.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but float32 states of 16-bit parameters stay float32: no rounding, no overflow.

        `max_grad_norm` is in no state_dict: it stays what the constructor was given.
        """
        refuse_norm_of_a_group(state_dict["param_groups"], self._max_grad_norm)
        loaded: dict[str, Any] = {}
        before = self.register_load_state_dict_pre_hook(lambda _, final: loaded.update(final))
        after = self.register_load_state_dict_post_hook(lambda _: self._undo_casts(loaded), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _undo_casts(self, loaded: dict[str, Any]) -> None:
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = [i for group in loaded["param_groups"] for i in group["params"]]
        for p, number in zip(params, numbers, strict=True):
            for name, value in loaded["state"].get(number, {}).items():
                wide = isinstance(value, Tensor) and value.dtype is torch.float32 and name != "step"
                if wide and p.dtype in (torch.bfloat16, torch.float16):
                    self.state[p][name] = value.to(p.device)


_observed_step = Optimizer.profile_hook_step(FusedStep._step)

"""Who answers a call, a kernel or torch: asked here alone. And how the kernels' autograd Functions are called.

A kernel reads memory, and an autograd Function of ours is differentiated once. So a kernel answers only where nothing
but memory counts, and nothing but ordinary autograd looks on: no function transform, no forward-mode differentiation,
no tracer other than torch.compile's, no function mode. Everything else is torch's own function's, which knows them all.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._device import DeviceContext

from fused_ml._explain import note
from fused_ml._library import cuda_problem, no_kernel_for
from fused_ml._version import __version__
from fused_ml._watched import dispatch_modes, not_transformed, traced_by_mode

PLAIN = (Tensor, torch.nn.Parameter)
_STRIDED = torch.strided
_is_compiling = torch.compiler.is_compiling
_function_modes = torch._C._len_torch_function_stack
_function_mode_at = torch._C._get_function_stack_at
_jit_trace = torch._C._get_tracing_state
_batched_gradient = torch._C._functorch.is_legacy_batchedtensor  # is_grads_batched: no transform's stack shows it
_LIBRARY = torch.library.Library("fused_ml", "FRAGMENT")
_OVERLOAD = "v" + __version__.replace(".", "_")  # a compiled graph that torch has cached must not meet another version


def plain(*tensors: Tensor | None) -> bool:
    """Whether a kernel may answer a call with these tensors: each is None, or dense memory that a kernel reads.

    Nothing of a tensor is looked at where a subclass or a function mode would see it.
    """
    if foreign(*tensors):
        return False
    for t in tensors:
        if t is not None and (not t.is_cpu or t.layout is not _STRIDED or t.is_nested):
            if not _plain_on_cuda(tensors):
                return False
            break
    return unwatched()


def foreign(*tensors: Any) -> bool:
    """Whether one of them is another type's than torch's own, or a function mode wants to see torch's functions."""
    for t in tensors:
        if type(t) not in PLAIN and t is not None:
            return True
    return bool(_function_modes()) and not _modes_are_devices()


def unwatched() -> bool:
    """Whether nothing but ordinary autograd, torch.compile and modes that look at operators see this call."""
    if _is_compiling():
        return not _watched_while_compiling()
    return not_transformed() and _jit_trace() is None and not traced_by_mode()


def _watched_while_compiling() -> bool:
    return not not_transformed() or torch.compiler.is_exporting()


# torch.compile runs it where it stands in the program, and guards on transforms by itself. The mark is what
# torch.compiler.assume_constant_result sets, which would import the whole compiler here.
_watched_while_compiling._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _modes_are_devices() -> bool:
    """Whether the function modes only say where new tensors go: torch.set_default_device, `with torch.device(...)`."""
    return all(type(_function_mode_at(place)) is DeviceContext for place in range(_function_modes()))


def _plain_on_cuda(tensors: tuple[Tensor | None, ...]) -> bool:
    there = [t for t in tensors if t is not None]
    return not cuda_problem() and all(
        t.is_cuda and t.layout is _STRIDED and not t.is_nested and t.device == there[0].device for t in there
    )


def why_not_plain(**tensors: Any) -> str:
    """Why :func:`plain` is False for these arguments by name."""
    if _is_compiling():
        return "a transform or an export is compiled"
    present = {name: t for name, t in tensors.items() if t is not None}
    for name, t in present.items():
        if type(t) not in PLAIN:
            return f"{name} is a {type(t).__name__}; the kernels take torch.Tensor"
    if foreign(*tensors.values()):
        return "a torch function mode is active"
    first = next((t.device for t in present.values()), None)
    for name, t in present.items():
        if t.layout is not _STRIDED or t.is_nested:
            return f"{name} is {'nested' if t.is_nested else t.layout}; the kernels take strided tensors"
        if t.device.type not in ("cpu", "cuda") or (t.is_cuda and cuda_problem()):
            return f"{name} is on {t.device}: {no_kernel_for(t.device.type)}"
        if t.device != first:
            return f"{name} is on {t.device}, the first argument on {first}"
    if not not_transformed():
        return "a function transform (torch.func) or forward-mode differentiation is under way"
    if _jit_trace() is not None:
        return "torch.jit.trace records the call"
    return "a tracing mode (make_fx, fake tensors) is active"


def kernels_go_back(name: str, upstream: Tensor) -> bool:
    """Whether the backward pass of `name` may run kernels; if not, that is noted.

    Nobody differentiates or batches it, and `upstream` is memory or traced.
    """
    if torch.is_grad_enabled():
        reason = "the gradient is differentiated (create_graph=True)"
    elif _is_compiling():  # compiled autograd
        if not _watched_while_compiling():
            return True
        reason = "a transform or an export is compiled"
    elif not not_transformed() or _batched_gradient(upstream):
        reason = "a function transform (torch.func) is under way, or the gradients are batched (is_grads_batched=True)"
    elif dispatch_modes() or type(upstream) in PLAIN:
        return True
    else:
        reason = "the gradient is no torch.Tensor, but of a subclass"
    note(name + " (backward)", reason)
    return False


def is_memory(tensor: Tensor) -> bool:
    """Whether `tensor`, met in backward, is numbers that may be looked at and written, and nobody traces."""
    return type(tensor) in PLAIN and not _is_compiling() and not dispatch_modes()


def by_composite(
    composite: Callable[..., Tensor], inputs: Sequence[Tensor], needs: Sequence[bool], upstream: Tensor
) -> list[Tensor | None]:
    """The gradients of `composite(*inputs)`, by torch's own operations: differentiable, and fit for any transform."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        aliases = [t.view_as(t) for t in inputs]  # one input may be made from another: each derivative by itself
        wanted = [t for t, need in zip(aliases, needs, strict=True) if need]
        value = composite(*aliases)
        grads = iter(torch.autograd.grad(value, wanted, upstream.reshape(value.shape), create_graph=create_graph))
    return [next(grads) if need else None for need in needs]


def torchs(function: Any) -> Any:
    """torch's `function`, to hand a call over to.

    It passes to ``__torch_function__`` what its own name stands for. While that is ours (:func:`fused_ml.enable`), a
    copy to which its name is itself.
    """
    if _is_compiling():
        return function
    names = getattr(function, "__globals__", None)
    if names is None or names.get(function.__name__) is function:
        return function
    names = {**names, function.__name__: function}
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def scripted_as(torchs: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """torch.jit.script compiles torch's function in place of the decorated one: what it saves loads without us."""

    def mark(function: _Function) -> _Function:
        function.__prepare_scriptable__ = lambda: torchs  # type: ignore[attr-defined]
        return function

    return mark


def direct_applier(function: type[Function]) -> Callable[..., Any]:
    """``function.apply`` without its Python wrapper, which unwraps what :func:`plain` has ruled out (5 us a call)."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, function)


def applier(function: type[Function], schema: str, call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`call`, by default ``function.apply``, for eager code and for torch.compile.

    While torch.compile traces, the call is one operator, ``fused_ml::<schema>``, and a composite: below the tracer,
    the very same Function runs with its kernels in it. So there is one way to differentiate, compiled or not, and a
    graph that is run as it was traced (``backend="eager"``) has second derivatives as well.
    """
    direct = direct_applier(function) if call is None else call
    name, arguments = schema.split("(", 1)
    _LIBRARY.define(f"{name}.{_OVERLOAD}({arguments}")
    _LIBRARY.impl(f"{name}.{_OVERLOAD}", function.apply if call is None else call, "CompositeImplicitAutograd")
    traced = getattr(getattr(torch.ops.fused_ml, name), _OVERLOAD)

    def apply(*args: Any) -> Any:
        if not _is_compiling():
            return direct(*args)
        _see_through_casts()
        return traced(*args)

    return apply


def _see_through_casts() -> None:
    with contextlib.suppress(ImportError, AttributeError):  # a torch whose inductor has no such passes
        importlib.import_module("fused_ml._inductor").install()  # now: it imports a part of the compiler


_see_through_casts._dynamo_marked_constant = True  # type: ignore[attr-defined]

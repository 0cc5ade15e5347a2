"""Every fused name in every mode that torch has for a call: torch's result in the same mode, or torch's error."""

from __future__ import annotations

import contextlib
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as TF
from calls import CLASSES, ROWS, numbers, rows
from compare import assert_no_worse_than_torch
from torch import func
from torch.autograd import forward_ad
from torch.autograd import functional as AF
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import fused_ml.nn.functional as F

pytestmark = pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")


def leaf(x):
    return x.detach().clone().requires_grad_()


def weights(value):
    """A gradient from above that tells elements apart."""
    return numbers(7, *value.shape, dtype=value.dtype) + 0.5


def weighed(f):
    """f's result as a number."""
    return lambda x: (f(x) * weights(f(x))).sum()


def first(f, x):
    """Value and gradient."""
    x = leaf(x)
    value = f(x)
    return value, torch.autograd.grad(value, x, weights(value))[0]


def twice(f, x):
    """The same graph gone back twice."""
    x = leaf(x)
    value = f(x)
    once = torch.autograd.grad(value, x, weights(value), retain_graph=True)
    return once, torch.autograd.grad(value, x, 3 * weights(value))


def second(f, x):
    """A gradient's gradient, by the input and by the gradient from above."""
    x = leaf(x)
    value = f(x)
    upstream = weights(value).requires_grad_()
    (gradient,) = torch.autograd.grad(value, x, upstream, create_graph=True)
    return gradient, torch.autograd.grad(gradient.square().sum(), (x, upstream))


def third(f, x):
    x = leaf(x)
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    (h,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
    return torch.autograd.grad(h.square().sum(), x)


def batched(f, x, create_graph=False):
    x = leaf(x)
    value = f(x)
    upstream = torch.stack([weights(value), 2 * weights(value), torch.zeros_like(value)])
    return torch.autograd.grad(value, x, upstream, is_grads_batched=True, create_graph=create_graph)


def forward_mode(f, x):
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(f(forward_ad.make_dual(x, weights(x)))))


def forward_over_reverse(f, x):
    """The gradient from above carries a tangent; the loss was computed before."""
    x = leaf(x)
    value = f(x)
    with forward_ad.dual_level():
        upstream = forward_ad.make_dual(weights(value), 2 * weights(value))
        return tuple(forward_ad.unpack_dual(torch.autograd.grad(value, x, upstream)[0]))


def under(context, mode=first):
    def run(f, x):
        with context():
            return mode(f, x)

    return run


def checkpointed(use_reentrant):
    def run(f, x):
        x = leaf(x)
        value = checkpoint(lambda x: f(x * 1.5), x, use_reentrant=use_reentrant) * 2
        value.backward(weights(value))
        return value, x.grad

    return run


def hooks():
    """Saved tensors go away and come back as others."""
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone())


def compiled(mode=first, backend="aot_eager", outside=False, fullgraph=True):
    """`outside`: the transform of a compiled function; else what mode does with f is compiled with it."""

    def run(f, x):
        torch.compiler.reset()
        if outside:
            return mode(torch.compile(f, backend=backend, fullgraph=fullgraph), x)
        return torch.compile(lambda x: mode(f, x), backend=backend, fullgraph=fullgraph)(x)

    return run


def scaled(f, x):
    """GradScaler's first step: the gradient from above is 65536 times the loss's."""
    x = leaf(x)
    optimizer = torch.optim.SGD([x], lr=0.0)
    scaler = torch.amp.GradScaler(x.device.type, init_scale=2.0**16)
    value = weighed(f)(x) / x.numel()
    scaler.scale(value / 64).backward()
    scaler.unscale_(optimizer)
    return value, x.grad, scaler._found_inf_per_device(optimizer)[x.device]


def cast(dtype, mode=first):
    """As a model in mixed precision calls it: a leaf of float32, taken to 16 bits by the layer before."""

    def run(f, x):
        def half(x):
            with torch.autocast(x.device.type, dtype=dtype):
                return f(x.to(dtype)).float()

        return mode(half, x.float())

    return run


def exported(f, x):
    class Model(torch.nn.Module):
        def forward(self, x):
            return f(x)

    program = torch.export.export(Model(), (x,))
    assert not [n for n in program.graph.nodes if "fused_ml" in str(n.target)]  # loads without this package
    return program.module()(x)


def recorded(f, x, **options):
    graph = make_fx(f, _allow_non_fake_inputs=True, **options)(x)
    assert "fused_ml" not in graph.code
    return graph(x)


def traced(f, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(lambda x: f(x), (x,))
    assert "fused_ml::" not in str(graph.graph)
    return first(graph, x)


TRANSFORMS = {
    "grad": lambda f, x: func.grad(weighed(f))(x),
    "grad of grad": lambda f, x: func.grad(lambda x: func.grad(weighed(f))(x).square().sum())(x),
    "vjp": lambda f, x: func.vjp(f, x)[1](weights(f(x))),
    "jvp": lambda f, x: func.jvp(f, (x,), (weights(x),)),
    "jacrev": lambda f, x: func.jacrev(f)(x),
    "jacfwd": lambda f, x: func.jacfwd(f)(x),
    "hessian": lambda f, x: func.hessian(weighed(f))(x),
    "vmap": lambda f, x: func.vmap(f)(torch.stack([x, x * 2])),
    "vmap of grad": lambda f, x: func.vmap(func.grad(weighed(f)))(torch.stack([x, x * 2])),
    "functional_call": lambda f, x: func.grad(lambda p: weighed(f)(p["x"]))({"x": x}),
}
MODES = {
    "eager": first,
    "eager twice": twice,
    "create_graph": second,
    "third derivative": third,
    "is_grads_batched": batched,
    "is_grads_batched, create_graph": partial(batched, create_graph=True),
    "forward mode": forward_mode,
    "forward over reverse": forward_over_reverse,
    "jacobian": lambda f, x: AF.jacobian(f, x),
    "jacobian, vectorized": lambda f, x: AF.jacobian(f, x, vectorize=True),
    "jacobian, forward": lambda f, x: AF.jacobian(f, x, vectorize=True, strategy="forward-mode"),
    "functional.hessian": lambda f, x: AF.hessian(weighed(f), x),
    "functional.hessian, vectorized": lambda f, x: AF.hessian(weighed(f), x, vectorize=True),
    "functional.hvp": lambda f, x: AF.hvp(weighed(f), x, weights(x)),
    "functional.jvp": lambda f, x: AF.jvp(f, x, weights(x)),
    "checkpoint": checkpointed(False),
    "checkpoint, reentrant": checkpointed(True),
    "saved_tensors_hooks": under(hooks),
    "saved_tensors_hooks, twice": under(hooks, twice),
    "save_on_cpu": under(torch.autograd.graph.save_on_cpu),
    "anomaly": under(partial(torch.autograd.detect_anomaly, check_nan=True)),
    "inference_mode": under(torch.inference_mode, lambda f, x: f(x)),
    "no_grad": under(torch.no_grad, lambda f, x: f(leaf(x))),
    "make_fx": recorded,
    "make_fx of the gradient": lambda f, x: recorded(lambda x: first(f, x), x),
    "make_fx, symbolic": partial(recorded, tracing_mode="symbolic"),
    "export": exported,
    "jit.trace": traced,
    **{f"func.{name}": mode for name, mode in TRANSFORMS.items()},
}
COMPILED = {  # a second each, and two where torch is compiled too
    **{f"compiled func.{name}": compiled(mode) for name, mode in TRANSFORMS.items()},
    **{f"compiled, {backend}": compiled(first, backend, outside=True) for backend in ("eager", "aot_eager")},
    "compiled, eager, twice": compiled(twice, "eager", outside=True),
    "compiled, eager, create_graph": compiled(second, "eager", outside=True),
    "compiled, eager, third derivative": compiled(third, "eager", outside=True),
    "compiled, eager, is_grads_batched": compiled(batched, "eager", outside=True),
    "compiled, aot_eager, create_graph": compiled(second, outside=True),
    "compiled, aot_eager, is_grads_batched": compiled(batched, outside=True),
    "compiled, checkpoint": compiled(checkpointed(False), outside=True),
    "grad of compiled": compiled(TRANSFORMS["grad"], outside=True, fullgraph=False),
    "vmap of compiled": compiled(TRANSFORMS["vmap"], outside=True, fullgraph=False),
}
TORCH_RAISES = {"compiled, aot_eager, create_graph"}
SLOW = {  # seconds each: one row a name
    "compiled, inductor": compiled(first, "inductor", outside=True),
    "compiled func.grad, inductor": compiled(TRANSFORMS["grad"], "inductor"),
}
HALF = {
    "autocast": first,
    "autocast, create_graph": second,
    "autocast, GradScaler": scaled,
    "autocast, compiled": compiled(first, outside=True),
    "autocast, GradScaler, compiled": compiled(scaled, outside=True),
    "autocast, func.grad": TRANSFORMS["grad"],
    "autocast, vmap of grad": TRANSFORMS["vmap of grad"],
    "autocast, checkpoint": checkpointed(False),
}
FIRST_ROWS = [next(row for row in rows if row.name == name) for name in dict.fromkeys(row.name for row in rows)]
COMPILED_ROWS = [row for row in rows if row in FIRST_ROWS or row.form.startswith(("none", "sum", "by both"))]


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch.compiler.reset()


def outcome(mode, call, space, x):
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            return torch.utils._pytree.tree_map(lambda t: t.detach() if isinstance(t, torch.Tensor) else t,
                                                mode(lambda x: call(space, x), x))  # fmt: skip
        except Exception as error:
            return error


def check(mode, row, x, raises, **close):
    ours, theirs = outcome(mode, row.call, F, x), outcome(mode, row.call, TF, x)
    if isinstance(theirs, Exception):
        assert raises or isinstance(theirs, NotImplementedError), f"torch raises {theirs!r}"  # of some functions
        assert type(ours) is type(theirs), f"{ours!r}; torch raises {theirs!r}"
        return
    if isinstance(ours, Exception):
        raise ours
    torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("mode", [*MODES])
@pytest.mark.parametrize("row", rows, ids=str)
def test_as_torch(row, mode):
    check(MODES[mode], row, numbers(11, ROWS, CLASSES) * 4 - 2, False, rtol=1e-9, atol=1e-11)


COMPILED_CASES = [(row, mode) for row in COMPILED_ROWS for mode in COMPILED if "func" not in mode or row in FIRST_ROWS]


@pytest.mark.parametrize(("row", "mode"), COMPILED_CASES, ids=str)
def test_as_torch_compiled(row, mode):
    if (row.form.split(",")[0], mode) == ("none", "compiled, aot_eager, is_grads_batched") and row.name != "nll_loss":
        with pytest.raises(RuntimeError, match="Batching rule not implemented"):  # docs/contract.md
            COMPILED[mode](partial(row.call, F), numbers(11, ROWS, CLASSES))
        return
    check(COMPILED[mode], row, numbers(11, ROWS, CLASSES) * 4 - 2, mode in TORCH_RAISES, rtol=1e-9, atol=1e-11)


MIXED = [(row, mode) for row in rows for mode in HALF if "compiled" not in mode or row in FIRST_ROWS]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("row", "mode"), MIXED, ids=str)
def test_no_worse_than_torch_in_mixed_precision(row, mode, dtype):
    x = (numbers(11, ROWS, CLASSES) * 4 - 2).bfloat16().half().float()  # the same numbers in every type
    results = [cast(dtype, HALF[mode])(partial(row.call, space), x) for space in (F, TF)]
    results.append(HALF[mode](partial(row.call, TF), x.double()))
    for ours, theirs, exact in zip(*(torch.utils._pytree.tree_leaves(r) for r in results), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert_no_worse_than_torch(ours.detach(), theirs.detach(), exact.detach(), dtype=dtype)


@pytest.mark.parametrize("mode", [*SLOW])
@pytest.mark.parametrize("row", FIRST_ROWS, ids=str)
def test_as_torch_by_the_whole_compiler(row, mode):
    check(SLOW[mode], row, numbers(11, ROWS, CLASSES) * 4 - 2, False, rtol=1e-9, atol=1e-11)


def test_the_table_has_every_fused_function():
    assert {row.name for row in rows} >= set(F.FUSED)

"""A compiled step is the operators' where they can take it: the same bits as the eager step, in one graph."""

import pytest
import torch
from optimizers import BRIEF, EXAMPLES, OPTIONS, STATEFUL

import fused_ml
from fused_ml import optim

CASES = {case: OPTIONS[case] for case in dict.fromkeys([*BRIEF, *STATEFUL, "sgd dampening"])}
SIZES = ((7, 3), (40,), (1,), (5, 2, 2))


def made(name, options, dtype, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in SIZES]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03}]
    return params, getattr(optim, name)(groups, **options, **more)


def gradients(params, step, absent=()):
    generator = torch.Generator().manual_seed(100 + step)
    for i, p in enumerate(params):
        grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        p.grad = None if i in absent else grad


def states(optimizer, params):
    return [[value.clone() for value in optimizer.state[p].values()] for p in params]


def run(case, dtype, compiled, steps=3, absent=(), backend="inductor", **more):
    torch.compiler.reset()
    name, options = CASES[case]
    params, optimizer = made(name, options, dtype, **more)
    step = torch.compile(optimizer.step, fullgraph=True, backend=backend) if compiled else optimizer.step
    norms = []
    for i in range(steps):
        gradients(params, i, absent)
        before = [None if p.grad is None else p.grad.clone() for p in params]
        step()
        norms.append(optimizer.grad_norm)
        for p, grad in zip(params, before, strict=True):
            assert (p.grad is None) == (grad is None)
            assert grad is None or torch.equal(p.grad, grad)
    return [p.detach() for p in params], states(optimizer, params), norms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_has_the_eager_steps_bits(case, dtype):
    found, expected = (run(case, dtype, compiled) for compiled in (True, False))
    assert all(map(torch.equal, found[0], expected[0]))
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert all(map(torch.equal, ours, theirs))
    assert found[2] == [None] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ["sgd all", "adamw decay"])
def test_clips_by_the_global_norm(case, dtype):
    found, expected = (run(case, dtype, compiled, max_grad_norm=0.5) for compiled in (True, False))
    eps = torch.finfo(dtype).eps
    for ours, theirs in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=8 * eps, atol=4 * eps)
    for ours, theirs in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=4 * eps, atol=0)
        assert theirs > 0.5  # it clips


@pytest.mark.parametrize("case", ["sgd momentum", "adam"])
def test_parameters_without_a_gradient_stay(case):
    found, expected = (run(case, torch.float32, compiled, absent=(1, 2)) for compiled in (True, False))
    assert all(map(torch.equal, found[0], expected[0]))


@pytest.mark.parametrize("more", [{}, {"max_grad_norm": 0.5}], ids=["", "clipped"])
@pytest.mark.parametrize("case", CASES)
def test_is_one_operator_a_group_without_copies(case, more):
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    run(case, torch.float32, True, steps=2, backend=keep, **more)
    for graph in graphs:
        called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        ours = [name for name in called if "fused_ml" in name]
        assert len(ours) == 2
        shapes = [node.meta["example_value"].shape for node in graph.graph.nodes if "mul" in str(node.target)]
        assert not [name for name in called if "copy" in name or "clone" in name]
        assert not [shape for shape in shapes if shape in SIZES[1:2]]  # gradients are multiplied by the kernel
    assert len(graphs) <= 2  # the first step makes SGD's buffers


def scaled(optimizer):
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)


DECLINED = {
    "a learning rate that is a tensor": lambda p, o: o.param_groups[0].update(lr=torch.tensor(0.01)),
    "a gradient with gaps": lambda p, o: setattr(p, "grad", torch.ones(14, 3)[::2]),
    "an expanded gradient": lambda p, o: setattr(p, "grad", torch.ones(1, 3).expand(7, 3)),
    "differentiable": lambda p, o: o.param_groups[0].update(differentiable=True),
    "a subclass": lambda p, o: setattr(p, "grad", torch.ones(7, 3).as_subclass(Watching)),
    "a GradScaler": lambda p, o: scaled(o),
}


class Watching(torch.Tensor):
    """Of a subclass."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", DECLINED)
@pytest.mark.parametrize("name", EXAMPLES)
def test_what_they_cannot_take_is_torchs(kind, name):
    torch.compiler.reset()
    results = []
    for compiled in (True, False):
        p = torch.linspace(-1, 1, 21).view(7, 3).requires_grad_()
        optimizer = getattr(optim, name)([p], lr=0.01, weight_decay=0.1)
        p.grad = torch.ones(7, 3)
        DECLINED[kind](p, optimizer)
        if kind == "differentiable":
            optimizer.param_groups[0]["params"] = [p.detach().clone()]
            (q,) = optimizer.param_groups[0]["params"]
            q.grad = torch.ones(7, 3)
            p = q
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        with fused_ml.explaining() as found:
            step()
        if compiled:
            assert not any(call.fused for call in found.calls)
        results.append(p.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_parameter_given_twice_is_stepped_by_torch(name):
    """One after the other, where the operator would step both at once: the bits of torch's own compiled step."""
    results = []
    for module in (optim, torch.optim):
        torch.compiler.reset()
        p = torch.linspace(-1, 1, 5000).requires_grad_()
        p.grad = torch.linspace(1, 2, 5000)
        optimizer = getattr(module, name)([p, p], lr=0.1)
        with fused_ml.explaining() as found:
            torch.compile(optimizer.step, backend="eager")()
        assert not any(call.fused for call in found.calls)
        results.append(p.detach().clone())
    assert torch.equal(*results)

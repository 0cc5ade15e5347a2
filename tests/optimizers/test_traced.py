"""Steps without elements, or under a tracer or a transform: torch's own operations, and no look at a number."""

import contextlib

import pytest
import torch
from optimizers import EXAMPLES, takes
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import fused_ml.optim

OPTIMIZERS = {
    **{name: {**options, "lr": 0.1} for name, options in EXAMPLES.items()},
    "SGD plain": {"lr": 0.1},
    "Adam amsgrad": {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1},
}
FLAGS = ({}, {"foreach": True}, {"foreach": False}, {"fused": True})
FLAGGED = [(name, flags) for name in OPTIMIZERS for flags in FLAGS if takes(name.split()[0], flags)]
WITHOUT_ELEMENTS = {"meta": lambda: torch.device("meta"), "fake": FakeTensorMode}
SHAPES = [(5, 7), (), (0, 3), (300,)]


def make(module, name, params, **extra):
    return getattr(module, name.split()[0])(params, **OPTIMIZERS[name], **extra)


def described(tensor):
    return None if tensor is None else (type(tensor), tensor.shape, tensor.dtype, tensor.device, tensor.stride())


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("mode", WITHOUT_ELEMENTS)
@pytest.mark.parametrize(("name", "flags"), FLAGGED, ids=str)
def test_steps_without_elements(name, mode, dtype, clip, flags):
    """Also when the mode is left before the step: the tensors stay what they are."""
    outcomes = []
    for module in (fused_ml.optim, torch.optim):
        with WITHOUT_ELEMENTS[mode]():
            params = [torch.ones(shape, dtype=dtype, requires_grad=True) for shape in SHAPES]
            for p in params[:-1]:
                p.grad = torch.ones_like(p)
            grads = [p.grad for p in params]
        ours = module is fused_ml.optim
        optimizer = make(module, name, params, **flags, **({"max_grad_norm": clip} if ours else {}))
        try:
            for around in (
                WITHOUT_ELEMENTS[mode] if mode == "meta" else contextlib.nullcontext,
                contextlib.nullcontext,
            ):
                with around():
                    norm = None if ours or not clip else torch.nn.utils.clip_grad_norm_(params, clip)
                    optimizer.step()
        except Exception as error:
            outcomes.append((type(error), str(error)))
            continue
        norm = optimizer.grad_norm if ours else norm
        assert [p.grad for p in params] == grads or all(p.grad is g for p, g in zip(params, grads, strict=True))
        states = [[(key, described(value)) for key, value in optimizer.state[p].items()] for p in params]
        outcomes.append((list(map(described, params)), states, described(norm)))
    assert outcomes[0] == outcomes[1]


def program(module, name, clip, **flags):
    """A step as a function, from a parameter and a gradient to the parameter after two steps."""

    def function(p, grad):
        p, grad = p.clone().detach(), grad.clone()
        p.grad = grad
        extra = {"max_grad_norm": clip} if clip and module is fused_ml.optim else {}
        optimizer = make(module, name, [p], **flags, **extra)
        for _ in range(2):
            p.grad = grad.clone()
            if clip and not extra:
                torch.nn.utils.clip_grad_norm_([p], clip)
            optimizer.step()
        return p.detach()

    return function


def operations(graph):
    """What a graph does, in order; of torch's hooks it has the profiler's marks too."""
    return [str(node.target) for node in graph.graph.nodes if "profiler" not in str(node.target)]


@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_make_fx_records_torchs_operations(name, clip, tracing):
    p, grad = torch.randn(5, 7), torch.randn(5, 7)
    graphs = [
        make_fx(program(module, name, clip, foreach=False), tracing_mode=tracing)(p, grad)
        for module in (fused_ml.optim, torch.optim)
    ]
    assert "fused_ml" not in graphs[0].code
    if clip is None:
        assert operations(graphs[0]) == operations(graphs[1])
    for x in (p, torch.randn(5, 7)):
        torch.testing.assert_close(graphs[0](x, grad), graphs[1](x, grad))
        torch.testing.assert_close(graphs[0](x, grad), program(torch.optim, name, clip)(x, grad))


def stepper(p, optimizer):
    def step(x):
        p.grad = x * 2
        optimizer.step()
        return p.detach().clone()

    return step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_real_tensors_under_a_tracer(name):
    """Traced after real steps, and stepped again after: a plan from before is not run for what only looks alike."""
    results = []
    for module in (fused_ml.optim, torch.optim):
        p = torch.linspace(-1, 1, 35).view(5, 7).requires_grad_()
        optimizer = make(module, name, [p], foreach=False)
        grad = torch.linspace(1, 2, 35).view(5, 7)
        p.grad = grad
        optimizer.step()

        try:
            done = operations(make_fx(stepper(p, optimizer))(grad))
        except RuntimeError as error:  # Adam's counts are looked at
            done = str(error)
        p.grad = grad
        optimizer.step()
        results.append((p.detach().clone(), done))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("name", ["SGD", "SGD plain"])
def test_under_a_transform(name):
    """Adam's step counts do not batch, torch's either."""
    p, grad = torch.randn(4, 5), torch.randn(4, 5)
    results = [torch.func.vmap(program(m, name, None, foreach=False))(p, grad) for m in (fused_ml.optim, torch.optim)]
    assert torch.equal(*results)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_real_parameters_under_fake_mode_are_torchs_error(name):
    errors = []
    for module in (fused_ml.optim, torch.optim):
        p = torch.ones(3, requires_grad=True)
        p.grad = torch.ones(3)
        optimizer = make(module, name, [p], foreach=False)
        with pytest.raises(Exception) as caught, FakeTensorMode():
            optimizer.step()
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]

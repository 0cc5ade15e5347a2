"""The optimizers as torch's classes: names, signatures, closures, hooks, schedulers, versions."""

import pytest
import torch
from optim_cases import (
    BRIEF,
    OPTIONS,
    STATEFUL,
    Pair,
    numbers,
    random_params,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

import fused_ml
import fused_ml.optim

NAMES = ["SGD", "Adam", "AdamW"]


def make(case, params, module=fused_ml.optim, **extra):
    name, options = OPTIONS[case]
    return getattr(module, name)(params, **numbers(options), **extra)


# The parts of torch's class.


@pytest.mark.parametrize("name", NAMES)
def test_is_torchs_class_with_torchs_signature(name):
    import inspect

    ours, theirs = getattr(fused_ml.optim, name), getattr(torch.optim, name)
    assert issubclass(ours, theirs)
    parameters = dict(inspect.signature(ours).parameters)
    assert parameters.pop("max_grad_norm").kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters == dict(inspect.signature(theirs).parameters)
    p = [torch.ones(3, requires_grad=True)]
    assert repr(ours(p, 0.5)) == repr(theirs(p, 0.5))
    assert "max_grad_norm: 2.0" in repr(ours(p, 0.5, max_grad_norm=2))


def test_adamw_is_an_adam():
    assert issubclass(fused_ml.optim.AdamW, fused_ml.optim.Adam)


def test_every_other_name_is_torchs():
    namespace = {}
    exec("from fused_ml.optim import *", namespace)
    for name in torch.optim.__all__:
        expected = getattr(fused_ml.optim if name in NAMES else torch.optim, name)
        assert getattr(fused_ml.optim, name) is expected
        assert namespace[name] is expected
    assert set(dir(torch.optim)) <= set(dir(fused_ml.optim))
    exec("from fused_ml.optim.lr_scheduler import StepLR", namespace)
    assert namespace["StepLR"] is torch.optim.lr_scheduler.StepLR
    exec("from fused_ml.optim.adam import Adam, adam; from torch.optim.adam import adam as torchs", namespace)
    assert namespace["adam"] is namespace["torchs"]
    with pytest.raises(AttributeError, match="no attribute 'Adm'"):
        fused_ml.optim.Adm  # noqa: B018


@pytest.mark.parametrize("case", BRIEF)
def test_closure_runs_with_grad_and_its_loss_is_returned(case):
    p = torch.ones(3, requires_grad=True)
    optimizer = make(case, [p])

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) == 3.0
    assert (p != 1).all()


@pytest.mark.parametrize("case", BRIEF)
def test_hooks_run_once_around_the_step(case):
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = make(case, [p])
    make(case, [p], torch.optim)  # patches torch's own step with the hooks
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(p.detach().clone()))
    optimizer.register_step_post_hook(lambda *_: seen.append(p.detach().clone()))
    for differentiable in (False, True):
        optimizer.param_groups[0]["differentiable"] = differentiable
        seen.clear()
        optimizer.step()
        assert len(seen) == 2
        assert (seen[0] != seen[1]).all()


def test_hooks_run_once_around_a_subclass_with_its_own_step():
    class Mine(fused_ml.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    p = torch.ones(3, requires_grad=True)
    optimizer, seen = Mine([p], lr=0.1), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    optimizer.step()
    assert seen == ["pre", "post"]


def test_global_hooks_and_the_profiler_see_the_step():
    p = torch.ones(3, requires_grad=True)
    optimizer, seen = fused_ml.optim.Adam([p]), []
    handle = register_optimizer_step_pre_hook(lambda o, *_: seen.append(o))
    try:
        optimizer.step()
    finally:
        handle.remove()
    assert seen == [optimizer]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert "Optimizer.step#Adam.step" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("case", STATEFUL)
def test_schedulers(case):
    pair = Pair(case, random_params(torch.float32))
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in (pair.optimizer, pair.reference)]
    for _ in range(3):
        pair.step()
        for scheduler in schedulers:
            scheduler.step()
    pair.check()


@pytest.mark.parametrize("case", OPTIONS)
def test_versions_are_bumped_and_gradients_are_not_written(case):
    pair = Pair(case, random_params(torch.float32), max_grad_norm=0.1).step()
    pair.set_gradients()
    versions = [p._version for p in pair.ours]
    grads = [(p.grad, p.grad.clone(), p.grad._version) for p in pair.ours]
    pair.optimizer.step()
    assert all(p._version > version for p, version in zip(pair.ours, versions, strict=True))
    for p, (grad, value, version) in zip(pair.ours, grads, strict=True):
        assert p.grad is grad
        assert grad._version == version
        assert torch.equal(grad, value)


def test_stale_saved_tensor_raises():
    p = torch.ones(3, requires_grad=True)
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    fused_ml.optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

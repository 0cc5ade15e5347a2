"""The optimizers as torch's classes: names, signatures, closures, hooks, schedulers, versions."""

import inspect
import typing

import pytest
import torch
from optimizers import (
    BRIEF,
    EXAMPLES,
    OPTIONS,
    STATEFUL,
    Pair,
    numbers,
    random_params,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

import fused_ml
import fused_ml.optim


def make(case, params, module=fused_ml.optim, **extra):
    name, options = OPTIONS[case]
    return getattr(module, name)(params, **numbers(options), **extra)


# The parts of torch's class.


class Inherits:
    """A subclass that leaves the constructor alone."""

    def __new__(cls, base):
        return type("Mine", (base,), {})


class PassesOn:
    """One whose own constructor passes everything on."""

    def __new__(cls, base):
        def __init__(self, params, more=1, **kwargs):
            super(mine, self).__init__(params, **kwargs)
            self.more = more

        mine = type("Mine", (base,), {"__init__": __init__})
        return mine


@pytest.mark.parametrize("derive", [lambda base: base, Inherits], ids=["itself", "a subclass"])
@pytest.mark.parametrize("of", [lambda cls: cls, lambda cls: cls.__init__], ids=["class", "__init__"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_signature_begins_with_torchs(name, of, derive):
    """Names, order, kinds, defaults and annotations; what is added is keyword-only, last, and has a default."""
    ours, theirs = derive(getattr(fused_ml.optim, name)), getattr(torch.optim, name)
    *parameters, extra = inspect.signature(of(ours)).parameters.values()
    assert parameters == list(inspect.signature(of(theirs)).parameters.values())
    assert (extra.name, extra.kind, extra.default) == ("max_grad_norm", inspect.Parameter.KEYWORD_ONLY, None)
    assert inspect.signature(of(ours)).return_annotation == inspect.signature(of(theirs)).return_annotation
    assert inspect.getfullargspec(of(ours)).args == inspect.getfullargspec(of(theirs)).args
    hints = typing.get_type_hints(ours.__init__)
    assert hints.pop("max_grad_norm") == float | None
    assert hints == typing.get_type_hints(theirs.__init__)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_subclass_with_a_constructor_of_its_own_shows_that(name):
    ours, theirs = PassesOn(getattr(fused_ml.optim, name)), PassesOn(getattr(torch.optim, name))
    assert inspect.signature(ours) == inspect.signature(theirs)
    optimizer = ours([torch.ones(3, requires_grad=True)], more=2, lr=0.25, max_grad_norm=1.0)
    assert (optimizer.more, optimizer.defaults["lr"], optimizer.max_grad_norm) == (2, 0.25, 1.0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_keywords_filtered_by_the_signature_arrive(name):
    """What libraries do with one dictionary for many optimizers."""
    wanted = {"lr": 0.25, "momentum": 0.5, "betas": (0.5, 0.75), "weight_decay": 0.125, "eps": 1e-3, "no_such": 1}
    made = []
    for module in (fused_ml.optim, torch.optim):
        cls = getattr(module, name)
        keywords = {key: wanted[key] for key in inspect.signature(cls.__init__).parameters if key in wanted}
        made.append(cls([torch.ones(3, requires_grad=True)], **keywords).defaults)
    assert made[0] == made[1]
    assert (made[0]["lr"], made[0]["weight_decay"]) == (0.25, 0.125)


@pytest.mark.parametrize("name", EXAMPLES)
def test_constructor_errors_are_torchs(name):
    p = torch.ones(3, requires_grad=True)
    for args, kwargs in [((), {}), (([p],), {"no_such": 1}), (([p], 0.1), {"lr": 0.1}), (([p], -1.0), {}), (([],), {})]:
        errors = []
        for module in (fused_ml.optim, torch.optim):
            with pytest.raises((TypeError, ValueError)) as caught:
                getattr(module, name)(*args, **kwargs)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_constructors_of_several_bases_all_run():
    called = []

    class Note:
        def __init__(self, *args, **kwargs):
            called.append(type(self).__name__)
            super().__init__(*args, **kwargs)

    class MyAdam(Note, fused_ml.optim.Adam):
        pass

    class Both(fused_ml.optim.AdamW, MyAdam):
        pass

    optimizer = Both([torch.ones(3, requires_grad=True)], 0.5, max_grad_norm=2.0)
    assert called == ["Both"]
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"], optimizer.max_grad_norm) == (0.5, 0.01, 2.0)


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_torchs_class(name):
    ours, theirs = getattr(fused_ml.optim, name), getattr(torch.optim, name)
    assert issubclass(ours, theirs)
    p = [torch.ones(3, requires_grad=True)]
    assert repr(ours(p, 0.5)) == repr(theirs(p, 0.5))
    assert "max_grad_norm: 2.0" in repr(ours(p, 0.5, max_grad_norm=2))


def test_adamw_is_an_adam():
    assert issubclass(fused_ml.optim.AdamW, fused_ml.optim.Adam)


def test_every_other_name_is_torchs():
    namespace = {}
    exec("from fused_ml.optim import *", namespace)
    for name in torch.optim.__all__:
        expected = getattr(fused_ml.optim if name in EXAMPLES else torch.optim, name)
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

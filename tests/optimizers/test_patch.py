"""torch's own optimizers under patch_torch: stepped by the kernels, and in all else what they were."""

import copy
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from optimizers import OPTIONS, assert_state_close, numbers, random_params, said, with_fused
from patching import MADE, OwnGroups, OwnGroupsUncompiled, fused_operators, own_groups_of_an_instance, parameter, step

import fused_ml
from fused_ml.optim import _stand_in
from fused_ml.optim._base import FusedStep

OPTIMIZERS = fused_ml.optim.FUSED


@pytest.mark.parametrize("wraps", [True, False])
def test_a_step_that_a_library_has_replaced(wraps):
    """In a process of its own. One that wraps torch's is kept around ours; any other is left alone, with a warning."""
    program = f"""
import functools, warnings, torch
torchs, calls = torch.optim.SGD.step, []
def replaced(self, closure=None):
    calls.append(1)
    return torchs(self, closure)
torch.optim.SGD.step = functools.wraps(torchs)(replaced) if {wraps} else replaced
import fused_ml
p = torch.ones(3, requires_grad=True)
optimizer = torch.optim.SGD([p], lr=0.5)
p.grad = torch.ones(3)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with fused_ml.patch_torch(), torch.autograd.profiler.profile() as profile:
        optimizer.step()
assert calls == [1] and p.tolist() == [0.5] * 3
assert any(event.name == "fused_ml::sgd_run" for event in profile.function_events) is {wraps}
assert any(issubclass(each.category, fused_ml.FusedFallbackWarning) for each in caught) is not {wraps}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cls", MADE)
def test_optimizers_made_before_within_and_after(cls):
    before, reference = cls([parameter()], lr=0.1), cls([parameter()], lr=0.1)
    operator = {next(FusedStep.known[c] for c in cls.__mro__ if c in FusedStep.known)._family.run}
    with fused_ml.patch_torch():
        within = cls([parameter()], lr=0.1)
        for optimizer in (before, within):
            assert type(optimizer) is cls
            assert fused_operators(step, optimizer) == operator
            assert vars(optimizer).keys() - {"steps"} == vars(reference).keys()
        copies = [pickle.loads(pickle.dumps(before)), copy.deepcopy(within)]
        assert fused_operators(step, copy.deepcopy(before)) == operator
    step(reference)
    after = cls([parameter()], lr=0.1)
    step(after)
    for optimizer in (before, within, after, *copies):
        assert type(optimizer) is cls
        assert_state_close(optimizer, reference, 1)
    step(reference)
    for optimizer in (before, within, after, *copies):
        assert not fused_operators(step, optimizer)
        assert_state_close(optimizer, reference, 2)


@pytest.mark.parametrize("cls", [OwnGroups, OwnGroupsUncompiled, own_groups_of_an_instance])
def test_what_the_kernels_would_not_hear_of_is_stepped_by_torch(cls):
    optimizer, reference, plain = (c([parameter()], lr=0.1) for c in (cls, cls, torch.optim.Adam))
    with fused_ml.patch_torch():
        assert not fused_operators(step, optimizer)
    step(reference)
    step(plain)
    assert_state_close(optimizer, reference, 1)
    exp_avg = [o.state[o.param_groups[0]["params"][0]]["exp_avg"] for o in (reference, plain)]
    assert not torch.equal(*exp_avg)


def test_a_method_put_on_torchs_own_class_counts(monkeypatch):
    """As torch.compile does, but with a function that is not torch's."""
    torchs = torch.optim.SGD._init_group

    def signs(self, group, params, grads, *states):
        result = torchs(self, group, params, grads, *states)
        grads[:] = [grad.sign() for grad in grads]
        return result

    monkeypatch.setattr(torch.optim.SGD, "_init_group", signs)
    expected = step(torch.optim.SGD([parameter()], lr=0.1))
    with fused_ml.patch_torch():
        assert torch.equal(step(torch.optim.SGD([parameter()], lr=0.1))[0], expected[0])


@pytest.mark.parametrize(("case", "fused"), with_fused(OPTIONS))
def test_every_option_gives_torchs_numbers_while_the_patch_comes_and_goes(case, fused):
    name, options = OPTIONS[case]
    params = random_params(torch.float32)
    mine = [p.clone().requires_grad_() for p in params]
    theirs = [p.double().requires_grad_() for p in params]
    optimizer = getattr(torch.optim, name)(mine, **said(fused=fused), **numbers(options))
    reference = getattr(torch.optim, name)(theirs, foreach=False, **numbers(options))
    ran = []
    for i in range(5):
        for p, q in zip(mine, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
            q.grad = p.grad.double()
        if i in (0, 1, 3):
            with fused_ml.patch_torch():
                ran.append(fused_operators(optimizer.step))
        else:
            ran.append(fused_operators(optimizer.step))
        reference.step()
    operator = {getattr(fused_ml.optim, name)._family.run}
    assert ran == [operator, operator, set(), operator, set()]
    assert_state_close(optimizer, reference, 5)


def test_subclasses_hooked_before_torchs_class_was():
    """In a process of its own: torch wraps `step` for hooks on whichever class is made first, once."""
    program = """
import torch, fused_ml
p = torch.ones(3, requires_grad=True)
classes = [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam]
hooked = [type("First", (cls,), {}) for cls in classes]
made = [cls([p], lr=0.5) for cls in hooked]
assert all("step" in vars(cls) for cls in hooked) and not any(hasattr(cls.step, "hooked") for cls in classes)
calls = []
def kernels(optimizer):
    p.grad = torch.ones(3)
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    return sum(event.name.endswith("_run") for event in profile.function_events)
with fused_ml.patch_torch():
    made += [cls([p], lr=0.5) for cls in classes]
    for optimizer in made:
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
    assert [kernels(optimizer) for optimizer in made] == [1] * 6
assert len(calls) == 6
assert [kernels(optimizer) for optimizer in made] == [0] * 6
assert len(calls) == 12
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_gradients_as_with_torchs_class(name):
    def run():
        p = torch.ones(4, requires_grad=True)
        p.grad = torch.sparse_coo_tensor([[1]], [2.0], (4,))
        optimizer = getattr(torch.optim, name)([p], lr=0.5)
        try:
            optimizer.step()
        except RuntimeError as error:
            return str(error)
        return p.tolist()

    expected = run()
    with fused_ml.patch_torch():
        assert run() == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_and_parameters_without_gradients(name):
    def train():
        a, b, c = parameter(), parameter(), parameter()
        optimizer = getattr(torch.optim, name)([{"params": [a]}, {"params": [b, c], "lr": 0.3}], lr=0.1)
        for i in range(4):
            c.grad = None if i % 2 else torch.ones(6)
            optimizer.step()
            if i == 2:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                optimizer.add_param_group({"params": [parameter()]})
        return optimizer

    reference = train()
    with fused_ml.patch_torch():
        optimizer = train()
        assert fused_operators(optimizer.step)
    reference.step()
    assert_state_close(optimizer, reference, 5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_optimizers_still_find_torchs_step(name):
    """What the kernels leave to torch goes to torch's own step, not round in circles."""

    def make():
        optimizer = getattr(fused_ml.optim, name)([parameter()], lr=0.1, differentiable=True)
        optimizer.param_groups[0]["params"] = [optimizer.param_groups[0]["params"][0].detach()]
        return optimizer

    optimizer, expected = make(), step(make())
    with fused_ml.patch_torch():
        assert not fused_operators(step, make())
        assert torch.equal(step(optimizer)[0], expected[0])
        assert not _stand_in._stand_ins


def test_nothing_is_kept_of_an_optimizer_that_is_gone():
    with fused_ml.patch_torch():
        optimizer, other = torch.optim.Adam([parameter()]), torch.optim.Adam([parameter()])
        step(optimizer)
        step(other)
        alive = weakref.ref(optimizer)
        del optimizer
        assert alive() is None
        assert len(_stand_in._stand_ins) == 1
    assert len(_stand_in._stand_ins) == 0


def test_an_optimizer_that_cannot_be_hashed():
    class Equal(torch.optim.SGD):
        def __eq__(self, other):
            return self is other

    optimizer, reference = Equal([parameter()], lr=0.1), Equal([parameter()], lr=0.1)
    with fused_ml.patch_torch():
        step(optimizer)
    step(reference)
    assert_state_close(optimizer, reference, 1)

"""What changes between two steps is noticed: tensors, states, groups, options."""

import copy

import pytest
import torch
from optimizers import (
    STATEFUL,
    Pair,
    random_params,
)

import fused_ml
import fused_ml.optim
from fused_ml.optim import _plan

# Whatever changes between two steps is noticed.


def replace_state(o):
    for state in o.state.values():
        state.update({key: value.clone() for key, value in state.items()})


def move_state(o):
    for state in o.state.values():
        for value in state.values():
            value.data = value.data.clone()


def new_dicts(o):
    for p in list(o.state):
        o.state[p] = {key: value.clone() for key, value in o.state[p].items()}


def forget(o):
    o.state.clear()


def new_data(o):
    for group in o.param_groups:
        for p in group["params"]:
            p.data = p.data.clone()


def transpose_data(o):
    for group in o.param_groups:
        for p in group["params"]:
            if p.dim() == 2:
                p.data = p.data.t().contiguous().t()


def reload(o):
    o.load_state_dict(copy.deepcopy(o.state_dict()))


def other_options(o):
    o.param_groups[0].update(lr=0.02, weight_decay=0.1, maximize=True)


@pytest.fixture(autouse=True, params=["short way", "long way"])
def way(request, monkeypatch):
    """As where the limited API is missing: gradients are handed over one by one, at every step."""
    if request.param == "long way":
        monkeypatch.setattr(_plan, "gather", None)


@pytest.mark.parametrize(
    "change",
    [replace_state, move_state, new_dicts, forget, new_data, transpose_data, reload, other_options],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("case", STATEFUL)
def test_change_between_steps(case, change):
    pair = Pair(case, random_params(torch.float32)).step(2)
    change(pair.optimizer)
    change(pair.reference)
    pair.step(2).check()


@pytest.mark.parametrize("case", STATEFUL)
def test_transposed_in_place_between_steps(case):
    pair = Pair(case, [torch.randn(6, 6)]).step(2)
    for p, o in ((pair.ours[0], pair.optimizer), (pair.torch[0], pair.reference)):
        p.data = p.data.t()
        p.grad = p.grad.t().contiguous()
        o.step()
    pair.check()


@pytest.mark.parametrize("case", STATEFUL)
def test_dtype_changes_between_steps(case):
    pair = Pair(case, random_params(torch.float32)).step(2)
    for p in pair.ours:
        p.grad = None
        p.data = p.data.double()
        for key, value in pair.optimizer.state[p].items():
            if key != "step":
                value.data = value.data.double()
    pair.step(2)
    assert_state_close_as_float32(pair)


def assert_state_close_as_float32(pair):
    for p, q in zip(pair.ours, pair.torch, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", STATEFUL)
def test_gradients_come_and_go(case):
    pair = Pair(case, random_params(torch.float32))
    for absent in ([0, 1, 2], range(len(pair.ours)), [4, 5], [], [0, 4, 7], [4, 5], [0, 4, 7]):
        pair.set_gradients()
        for i in absent:
            pair.ours[i].grad = pair.torch[i].grad = None
        pair.optimizer.step()
        pair.reference.step()
        assert len(pair.optimizer.state) == len(pair.reference.state)  # nothing is allocated for them
    pair.check()


@pytest.mark.parametrize("case", STATEFUL)
def test_add_param_group(case):
    pair = Pair(case, random_params(torch.float32)).step()
    more = random_params(torch.float32, seed=1)
    for params, o in ((pair.ours, pair.optimizer), (pair.torch, pair.reference)):
        added = [p.to(params[0].dtype).clone().requires_grad_() for p in more]
        params.extend(added)
        o.add_param_group({"params": added, "lr": 0.02})
    pair.step(2).check()


def test_plans_do_not_outlive_the_optimizer():
    import gc
    import weakref

    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = fused_ml.optim.Adam([p])
    p.register_hook(lambda _, o=optimizer: None)  # parameter -> hook -> optimizer -> parameter
    optimizer.step()
    state, alive = weakref.ref(optimizer.state[p]["exp_avg"]), weakref.ref(p)
    del optimizer, p
    gc.collect()
    assert state() is None
    assert alive() is None

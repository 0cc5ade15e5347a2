"""The short way of a step that differs from the last one in its gradients alone, and what must not take it."""

import sysconfig

import pytest
import torch
from optimizers import LAYOUTS, STATEFUL, Pair, draw, random_params

import fused_ml
from fused_ml.optim import _plan

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
pytestmark = pytest.mark.skipif(FREE_THREADED, reason="this Python does not have the limited API")

SHAPES = [(5, 7), (), (1,), (64, 4), (2, 0, 3), (257,), (2, 3, 4, 5)]


def test_every_python_with_the_limited_api_has_it():
    assert _plan.gather is not None


@pytest.fixture
def long_way(monkeypatch):
    """The number of times that a list of gradients was handed over."""
    calls = []
    bind = _plan.Part.bind
    monkeypatch.setattr(_plan.Part, "bind", lambda part, grads: calls.append(1) or bind(part, grads))
    return calls


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", STATEFUL)
def test_new_gradients_take_the_short_way(case, layout, long_way):
    shapes = [shape for shape in SHAPES if shape]
    pair = Pair(case, [LAYOUTS[layout](p) for p in random_params(torch.float32, shapes)])
    pair.step(5, layout).check()
    assert len(long_way) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_dtype_takes_the_short_way(dtype, long_way):
    params = random_params(dtype, SHAPES)
    reference = None if dtype is torch.float64 else dtype
    pair = Pair("adam all", params, **({"reference_dtype": reference} if reference else {})).step(4)
    pair.check(20)
    assert len(long_way) == 1


def test_other_options_take_the_short_way(long_way):
    pair = Pair("adamw decay", random_params(torch.float32)).step(2)
    for o in (pair.optimizer, pair.reference):
        o.param_groups[0].update(lr=0.02, weight_decay=0.1)
    pair.step(2).check()
    assert len(long_way) == 1


def test_parameters_without_gradients_take_the_short_way(long_way):
    pair = Pair("adam", random_params(torch.float32))
    for _ in range(4):
        pair.set_gradients()
        for i in (0, 3, 4):
            pair.ours[i].grad = pair.torch[i].grad = None
        pair.optimizer.step()
        pair.reference.step()
    pair.check()
    assert len(long_way) == 1


def test_versions_are_bumped():
    pair = Pair("adam", random_params(torch.float32)).step(2)
    before = [p._version for p in pair.ours]
    pair.step()
    assert [p._version for p in pair.ours] == [version + 1 for version in before]


def conjugated(real):
    """As `real`, but it is stored negated, in a tensor of complex numbers."""
    return torch.complex(torch.zeros_like(real), -real).conj().imag


def expanded(grad):
    return grad.flatten()[:1].reshape([1] * grad.dim()).expand(grad.shape) if grad.numel() else grad


ODD_GRADIENTS = {
    "stored negated": conjugated,
    "expanded": expanded,
    "every other": LAYOUTS["every other"],
    "requires grad": lambda grad: grad.clone().requires_grad_(),
    "a Parameter": lambda grad: torch.nn.Parameter(grad.clone()),
    "slice of a larger storage": lambda grad: torch.cat([grad.flatten()] * 3)[grad.numel() :][: grad.numel()].view(
        grad.shape
    ),
}


@pytest.mark.parametrize("odd", ODD_GRADIENTS)
@pytest.mark.parametrize("case", ["sgd momentum", "adam"])
def test_odd_gradients_after_plain_ones(case, odd):
    pair = Pair(case, random_params(torch.float32, SHAPES)).step(2)
    for _ in range(2):
        for ours, reference in zip(pair.ours, pair.torch, strict=True):
            ours.grad = ODD_GRADIENTS[odd](pair.gradient(ours))
            reference.grad = ours.grad.detach().resolve_neg().to(reference.dtype)
        pair.optimizer.step()
        pair.reference.step()
    pair.step(2).check(6)


@pytest.mark.parametrize("shape", [(), (1,), (5, 7), (64, 4), (1, 257)], ids=str)
def test_gradient_stored_negated_after_ones_of_its_strides(shape):
    """Nothing but the pending negation is new."""
    pair = Pair("adam", random_params(torch.float32, [shape])).step(2, "every other")
    for ours, reference in zip(pair.ours, pair.torch, strict=True):
        ours.grad = conjugated(pair.gradient(ours))
        assert ours.grad.is_neg()
        reference.grad = ours.grad.resolve_neg().to(reference.dtype)
    pair.optimizer.step()
    pair.reference.step()
    pair.check()


class Subclass(torch.Tensor):
    pass


UNFIT = {
    "another dtype": lambda p: p.detach().double(),
    "another shape": lambda p: torch.ones(p.shape[1], p.shape[0]),
    "sparse": lambda p: torch.ones(p.shape).to_sparse(),
    "a subclass": lambda p: torch.ones(p.shape).as_subclass(Subclass),
    "without memory": lambda p: torch._efficientzerotensor(p.shape),
}


@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
@pytest.mark.parametrize("unfit", UNFIT)
def test_unfit_gradients_after_fit_ones(unfit):
    """They end as for an optimizer without a plan."""
    outcomes = []
    for short in (True, False):
        p = draw((4, 3), torch.Generator().manual_seed(0)).requires_grad_()
        optimizer = fused_ml.optim.Adam([p], lr=0.1)
        for _ in range(2):
            p.grad = torch.ones_like(p)
            optimizer.step()
        grad = UNFIT[unfit](p)
        with torch.no_grad():
            try:
                p.grad = grad
            except RuntimeError:  # torch itself lets it only in through the back door
                p.grad = None
                p.data, value = grad.new_empty(grad.shape), p.data
                p.grad = grad
                p.data = value
        if not short:
            optimizer._plans.clear()
        error = None
        try:
            optimizer.step()
        except Exception as raised:
            error = raised
        outcomes.append((type(error), str(error), *(x.tolist() for x in (p, *optimizer.state[p].values()))))
    assert outcomes[0] == outcomes[1]


def noted(optimizer):
    (plan,) = optimizer._plans.values()
    return {
        "groups": optimizer.param_groups,
        "params": plan.params,
        "absent": plan.absent,
        "state": optimizer.state,
        "known": plan.state_values,
        "views": plan.parts[0].views.data_ptr(),
    }


def gathered(arguments, **changes):
    return _plan.gather(*{**arguments, **changes}.values())


def test_gather_notices_what_was_replaced():
    pair = Pair("adam", [torch.ones(3), torch.ones(2)]).step(2)
    optimizer = pair.optimizer
    arguments = noted(optimizer)
    params, state = list(arguments["params"]), dict(optimizer.state)
    assert [id(grad) for grad in gathered(arguments)] == [id(p.grad) for p in params]
    others = {
        "groups": [[], [{}], [{"params": params[:1]}], [{"params": params[::-1]}], [{"params": params + params}],
                   [{"params": tuple(params)}], [[params]], [{"params": params[:1]}, {"params": [torch.ones(2)]}]],
        "absent": [b"\0\1", b"\1\1"],
        "state": [{}, {params[0]: state[params[0]]}, {**state, 3: {"more": 1}}, dict.fromkeys(params, 5)],
        "known": [[], arguments["known"][:-1], [*arguments["known"], 1], arguments["known"][::-1]],
    }  # fmt: skip
    for name, values in others.items():
        for value in values:
            assert gathered(arguments, **{name: value}) is None, (name, value)
    assert gathered(arguments, groups=[{"params": params[:1]}, {"params": []}, {"params": params[1:]}])
    with pytest.raises(ValueError, match="one byte for each parameter"):
        gathered(arguments, absent=b"\0")
    for name in ("groups", "params", "state", "known"):
        with pytest.raises(TypeError):
            gathered(arguments, **{name: None})


def test_gather_counts_references():
    import sys

    pair = Pair("adam", [torch.ones(3), torch.ones(2)]).step(2)
    arguments = noted(pair.optimizer)
    watched = [None, pair.ours[0], pair.ours[0].grad, arguments["known"][0], torch.Tensor, False, Subclass]
    gathered(arguments)
    before = [sys.getrefcount(x) for x in watched]
    for _ in range(100):
        gathered(arguments)
        gathered(arguments, known=[])
        gathered(arguments, absent=b"\0\1")
    after = [sys.getrefcount(x) for x in watched]
    assert all(abs(b - a) < 20 for a, b in zip(before, after, strict=True))


def plan_of(states):
    ops = _plan.operators_for(states[0].device)
    count = len(states)
    return ops, ops.multi_tensor_plan(states[0].new_empty(0), states, [], [0] * count, [1] * count, [0] * count)


OPTIONS = [0.5, 0.0, 0.0, 0.0, 0.0, 0.0]  # SGD: lr and five zeros; its one state is then the gradient


def test_a_plan_that_declined_can_be_bound_again():
    states = [torch.zeros(3), torch.zeros(5)]
    ops, plan = plan_of(states)
    params, grads = [torch.zeros(3), torch.zeros(5)], [torch.ones(3), torch.ones(5)]
    assert ops.multi_tensor_bind(plan, params, grads) == 0
    states[0].data = torch.zeros(4097)  # the first is another one now, and the second unfit
    params[0], grads[0] = torch.zeros(4097), torch.ones(4097)
    assert ops.multi_tensor_bind(plan, params, [grads[0], torch.ones(6)]) == _plan.Problem.shape + 16
    with pytest.raises(RuntimeError, match="bind them before every run"):
        ops.sgd_run(plan, OPTIONS)
    assert ops.multi_tensor_bind(plan, params, grads) == 0
    ops.sgd_run(plan, OPTIONS)
    assert all((p == -0.5).all() for p in params)
    with pytest.raises(RuntimeError, match="bind them before every run"):
        ops.sgd_run(plan, OPTIONS)
    ops.multi_tensor_free(plan)


def test_views_are_checked():
    ops, plan = plan_of([torch.zeros(3)])
    for views in (torch.empty(95, dtype=torch.uint8), torch.empty(96), torch.empty(192, dtype=torch.uint8)[::2]):
        with pytest.raises(RuntimeError, match="expected the bytes of TensorViews"):
            ops.multi_tensor_rebind(plan, views)
    assert not ops.multi_tensor_rebind(plan, torch.zeros(96, dtype=torch.uint8))  # nothing was bound before
    assert ops.multi_tensor_bind(plan, [torch.zeros(3)], [torch.ones(3)]) == 0
    assert not ops.multi_tensor_rebind(plan, torch.zeros(192, dtype=torch.uint8))  # of two parameters
    ops.multi_tensor_free(plan)

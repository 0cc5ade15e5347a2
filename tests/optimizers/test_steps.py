"""Trajectories against torch's single-tensor code in float64, over options, dtypes and layouts."""

import pytest
import torch
from optimizers import (
    BRIEF,
    DTYPES,
    LAYOUTS,
    OPTIONS,
    STATEFUL,
    Pair,
    assert_state_close,
    close,
    draw,
    numbers,
    random_params,
)

import fused_ml.optim

SHAPE = (4, 3, 5, 6)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", OPTIONS)
def test_trajectory(case, dtype):
    Pair(case, random_params(dtype)).step(5).check()


@pytest.mark.parametrize("grad", LAYOUTS)
@pytest.mark.parametrize("param", LAYOUTS)
@pytest.mark.parametrize("case", BRIEF)
def test_layouts_of_parameter_and_gradient(case, param, grad):
    x = LAYOUTS[param](torch.randn(SHAPE))
    pair = Pair(case, [x, torch.randn(300)]).step(3, grad)
    assert pair.ours[0].stride() == x.stride()
    pair.check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_in_every_dtype(layout, dtype):
    Pair("adam all", [LAYOUTS[layout](torch.randn(9, 70).to(dtype))]).step(3, "transposed").check()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", STATEFUL)
def test_layout_of_state_differs(case, layout):
    pair = Pair(case, [torch.randn(SHAPE)]).step()
    state = pair.optimizer.state[pair.ours[0]]
    for key in set(state) - {"step"}:
        state[key] = LAYOUTS[layout](state[key])
    pair.step(3).check()


@pytest.mark.parametrize("case", BRIEF)
def test_expanded_gradient(case):
    pair = Pair(case, [torch.randn(6, 70)])
    for _ in range(3):
        pair.set_gradients()
        pair.ours[0].grad = pair.gradient(pair.ours[0])[:1].expand(6, 70)
        pair.torch[0].grad = pair.ours[0].grad.double()
        assert pair.ours[0].grad.stride() == (0, 1)
        pair.optimizer.step()
        pair.reference.step()
    pair.check()


@pytest.mark.parametrize("layout", ["sliced", "every other"])
@pytest.mark.parametrize("case", BRIEF)
def test_neighbours_in_the_buffer_are_untouched(case, layout):
    x = LAYOUTS[layout](torch.randn(11, 300))
    pair = Pair(case, [x]).step(3)
    pair.check()
    whole = x._base if x._base is not None else x
    mask = torch.ones_like(whole, dtype=torch.bool)
    mask.as_strided(x.shape, x.stride(), x.storage_offset()).fill_(False)
    assert mask.any()
    assert (whole[mask] == 777).all()


@pytest.mark.parametrize("case", BRIEF)
def test_slices_of_one_buffer(case):
    def parts(buffer):
        return [buffer[:37], buffer[37:300].view(263), buffer[300:400].view(10, 10).t(), buffer[400:]]

    pair = Pair(case, parts(torch.randn(1000))).step(4)
    pair.check()


@pytest.mark.parametrize("overlap", ["same", "partly", "columns"])
@pytest.mark.parametrize("case", [*STATEFUL, "sgd", "sgd decay"])
def test_parameters_that_share_storage_are_stepped_in_order(case, overlap, threads):
    threads(2)  # and enough elements for both: side by side they would lose updates
    name, options = OPTIONS[case]
    results = []
    for module, extra in ((fused_ml.optim, {}), (torch.optim, {"foreach": False})):
        generator = torch.Generator().manual_seed(3)
        buffer = draw((200, 500), generator, torch.float64)
        views = {
            "same": [buffer, buffer],
            "partly": [buffer[:150], buffer[50:], buffer[10:150]],
            "columns": [buffer[:, ::2], buffer[:, 1::2]],
        }[overlap]
        params = [view.detach().requires_grad_() for view in views]
        optimizer = getattr(module, name)(params, **numbers(options), **extra)
        for _ in range(3):
            for p in params:
                p.grad = draw(p.shape, generator, p.dtype)
            optimizer.step()
        results.append(buffer)
    close(results[0], results[1], 3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ["sgd all", "adam all"])
def test_every_tail(case, dtype):
    lengths = [*range(70), 255, 256, 257, 511, 513, 4095, 4096, 4097]
    Pair(case, random_params(dtype, [(length,) for length in lengths])).step(2).check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", STATEFUL)
def test_float32_states_of_16_bit_parameters(case, dtype):
    pair = Pair(case, random_params(dtype)).step()
    for p in pair.ours:
        state = pair.optimizer.state[p]
        state.update({key: value.float() for key, value in state.items()})
    pair.step(3)
    for p in pair.ours:
        assert {value.dtype for value in pair.optimizer.state[p].values()} == {torch.float32}
    pair.check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", OPTIONS)
def test_one_rounding(case, dtype):
    """The first step of a 16-bit parameter is the float32 step, rounded once."""
    pair = Pair(case, random_params(dtype, [(1000,)]), reference_dtype=torch.float32).step()
    expected = pair.torch[0].detach()
    rounded = expected.to(dtype)
    neighbour = torch.nextafter(expected, pair.ours[0].detach().float()).to(dtype)  # float32's own last bit
    ours = pair.ours[0].detach()
    wrong = (ours != rounded) & (ours != neighbour)
    assert wrong.sum() == 0, f"{wrong.sum()} of 1000"


@pytest.mark.parametrize("case", BRIEF)
def test_groups_with_options_of_their_own(case):
    name, options = OPTIONS[case]
    params = [random_params(torch.float32, seed=i) for i in range(3)]
    optimizers = []
    for module in (fused_ml.optim, torch.optim):
        groups = [[p.clone().requires_grad_() for p in group] for group in params]
        settings = [{}, {"lr": 0.003, "weight_decay": 0.4}, {"maximize": True}]
        optimizers.append(
            getattr(module, name)([{"params": g, **s} for g, s in zip(groups, settings, strict=True)], **options)
        )
    for _ in range(3):
        for p, q in zip(*map(parameters, optimizers), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert_state_close(*optimizers, 5)


def test_mixed_dtypes_in_one_optimizer():
    pair = Pair("adam all", [p for dtype in DTYPES for p in random_params(dtype)]).step(3)
    pair.check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", STATEFUL)
def test_non_finite_gradients_stay_in_their_elements(case, dtype):
    pair = Pair(case, random_params(dtype, [(301,)]))
    for _ in range(2):
        pair.set_gradients()
        for p in (pair.ours[0], pair.torch[0]):
            p.grad[5], p.grad[100] = float("nan"), float("inf")
        pair.optimizer.step()
        pair.reference.step()
    close(pair.ours[0], pair.torch[0], 2)


@pytest.mark.parametrize("case", [name for name in OPTIONS if "decay" not in name and "all" not in name])
def test_infinite_parameter_without_decay_stays_infinite(case):
    if case == "adamw":
        pytest.skip("AdamW decays by default")
    pair = Pair(case, [torch.tensor([float("inf"), 1.0])]).step(2)
    assert pair.ours[0][0] == float("inf")
    pair.check()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", OPTIONS)
def test_a_constant_gradient_leaves_what_is_finite_finite(case, dtype):
    """A variance that is 0, by the difference of two roundings: torch's RMSprop takes the root of what is below."""
    pair = Pair(case, [torch.zeros(64, dtype=dtype)])
    gradient = torch.linspace(0.1, 3, 64).to(dtype)
    for _ in range(60):
        pair.ours[0].grad, pair.torch[0].grad = gradient, gradient.double()
        pair.optimizer.step()
        pair.reference.step()
    assert pair.torch[0].isfinite().all()
    assert pair.ours[0].isfinite().all()


def test_long_trajectory_keeps_the_bias_correction():
    pair = Pair("adam", [torch.randn(33)]).step(300)
    close(pair.ours[0], pair.torch[0], 30)

"""Numbers that lie beside the parameters: step counts, learning rates, loss scale; and the list of parameters there."""

import pytest
import torch
from optimizers import (
    EXAMPLES,
    OPTIONS,
    STATEFUL,
    Pair,
    assert_state_close,
    draw,
    grad_scaler,
    here,
    numbers,
    random_params,
    with_fused,
)

import fused_ml.optim
from fused_ml.optim import _plan

COUNTING = [case for case, fused in with_fused(STATEFUL) if fused and not case.startswith("sgd")]


def on_device(value):
    return torch.tensor(value, device=here())


@pytest.mark.parametrize("case", STATEFUL)
def test_learning_rate_changed_in_place(case):
    pair = Pair(case, random_params(torch.float32))
    group, reference = pair.optimizer.param_groups[0], pair.reference.param_groups[0]
    group["foreach"], group["lr"] = False, on_device(0.125)
    for lr in (0.125, 0.5, 0.25):
        group["lr"].fill_(lr)
        reference["lr"] = lr
        pair.step()
    pair.check()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64], ids=str)
def test_options_of_any_dtype(dtype):
    pair = Pair("adam", random_params(torch.float64))
    lr = torch.tensor(1 if dtype is torch.int64 else 0.25, dtype=dtype, device=here())
    pair.optimizer.param_groups[0].update(lr=lr, betas=(on_device(0.75), on_device(0.875)))
    pair.reference.param_groups[0].update(lr=lr.item(), betas=(0.75, 0.875))
    pair.step(3).check()


def test_groups_with_numbers_here_and_there():
    params = random_params(torch.float32, [(300,), (5, 7), (4097,)])
    settings = [{"lr": on_device(0.25)}, {"lr": 0.125, "weight_decay": 0.5}, {"lr": on_device(0.5), "maximize": True}]
    results = []
    for module in (fused_ml.optim, torch.optim):
        groups = [
            {"params": [p.clone().requires_grad_()], **(s if module is fused_ml.optim else numbers(s))}
            for p, s in zip(params, settings, strict=True)
        ]
        optimizer = module.SGD(groups, momentum=0.9)
        generator = torch.Generator().manual_seed(5)
        for _ in range(3):
            for group in groups:
                group["params"][0].grad = draw(group["params"][0].shape, generator)
            optimizer.step()
        results.append([group["params"][0].detach() for group in groups])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", COUNTING)
def test_fused_counts_beside_the_parameters(case, default, emulated):
    torch.set_default_dtype(default)
    try:
        pair = Pair(case, random_params(torch.float32), fused=None if emulated and default is torch.float64 else True)
        pair.step(3)
    finally:
        torch.set_default_dtype(torch.float32)
    steps = [pair.optimizer.state[p]["step"] for p in pair.ours]
    assert all(step.device == here() and step.item() == 3 for step in steps)
    pair.check()


def step_under(scaler, pair, factor):
    scaler.scale(torch.zeros(()))
    for p in pair.ours:
        p.grad = p.grad * factor
    scaler.step(pair.optimizer)
    scaler.update()


@pytest.mark.parametrize("clip", [None, 1e3])
@pytest.mark.parametrize(("case", "fused"), with_fused(STATEFUL))
def test_skipped_steps_leave_no_trace(case, fused, clip, monkeypatch, emulated):
    """Skipped first, in between, and twice: the trajectory of the steps that were taken."""
    if emulated and not fused:  # where CPU tensors stand for a GPU's, these still count as the host's
        monkeypatch.setattr(_plan, "on_host", lambda number: True)
    pair = Pair(case, random_params(torch.float32), max_grad_norm=clip, fused=fused)
    pair.optimizer._step_supports_amp_scaling = True  # by hand where the counts are the host's
    scaler = grad_scaler(init_scale=2.0**20, growth_interval=1000)
    for bad in (True, False, True, True, False, False):
        pair.set_gradients()
        if bad:
            pair.ours[4].grad[0] = float("inf")
        step_under(scaler, pair, scaler.get_scale() if scaler._scale is not None else 2.0**20)
        assert pair.optimizer.skipped == bad
        if not bad:
            pair.reference.step()
    assert_state_close(pair.optimizer, pair.reference, 5)


@pytest.mark.parametrize("count", [1, 45, 700])
@pytest.mark.parametrize("case", ["sgd momentum", "adamw all"])
def test_many_parameters_whose_gradients_move(case, count):
    """The list of 700 takes some pages of arguments; what changes is told again, and nothing else is lost."""
    lengths = [(1 + i % 7 * 100,) for i in range(count)]
    pair = Pair(case, random_params(torch.float32, lengths), max_grad_norm=1e3).step(2)
    for kept in (count // 2, 0, count - 1):
        pair.set_gradients()
        for i, p in enumerate(pair.ours):
            if i != kept:
                p.grad = p.grad.clone()
        pair.optimizer.step()
        pair.reference.step()
    pair.check()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_parameter_at_every_distance_from_alignment(name):
    """Operands that reach alignment together, apart, or never; shorter than the way there."""
    options = EXAMPLES[name]
    results = []
    for module in (fused_ml.optim, torch.optim):
        generator, params = torch.Generator().manual_seed(1), []
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            for shift in range(9):
                for length in (1, 2, 7, 40, 300):
                    p = draw((length + 16,), generator, dtype)[shift : shift + length].requires_grad_()
                    p.grad = draw((length + 16,), generator, dtype)[shift // 2 * 2 : shift // 2 * 2 + length]
                    params.append(p)
        optimizer = getattr(module, name)(params, **options)
        optimizer.step()
        optimizer.step()
        results.append([p.detach() for p in params])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2 * torch.finfo(ours.dtype).eps, atol=0.002 if ours.dtype is
                                   torch.bfloat16 else 1e-6)  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_the_last_elements_are_left_alone(case):
    """What lies behind a parameter in its storage."""
    buffers = [torch.full((length + 8,), 3.0) for length in (1, 4, 255, 1021)]
    Pair(case, [buffer[:-8] for buffer in buffers]).step(2).check()
    assert all((buffer[-8:] == 3).all() for buffer in buffers)

"""GradScaler and global-norm clipping in the step: test_amp.py has what torch's classes do beside it."""

import copy
import math
import pickle

import pytest
import torch
from optimizers import (
    BRIEF,
    DTYPES,
    EXAMPLES,
    LAYOUTS,
    OPTIONS,
    STATEFUL,
    Pair,
    assert_state_close,
    assert_unchanged,
    close,
    grad_scaler,
    numbers,
    random_params,
    said,
    snapshot,
    with_fused,
)

import fused_ml.optim


def norm_of(params):
    return torch.stack([p.grad.double().norm() for p in params if p.grad is not None]).norm()


def scaled_step(optimizer, params, scaler, factor):
    """backward() of the scaled loss, as far as the gradients are concerned, and the scaler's step."""
    scaler.scale(torch.zeros(()))  # makes the scale
    for p in params:
        p.grad = p.grad * factor
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 5.0, 1e5, math.inf])
@pytest.mark.parametrize("case", BRIEF)
def test_clipping_is_clip_grad_norm_and_step(case, max_norm, dtype):
    if dtype is torch.float16 and case.startswith("adam"):
        pytest.skip("the squares of clipped gradients are below the least float16 state")
    pair = Pair(case, random_params(dtype), max_grad_norm=max_norm)
    for _ in range(3):
        pair.set_gradients()
        expected = norm_of(pair.torch)
        torch.nn.utils.clip_grad_norm_(pair.torch, max_norm)
        pair.optimizer.step()
        pair.reference.step()
        assert pair.optimizer.grad_norm.shape == ()
        assert pair.optimizer.grad_norm.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
        torch.testing.assert_close(pair.optimizer.grad_norm.double(), expected, rtol=1e-6, atol=0)
        assert not pair.optimizer.skipped
    pair.check()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_of_any_layout_and_many_groups(layout):
    params = [torch.randn(300, 70, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64)]
    optimizer = fused_ml.optim.SGD([{"params": [p]} for p in params], lr=0.1, max_grad_norm=1.0)
    for p in params:
        p.grad = LAYOUTS[layout](torch.randn(300, 70, dtype=p.dtype))
    optimizer.step()
    torch.testing.assert_close(optimizer.grad_norm, norm_of(params), rtol=1e-6, atol=0)


def test_norm_neither_overflows_nor_underflows():
    for value in (1e30, 1e-30):
        p = torch.zeros(10000, requires_grad=True)
        p.grad = torch.full((10000,), value)
        optimizer = fused_ml.optim.SGD([p], lr=1.0, max_grad_norm=1.0)
        optimizer.step()
        assert optimizer.grad_norm.item() == pytest.approx(value * 100, rel=1e-6)
        assert p.norm().item() == pytest.approx(min(1.0, value * 100), rel=1e-5)


def test_norm_without_gradients_is_zero():
    optimizer = fused_ml.optim.Adam([torch.ones(3, requires_grad=True)], max_grad_norm=1.0)
    optimizer.step()
    assert optimizer.grad_norm == 0


def test_no_norm_is_kept_without_clipping():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    optimizer = fused_ml.optim.Adam([p])
    optimizer.step()
    assert optimizer.grad_norm is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("case", BRIEF)
def test_non_finite_norm_without_scaler_is_clip_grad_norm_(case, bad):
    pair = Pair(case, [torch.randn(300)], max_grad_norm=1.0)
    pair.set_gradients()
    pair.ours[0].grad[3] = pair.torch[0].grad[3] = bad
    torch.nn.utils.clip_grad_norm_(pair.torch, 1.0)
    pair.optimizer.step()
    pair.reference.step()
    close(pair.ours[0], pair.torch[0], 3)
    assert not pair.optimizer.skipped


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(("case", "fused"), with_fused(BRIEF))
def test_scaler_unscales_exactly_once(case, dtype, unscale, fused, clip):
    """By itself, or within the step: the gradients are unscaled afterwards, and not clipped."""
    pair = Pair(case, random_params(dtype), max_grad_norm=clip, fused=fused)
    scaler = grad_scaler(init_scale=2.0**10)
    for _ in range(3):
        pair.set_gradients()
        given = [p.grad for p in pair.ours]
        expected = norm_of(pair.torch)
        if clip:
            torch.nn.utils.clip_grad_norm_(pair.torch, clip)
        scale = scaler.get_scale()
        if unscale:
            scaler.scale(torch.zeros(()))
            for p in pair.ours:
                p.grad = p.grad * scale
            scaler.unscale_(pair.optimizer)
            scaler.step(pair.optimizer)
            scaler.update()
        else:
            scaled_step(pair.optimizer, pair.ours, scaler, scale)
        assert all(torch.equal(p.grad, grad) for p, grad in zip(pair.ours, given, strict=True))
        assert not pair.optimizer.skipped
        pair.reference.step()
        if clip:
            torch.testing.assert_close(pair.optimizer.grad_norm.double(), expected, rtol=1e-6, atol=0)
    pair.check()


@pytest.mark.parametrize("fused", [None, True])
def test_scale_that_is_no_power_of_two(fused):
    pair = Pair("adam", [torch.randn(1000)], fused=fused)
    pair.set_gradients()
    scaled_step(pair.optimizer, pair.ours, grad_scaler(init_scale=1000.0), 1000.0)
    pair.reference.step()
    pair.check()


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(("case", "fused"), with_fused(STATEFUL))
def test_found_inf_skips_everything(case, started, fused, clip, on_cuda):
    """Unless the step was asked to be fused it is not called at all, and knows of nothing."""
    pair = Pair(case, random_params(torch.float32), max_grad_norm=clip, fused=fused)
    scaler = grad_scaler(init_scale=8.0, growth_interval=100)
    called = []
    pair.optimizer.register_step_post_hook(lambda *_: called.append(1))
    if started:
        pair.set_gradients()
        scaled_step(pair.optimizer, pair.ours, scaler, 8.0)
        assert not pair.optimizer.skipped
    before = snapshot(pair.optimizer)
    versions = [p._version for p in pair.ours]
    norm = pair.optimizer.grad_norm
    pair.set_gradients()
    pair.ours[3].grad[0] = math.inf
    scaled_step(pair.optimizer, pair.ours, scaler, 8.0)
    assert pair.optimizer.skipped == bool(fused)
    assert len(called) == started + bool(fused)
    if clip:
        assert not math.isfinite(pair.optimizer.grad_norm) if fused else pair.optimizer.grad_norm is norm
    assert (on_cuda and fused) or [p._version for p in pair.ours] == versions
    assert_unchanged(pair.optimizer, before, new_zeros=on_cuda and fused)
    assert scaler.get_scale() == 4.0
    pair.set_gradients()
    scaled_step(pair.optimizer, pair.ours, scaler, 4.0)
    assert not pair.optimizer.skipped


@pytest.mark.parametrize("case", STATEFUL)
def test_non_finite_norm_under_a_scaler_skips_everything(case, on_cuda):
    """found_inf says nothing of what the product with the scale overflows to."""
    pair = Pair(case, [torch.randn(300, dtype=torch.float64)], max_grad_norm=1e6)
    pair.ours[0].grad = torch.full((300,), 1e200, dtype=torch.float64)
    pair.optimizer.grad_scale, pair.optimizer.found_inf = torch.ones(()), torch.zeros(())
    before = snapshot(pair.optimizer)
    pair.optimizer.step()
    assert pair.optimizer.skipped
    assert not math.isfinite(pair.optimizer.grad_norm)
    assert_unchanged(pair.optimizer, before, new_zeros=on_cuda)
    del pair.optimizer.grad_scale, pair.optimizer.found_inf
    pair.step(2).check()
    assert not pair.optimizer.skipped


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [None, True])
def test_a_skipped_step_leaves_the_gradients_as_the_scaler_does(fused, unscale):
    p = torch.ones(3, requires_grad=True)
    optimizer = fused_ml.optim.Adam([p], fused=fused)
    scaler = grad_scaler(init_scale=4.0)
    scaler.scale(torch.zeros(()))
    p.grad = torch.tensor([math.inf, 8.0, -4.0])
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert p.grad.tolist() == ([math.inf, 8.0, -4.0] if fused and not unscale else [math.inf, 2.0, -1.0])


def test_scaler_with_no_gradients_at_all():
    p = torch.ones(3, requires_grad=True)
    scaler = grad_scaler()
    scaler.scale(torch.zeros(()))
    optimizer = fused_ml.optim.Adam([p], fused=True)
    scaler.step(optimizer)
    assert len(optimizer.state) == 0
    with pytest.raises(AssertionError, match="No inf checks were recorded"):  # as with torch's
        scaler.step(fused_ml.optim.Adam([p]))


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_scaling_survives_copies_and_torch_checkpoints(copier, fused):
    pair = Pair("adam", [torch.randn(300)], fused=fused).step()
    optimizer = copier(pair.optimizer)
    optimizer.load_state_dict(copy.deepcopy(pair.reference.state_dict()))
    params = optimizer.param_groups[0]["params"]
    pair.set_gradients()
    params[0].grad = pair.ours[0].grad
    scaled_step(optimizer, params, grad_scaler(init_scale=64.0), 64.0)
    pair.reference.step()
    assert_state_close(optimizer, pair.reference, 5)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(("name", "options"), EXAMPLES.items())
def test_torchs_own_step_is_scaled_and_clipped_too(name, options, clip):
    """Complex parameters have no kernel."""
    p = torch.randn(9, dtype=torch.complex64).requires_grad_()
    q = p.detach().clone().requires_grad_()
    optimizer = getattr(fused_ml.optim, name)([p], max_grad_norm=clip, **options)
    reference = getattr(torch.optim, name)([q], **options)
    scaler = grad_scaler(init_scale=16.0)
    for bad in (False, True, False):
        scaler.scale(torch.zeros(()))
        scale = scaler.get_scale()
        grad = torch.randn(9, dtype=torch.complex64)
        p.grad, q.grad = grad * scale, grad.clone()
        if bad:
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.ones(())
            before = snapshot(optimizer)
            optimizer.step()
            assert_unchanged(optimizer, before)
            assert optimizer.skipped
            continue
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.zeros(())
        given, unscaled = p.grad, grad.clone()
        with pytest.warns(fused_ml.FusedFallbackWarning) if needs_warning(name) else no_warning():
            optimizer.step()
        assert p.grad is given
        assert torch.equal(p.grad, unscaled)
        assert optimizer.found_inf == 0
        if clip:
            torch.nn.utils.clip_grad_norm_([q], clip)
        reference.step()
        torch.testing.assert_close(p.detach(), q.detach())


def no_warning():
    import contextlib

    return contextlib.nullcontext()


def needs_warning(name):
    from fused_ml import _explain

    return ("optim." + name, "there is no kernel for torch.complex64") not in _explain._warned


@pytest.mark.parametrize("case", [case for case, fused in with_fused(OPTIONS) if fused])
def test_fused_true_needs_no_other_scaler_path(case):
    name, options = OPTIONS[case]
    results = []
    for fused in (None, True):
        p = torch.linspace(-1, 1, 50).requires_grad_()
        optimizer = getattr(fused_ml.optim, name)([p], **said(fused=fused), **numbers(options))
        p.grad = torch.linspace(1, 2, 50)
        scaled_step(optimizer, [p], grad_scaler(init_scale=4.0), 4.0)
        results.append(p.detach())
    assert torch.equal(*results)

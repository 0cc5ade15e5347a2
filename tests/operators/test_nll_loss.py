"""nll_loss: it only picks and adds, so float64 says exactly what must come out."""

import pytest
import torch
from cases import (
    FLOATS,
    INDEX_TARGETS,
    LAYOUTS,
    OPTIONS,
    REDUCTIONS,
    SMALL_LAYOUTS,
    classes_of,
    drawer,
    make_target,
    name_of,
)
from compare import assert_near, assert_same_form
from references import rows_back, rows_last

import fused_ml.nn.functional as F

OPTION_NAMES = [name for name in OPTIONS if "smoothing" not in name]


def reference(x, target, upstream, weight=None, ignore_index=-100, reduction="mean"):
    rows, t = rows_last(x.detach().double()), target.reshape(-1).long()
    valid = t != ignore_index
    chosen = torch.where(valid, t, 0)
    w = torch.ones(classes_of(x), dtype=torch.float64) if weight is None else weight.double()
    w = w[chosen] * valid
    loss = -w * torch.where(valid, rows.gather(1, chosen[:, None]).squeeze(1), 0.0)
    divisor = w.sum() if reduction == "mean" else 1.0
    factor = torch.where(valid, upstream.reshape(-1).double() * w / divisor, 0.0)
    gradient = torch.zeros_like(rows).scatter_(1, chosen[:, None], -factor[:, None])
    value = loss.reshape(target.shape) if reduction == "none" else loss.sum() / divisor
    size = loss.abs().reshape(target.shape) if reduction == "none" else loss.abs().sum() / divisor
    return value, rows_back(gradient, x), size


def check(x, target, upstream=None, torch_takes_it=True, **options):
    x = x.detach().requires_grad_()
    loss = F.nll_loss(x, target, **options)
    upstream = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    (gradient,) = torch.autograd.grad(loss, x, upstream)
    expected, expected_gradient, size = reference(x, target, upstream, **options)
    assert_near(loss, expected, size, what="loss")
    assert_near(gradient, expected_gradient, expected_gradient.abs(), 2, "gradient")
    if torch_takes_it:
        assert_same_form(loss, torch.nn.functional.nll_loss(x, target, **options), "loss")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*LAYOUTS])
def test_layouts(layout, dtype, device):
    x = LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x), torch_takes_it=x.numel() > 0)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("option", OPTION_NAMES)
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,d", "N,C,H,W", "channels_last", "every other column"])
def test_options(layout, option, reduction, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device))
    target = make_target(x)
    if target.dim() == 0:
        target.fill_(5)  # none of the options leaves it out
    check(x, target, reduction=reduction, **OPTIONS[option](x))


@pytest.mark.parametrize("kind", INDEX_TARGETS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,d", "N,C,H,W"])
def test_target_dtypes(layout, reduction, kind, device):
    x = SMALL_LAYOUTS[layout](drawer(torch.float32, device))
    check(x, make_target(x, kind), torch_takes_it=kind == torch.int64, reduction=reduction, ignore_index=4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_upstream_gradient(reduction, device):
    x = torch.randn(3, 5, 6, device=device)
    check(x, make_target(x), torch.randn((3, 6) if reduction == "none" else ()), reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignored_row_has_no_gradient_whatever_it_holds(reduction, device):
    x = torch.randn(4, 5, device=device)
    x[1], x[2, 3] = torch.nan, torch.inf
    x.requires_grad_()
    loss = F.nll_loss(x, torch.tensor([0, -100, -100, 4], device=device), reduction=reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert loss.isfinite().all()
    assert (gradient[1:3] == 0).all()


@pytest.mark.parametrize("bad", [5, -1, 255, 2**31 + 1, 2**32, -(2**32)])
def test_target_out_of_range(bad, device, on_cuda):
    if on_cuda:
        x = torch.randn(3, 5, device=device, requires_grad=True)
        loss = F.nll_loss(x, torch.tensor([0, bad, 1], device=device), reduction="none")
        assert loss.isnan().tolist() == [False, True, False]
        (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
        assert gradient.isnan().all(1).tolist() == [False, True, False]
        assert gradient[::2].count_nonzero() == 2
        assert F.nll_loss(x, torch.tensor([0, bad, 1], device=device)).isnan()
        return
    with pytest.raises(IndexError, match="out of bounds"):
        F.nll_loss(torch.randn(3, 5, device=device), torch.tensor([0, bad, 1], device=device))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_and_all_ignored(reduction, device):
    for rows in (0, 3):
        x = torch.randn(rows, 5, device=device, requires_grad=True)
        target = torch.full((rows,), -100, device=device)
        loss = F.nll_loss(x, target, reduction=reduction)
        expected = torch.nn.functional.nll_loss(x, target, reduction=reduction)
        torch.testing.assert_close(loss, expected, equal_nan=True)
        assert (torch.autograd.grad(loss.sum(), x)[0] == 0).all()

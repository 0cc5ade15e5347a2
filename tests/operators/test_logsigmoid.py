"""logsigmoid: values, gradients and forms."""

import pytest
import torch
from cases import FLOATS, POINTWISE_LAYOUTS, drawer, name_of
from compare import assert_near, assert_no_worse_than_torch, assert_same_form, assert_within_ulps
from references import logsigmoid

import fused_ml.nn.functional as F

TORCH = torch.nn.functional.logsigmoid


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*POINTWISE_LAYOUTS])
def test_layouts(layout, dtype, device):
    x = POINTWISE_LAYOUTS[layout](drawer(dtype, device, scale=6.0)).detach().requires_grad_()
    upstream = torch.randn(x.shape, dtype=torch.float64).to(device, dtype)
    value, torch_value = F.logsigmoid(x), TORCH(x)
    (gradient,), (torch_gradient,) = (torch.autograd.grad(v, x, upstream) for v in (value, torch_value))
    expected, expected_gradient = logsigmoid(x, upstream)
    assert gradient.dtype == torch_gradient.dtype
    assert_near(value, expected, expected.abs(), what="value")
    assert_near(gradient, expected_gradient, expected_gradient.abs(), what="gradient")
    assert_no_worse_than_torch(value, torch_value, expected, "value")
    assert_no_worse_than_torch(gradient, torch_gradient, expected_gradient, "gradient")
    assert_same_form(value, torch_value, layout)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_whole_range(dtype, device):
    """From -max to +max, both tails: never worse than a few ulp, down to the last normal number."""
    x = torch.cat([torch.linspace(-80, 80, 4001), torch.tensor([1e-30, -1e-30, 0.0, -0.0])]).to(device, dtype)
    x = torch.cat([x, torch.tensor([-torch.finfo(dtype).max, torch.finfo(dtype).max], device=device, dtype=dtype)])
    x.requires_grad_()
    value = F.logsigmoid(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    expected, expected_gradient = logsigmoid(x, torch.ones(()))
    limit = 1 if dtype.itemsize == 2 else 4
    assert_within_ulps(value, expected, limit, "value")
    assert_within_ulps(gradient, expected_gradient, limit, "gradient")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_infinities(dtype, device):
    x = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=dtype, device=device, requires_grad=True)
    value = F.logsigmoid(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.tolist()[:2] == [0.0, -torch.inf]
    assert gradient.tolist()[:2] == [0.0, 1.0]
    assert value[2].isnan()
    assert gradient[2].isnan()


def test_integers_raise_as_in_torch(device):
    x = torch.arange(3, device=device)
    with pytest.raises(Exception) as expected:
        TORCH(x)
    with pytest.raises(expected.type):
        F.logsigmoid(x)

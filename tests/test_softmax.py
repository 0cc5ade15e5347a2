"""log_softmax, softmax and softmin: values, gradients and forms, along any dimension."""

import pytest
import torch
from cases import FLOATS, LAYOUTS, SMALL_LAYOUTS, WIDTH_LAYOUTS, drawer, name_of
from compare import assert_near, assert_no_worse_than_torch, assert_same_form, ulp_of
from references import log_softmax, softmax

import fused_ml.nn.functional as F

FUNCTIONS = {
    "log_softmax": log_softmax,
    "softmax": softmax,
    "softmin": lambda x, dim, upstream: softmax(x, dim, upstream, -1),
}
DIM_LAYOUTS = [name for name in SMALL_LAYOUTS if name != "C"]


def check(name, x, dim, dtype=None):
    x = x.detach().requires_grad_()
    results = []
    upstream = torch.randn(x.shape, dtype=torch.float64).to(x.device, dtype or x.dtype)
    for module in (F, torch.nn.functional):
        value = getattr(module, name)(x, dim, dtype=dtype)
        results.append((value, torch.autograd.grad(value, x, upstream)[0]))
    (value, gradient), (torch_value, torch_gradient) = results
    if x.numel():
        compare(name, x.detach().to(dtype or x.dtype), dim, upstream, value, gradient)
    if x.numel() and dtype is None:
        expected, expected_gradient, *_ = FUNCTIONS[name](x, dim, upstream)
        assert_no_worse_than_torch(value, torch_value, expected, f"{name} value")
        assert_no_worse_than_torch(gradient, torch_gradient, expected_gradient, f"{name} gradient")
    assert (gradient.shape, gradient.dtype) == (torch_gradient.shape, torch_gradient.dtype)
    assert_same_form(value, torch_value, name)


def compare(name, x, dim, upstream, value, gradient):
    """x: already converted to the dtype asked for, as torch does. Backward reads the rounded output."""
    expected, expected_gradient, size, gradient_size = FUNCTIONS[name](x, dim, upstream)
    assert_near(value, expected, size, what=f"{name} value")
    g, last_place = upstream.double(), ulp_of(expected, value.dtype)
    if name == "log_softmax":
        slack = expected.exp() * g.sum(dim, keepdim=True).abs() * last_place
    else:
        slack = (g.abs() + (expected * g.abs()).sum(dim, keepdim=True)) * last_place
        slack = slack + expected * (g.abs() * last_place).sum(dim, keepdim=True)
    if value.dtype.itemsize < gradient.dtype.itemsize:  # the gradient comes through the narrow dtype
        slack = slack + 2 * ulp_of(expected_gradient, value.dtype)
    assert_near(gradient, expected_gradient, gradient_size, 2, f"{name} gradient", slack)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*LAYOUTS])
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_class_dimension(name, layout, dtype, device):
    if name == "softmin" and layout not in SMALL_LAYOUTS:
        layout = "65 classes"  # softmin is softmax of -x: its small cases are enough
    x = LAYOUTS[layout](drawer(dtype, device))
    check(name, x, 0 if x.dim() == 1 else 1)


@pytest.mark.parametrize("dim", [0, -1, -2])
@pytest.mark.parametrize("layout", DIM_LAYOUTS)
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_any_dimension(name, layout, dim, device):
    check(name, SMALL_LAYOUTS[layout](drawer(torch.float32, device)), dim)


CONVERSIONS = [
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.float32),
    (torch.float32, torch.float64),
    (torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float64),
    (torch.float32, torch.float32),
]


@pytest.mark.parametrize(("source", "dtype"), CONVERSIONS, ids=name_of)
@pytest.mark.parametrize("layout", ["N,C", "N,C,H,W", "transposed", "1000 classes"])
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_dtype_argument(name, layout, source, dtype, device):
    x = {**SMALL_LAYOUTS, **WIDTH_LAYOUTS}[layout](drawer(source, device))
    check(name, x, 1, dtype)


@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_dtype_argument_takes_integers(name, device):
    x = torch.randint(-5, 5, (4, 6), device=device)
    expected = getattr(torch.nn.functional, name)(x, 1, dtype=torch.float32)
    torch.testing.assert_close(getattr(F, name)(x, 1, dtype=torch.float32), expected)


@pytest.mark.parametrize("name", [*FUNCTIONS])
@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_scalar_input(name, device):
    x = torch.tensor(2.5, device=device, requires_grad=True)
    value, expected = getattr(F, name)(x, 0), getattr(torch.nn.functional, name)(x, 0)
    assert_same_form(value, expected)
    assert value.item() == expected.item()
    assert torch.autograd.grad(value, x)[0].item() == 0.0


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_implicit_dimension(name, shape, device):
    """Without `dim`, torch chooses one and warns; the warning points at the same line as torch's."""
    x, places, values = torch.randn(shape, device=device), [], []
    for module in (F, torch.nn.functional):
        function = getattr(module, name)
        with pytest.warns(UserWarning, match="Implicit dimension choice") as caught:
            values.append(function(x))
        places.append((caught[0].filename, caught[0].lineno))
    torch.testing.assert_close(*values)
    assert places[0] == places[1]


@pytest.mark.parametrize("dim", [2, -3, 100])
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_dimension_out_of_range(name, dim, device):
    with pytest.raises(IndexError, match="Dimension out of range"):
        getattr(F, name)(torch.randn(2, 3, device=device), dim)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_strided_upstream_gradient(name, dtype, device):
    """The upstream gradient has strides of its own: expanded (of a sum), transposed, sliced."""
    draw = drawer(dtype, device)
    upstreams = (draw(1, 1).expand(6, 9), draw(9, 6).t(), draw(6, 18)[:, ::2])
    x = draw(6, 9).requires_grad_()
    for upstream in upstreams:
        value = getattr(F, name)(x, 1)
        strided = torch.autograd.grad(value, x, upstream, retain_graph=True)[0]
        assert torch.equal(strided, torch.autograd.grad(value, x, upstream.contiguous())[0])


@pytest.mark.parametrize("name", [*FUNCTIONS])
def test_output_changed_before_backward_is_noticed(name, device):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    value = getattr(F, name)(x * 1, 1)
    value.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()

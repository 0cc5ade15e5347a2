"""log_softmax, softmax and softmin: values, gradients and forms, along any dimension."""

import pytest
import torch
from cases import FLOATS, LAYOUTS, SMALL_LAYOUTS, WIDTH_LAYOUTS, drawer, name_of
from checks import SOFTMAXES
from checks import check_softmax as check
from compare import assert_same_form

import fused_ml.nn.functional as F

DIM_LAYOUTS = [name for name in SMALL_LAYOUTS if name != "C"]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*LAYOUTS])
@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_class_dimension(name, layout, dtype, device):
    if name == "softmin" and layout not in SMALL_LAYOUTS:
        layout = "65 classes"  # softmin is softmax of -x: its small cases are enough
    x = LAYOUTS[layout](drawer(dtype, device))
    check(name, x, 0 if x.dim() == 1 else 1)


@pytest.mark.parametrize("dim", [0, -1, -2])
@pytest.mark.parametrize("layout", DIM_LAYOUTS)
@pytest.mark.parametrize("name", [*SOFTMAXES])
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
@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_dtype_argument(name, layout, source, dtype, device):
    x = {**SMALL_LAYOUTS, **WIDTH_LAYOUTS}[layout](drawer(source, device))
    check(name, x, 1, dtype)


@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_dtype_argument_takes_integers(name, device):
    x = torch.randint(-5, 5, (4, 6), device=device)
    expected = getattr(torch.nn.functional, name)(x, 1, dtype=torch.float32)
    torch.testing.assert_close(getattr(F, name)(x, 1, dtype=torch.float32), expected)


@pytest.mark.parametrize("name", [*SOFTMAXES])
@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_scalar_input(name, device):
    x = torch.tensor(2.5, device=device, requires_grad=True)
    value, expected = getattr(F, name)(x, 0), getattr(torch.nn.functional, name)(x, 0)
    assert_same_form(value, expected)
    assert value.item() == expected.item()
    assert torch.autograd.grad(value, x)[0].item() == 0.0


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", [*SOFTMAXES])
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
@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_dimension_out_of_range(name, dim, device):
    with pytest.raises(IndexError, match="Dimension out of range"):
        getattr(F, name)(torch.randn(2, 3, device=device), dim)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_strided_upstream_gradient(name, dtype, device):
    """The upstream gradient has strides of its own: expanded (of a sum), transposed, sliced."""
    draw = drawer(dtype, device)
    upstreams = (draw(1, 1).expand(6, 9), draw(9, 6).t(), draw(6, 18)[:, ::2])
    x = draw(6, 9).requires_grad_()
    for upstream in upstreams:
        value = getattr(F, name)(x, 1)
        strided = torch.autograd.grad(value, x, upstream, retain_graph=True)[0]
        assert torch.equal(strided, torch.autograd.grad(value, x, upstream.contiguous())[0])


@pytest.mark.parametrize("name", [*SOFTMAXES])
def test_output_changed_before_backward_is_noticed(name, device):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    value = getattr(F, name)(x * 1, 1)
    value.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()

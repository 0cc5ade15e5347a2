"""cross_entropy, forward and backward, against float64 and against torch."""

import pytest
import torch
from cases import (
    FLOATS,
    INDEX_TARGETS,
    LARGE_LAYOUTS,
    OPTIONS,
    REDUCTIONS,
    SMALL_LAYOUTS,
    WIDTH_LAYOUTS,
    drawer,
    make_target,
    name_of,
)
from checks import check_cross_entropy as check
from compare import assert_same_form, outcome

import fused_ml.nn.functional as F

TORCH = torch.nn.functional.cross_entropy


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", [*SMALL_LAYOUTS])
def test_small_layouts(layout, reduction, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x), reduction=reduction)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*WIDTH_LAYOUTS])
def test_small_widths(layout, dtype, device):
    x = WIDTH_LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x))
    check(x, make_target(x, "probabilities"), reduction="none")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*LARGE_LAYOUTS])
def test_large_layouts(layout, dtype, device):
    x = LARGE_LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x))


@pytest.mark.parametrize("layout", ["70000 rows of 3", "segmentation", "4097 rows of 33"])
@pytest.mark.parametrize("option", ["weight, ignore_index, label_smoothing", "probabilities"])
def test_large_layouts_with_options(layout, option, device):
    x = LARGE_LAYOUTS[layout](drawer(torch.float32, device))
    if option == "probabilities":
        check(x, make_target(x, "probabilities"))
    else:
        check(x, make_target(x), **OPTIONS[option](x))


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("option", [*OPTIONS])
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,H,W", "channels_last", "every other column"])
def test_small_options_with_class_indices(layout, option, reduction, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device))
    target = make_target(x)
    if target.dim() == 0:
        target.fill_(5)  # none of the options leaves it out
    check(x, target, reduction=reduction, **OPTIONS[option](x))


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("option", [name for name in OPTIONS if "ignore_index" not in name])
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,H,W", "transposed"])
def test_small_options_with_probabilities(layout, option, reduction, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x, "probabilities"), reduction=reduction, **OPTIONS[option](x))


@pytest.mark.parametrize("kind", INDEX_TARGETS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,d", "1000 classes"])
def test_small_target_dtypes(layout, reduction, kind, device):
    x = {**SMALL_LAYOUTS, **WIDTH_LAYOUTS}[layout](drawer(torch.float32, device))
    check(x, make_target(x, kind), reduction=reduction, ignore_index=6)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", [torch.int64, "probabilities"], ids=name_of)
def test_small_upstream_gradients(kind, reduction, dtype, device):
    x = SMALL_LAYOUTS["N,C,d"](drawer(dtype, device))
    target = make_target(x, kind)
    shape = (3, 6) if reduction == "none" else ()
    check(x, target, torch.randn(shape, device=device), reduction=reduction)


@pytest.mark.parametrize("layout", ["expanded rows", "expanded positions", "transposed"])
def test_small_target_strides(layout, device):
    """The target has strides of its own."""
    x = SMALL_LAYOUTS[layout](drawer(torch.float32, device))
    target = make_target(x)
    spread = torch.stack([target, torch.full_like(target, 99)], -1)[..., 0]
    assert not spread.is_contiguous()
    check(x, spread)
    check(x, target[:1].expand(target.shape))


@pytest.mark.parametrize("layout", [*SMALL_LAYOUTS])
def test_small_gradients_of_leaves_have_torchs_form(layout, device):
    forms = []
    for function in (F.cross_entropy, TORCH):
        torch.manual_seed(3)
        x = SMALL_LAYOUTS[layout](drawer(torch.float32, device)).detach().requires_grad_()
        function(x, make_target(x)).backward()
        forms.append(x.grad)
    assert_same_form(*forms)


def test_small_no_gradient_is_made_where_none_is_asked(device):
    x = torch.randn(4, 5, device=device)
    assert not F.cross_entropy(x, make_target(x)).requires_grad
    with torch.no_grad():
        assert not F.cross_entropy(x.clone().requires_grad_(), make_target(x)).requires_grad
    with torch.inference_mode():
        assert F.cross_entropy(x, make_target(x)).is_inference()


def test_small_probability_target_gets_a_gradient(device):
    x = torch.randn(4, 5, device=device)
    results = []
    for function in (F.cross_entropy, TORCH):
        logits, target = x.clone().requires_grad_(), make_target(x, "probabilities")
        target = torch.full_like(target, 0.2).requires_grad_()
        results.append(torch.autograd.grad(function(logits, target, label_smoothing=0.1), [logits, target]))
    torch.testing.assert_close(results[0], results[1])


def test_small_gradients_accumulate(device):
    x = torch.randn(4, 5, device=device, requires_grad=True)
    target = make_target(x)
    F.cross_entropy(x, target).backward()
    once = x.grad.clone()
    F.cross_entropy(x, target).backward()
    torch.testing.assert_close(x.grad, 2 * once)


def test_small_backward_twice(device):
    """retain_graph gives the same gradient again, scaled anew; without it, torch's error."""
    x = torch.randn(4, 5, device=device, requires_grad=True)
    loss = F.cross_entropy(x, make_target(x))
    first, second = (torch.autograd.grad(loss * k, x, retain_graph=True)[0] for k in (1.0, 3.0))
    again = torch.autograd.grad(loss, x)[0]
    torch.testing.assert_close(second, 3 * first)
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_small_changed_input_is_noticed(reduction, device):
    """Writing over a tensor that backward reads raises, wherever torch's function also raises."""
    for function in (TORCH, F.cross_entropy):
        x = torch.randn(4, 5, device=device, requires_grad=True)
        logits = x * 1
        loss = function(logits, make_target(x), reduction=reduction).sum()
        expected = torch.autograd.grad(loss, x, retain_graph=True)[0]
        logits.mul_(2)
        got = outcome(lambda: torch.autograd.grad(loss, x)[0])  # noqa: B023
        if isinstance(got, RuntimeError):
            assert "modified by an inplace operation" in str(got)
        else:
            torch.testing.assert_close(got, expected)

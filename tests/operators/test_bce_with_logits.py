"""binary_cross_entropy_with_logits, forward and backward, against float64 and against torch."""

import pytest
import torch
from cases import FLOATS, POINTWISE_LAYOUTS, REDUCTIONS, drawer, name_of
from compare import assert_near, assert_no_worse_than_torch, assert_same_form, assert_same_outcome, outcome
from references import binary_cross_entropy_with_logits as reference

import fused_ml.nn.functional as F

TORCH = torch.nn.functional.binary_cross_entropy_with_logits
EXTRA_NAMES = {"focal_gamma", "focal_alpha", "label_smoothing", "ignore_index"}


def soft_target(x):
    """Half of the elements hard, half in between; of the input's strides where it has its own."""
    t = torch.rand(x.shape, dtype=torch.float64)
    return torch.where(torch.rand(x.shape) < 0.5, t.round(), t).to(x.device, x.dtype)


def check(x, target, upstream=None, **options):
    x, target = x.detach().requires_grad_(), target.detach().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(x, target, **options)
    upstream = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    gradient, by_target = torch.autograd.grad(loss, [x, target], upstream)
    expected = reference(x, target, upstream, **options)
    roundings = 1 if bool((upstream == 1).all()) or options.get("reduction") == "none" else 2
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, roundings, "gradient")
    scale = expected.target_gradient.abs() + expected.gradient_magnitude + expected.target_gradient.abs().mean()
    assert_near(by_target, expected.target_gradient, scale, roundings, "gradient of the target")
    if EXTRA_NAMES & options.keys():
        return
    torch_loss = TORCH(x, target, **options)
    torch_gradient, torch_by_target = torch.autograd.grad(torch_loss, [x, target], upstream)
    assert (gradient.dtype, by_target.dtype) == (torch_gradient.dtype, torch_by_target.dtype)
    assert_no_worse_than_torch(loss, torch_loss, expected.loss, "loss")
    assert_no_worse_than_torch(gradient, torch_gradient, expected.gradient, "gradient")
    assert_same_form(loss, torch_loss, "loss")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", [*POINTWISE_LAYOUTS])
def test_layouts(layout, reduction, dtype, device):
    x = POINTWISE_LAYOUTS[layout](drawer(dtype, device))
    check(x, soft_target(x), reduction=reduction)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", ["transposed", "channels_last", "every other column", "expanded"])
def test_target_of_other_strides(layout, reduction, dtype, device):
    x = POINTWISE_LAYOUTS[layout](drawer(dtype, device))
    check(x, soft_target(x.contiguous()), reduction=reduction)
    check(x.contiguous(), torch.empty_like(x).copy_(soft_target(x)), reduction=reduction)


# weight and pos_weight broadcast to an input of shape (6, 5, 4).
BROADCASTS = [(), (1,), (4,), (5, 1), (5, 4), (6, 1, 1), (1, 5, 1), (6, 5, 4)]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", BROADCASTS, ids=str)
def test_weights_broadcast(shape, reduction, dtype, device):
    x = drawer(dtype, device)(6, 5, 4)
    weight, pos_weight = ((torch.rand(shape, dtype=torch.float64) + 0.2).to(device, dtype) for _ in range(2))
    check(x, soft_target(x), weight=weight, reduction=reduction)
    check(x, soft_target(x), pos_weight=pos_weight, reduction=reduction)
    check(x.transpose(0, 2).contiguous().transpose(0, 2), soft_target(x), weight=weight, pos_weight=pos_weight)


EXTRAS = {
    "focal_gamma": {"focal_gamma": 2.0},
    "focal_gamma 1": {"focal_gamma": 1.0},
    "focal_gamma 1.5": {"focal_gamma": 1.5},
    "focal_alpha": {"focal_alpha": 0.25},
    "focal": {"focal_gamma": 2.0, "focal_alpha": 0.25},
    "label_smoothing": {"label_smoothing": 0.1},
    "ignore_index": {"ignore_index": -1},
    "ignore_index 255": {"ignore_index": 255},
    "everything": {"focal_gamma": 2.0, "focal_alpha": 0.75, "label_smoothing": 0.2, "ignore_index": -1},
}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("extra", [*EXTRAS])
@pytest.mark.parametrize("layout", ["matrix", "transposed", "1000 elements"])
def test_extras(layout, extra, reduction, dtype, device):
    x = POINTWISE_LAYOUTS[layout](drawer(dtype, device))
    options = EXTRAS[extra]
    target = soft_target(x)
    if "ignore_index" in options:
        target = torch.where(torch.rand(x.shape, device=device) < 0.3, float(options["ignore_index"]), target)
    check(x, target, reduction=reduction, **options)


def test_extras_with_weights(device):
    x = drawer(torch.float32, device)(6, 5)
    target = soft_target(x)
    target[0, 1] = -1
    check(x, target, weight=torch.rand(6, 1), pos_weight=torch.rand(5) + 0.5, **EXTRAS["everything"])


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("extra", ["ignore_index", "everything"])
def test_ignored_elements_count_for_nothing(extra, reduction, dtype, device):
    """Whatever the logit is, NaN and infinity included: loss 0 and gradient exactly 0."""
    x = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf, 2.0, 60000.0], dtype=dtype, device=device)
    target = torch.tensor([1.0, -1, -1, -1, 0, -1], dtype=dtype, device=device)
    few = F.binary_cross_entropy_with_logits(x[[0, 4]], target[[0, 4]], reduction=reduction, **EXTRAS[extra])
    x.requires_grad_()
    loss = F.binary_cross_entropy_with_logits(x, target, reduction=reduction, **EXTRAS[extra])
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert (gradient[[1, 2, 3, 5]] == 0).all()
    assert (gradient[[0, 4]] != 0).all()
    torch.testing.assert_close(loss[[0, 4]] if reduction == "none" else loss, few)
    if reduction == "none":
        assert (loss[[1, 2, 3, 5]] == 0).all()


@pytest.mark.parametrize(("reduction", "expected"), [("mean", torch.nan), ("sum", 0.0), ("none", 0.0)])
def test_all_ignored(reduction, expected, device):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    target = torch.full((3, 4), -1.0, device=device)
    loss = F.binary_cross_entropy_with_logits(x, target, reduction=reduction, ignore_index=-1)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(loss, torch.full_like(loss, expected), equal_nan=True)
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_upstream_gradient(reduction, dtype, device):
    x = drawer(dtype, device)(5, 7)
    check(x, soft_target(x), torch.randn((5, 7) if reduction == "none" else ()), reduction=reduction)


MIXED = [(torch.float32, torch.float64), (torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("dtype", "target_dtype"), MIXED, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_target_of_another_dtype_gives_torchs_dtypes(reduction, dtype, target_dtype, device):
    results = []
    for function in (F.binary_cross_entropy_with_logits, TORCH):
        torch.manual_seed(2)
        x = torch.randn(5, 7).to(device, dtype).requires_grad_()
        target = torch.rand(5, 7).to(device, target_dtype)
        loss = function(x, target, reduction=reduction)
        results.append((loss, *torch.autograd.grad(loss.sum(), x)))
    for ours, theirs in zip(*results, strict=True):
        assert_same_form(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=1e-3)


BAD_CALLS = {
    "target of another shape": lambda f, x: f(x, torch.rand(3, 1)),
    "integer target": lambda f, x: f(x, torch.zeros(3, 4, dtype=torch.int64)),
    "weight that does not broadcast": lambda f, x: f(x, torch.rand(3, 4), weight=torch.rand(5)),
    "pos_weight that does not broadcast": lambda f, x: f(x, torch.rand(3, 4), pos_weight=torch.rand(3)),
    "weight that would enlarge the input": lambda f, x: f(x, torch.rand(3, 4), weight=torch.rand(2, 3, 4)),
    "misspelt reduction": lambda f, x: f(x, torch.rand(3, 4), reduction="avg"),
    "input that is no tensor": lambda f, x: f([1.0], torch.rand(1)),
    "complex input": lambda f, x: f(x.to(torch.complex64), torch.rand(3, 4)),
}


@pytest.mark.parametrize("bad", [*BAD_CALLS])
@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_bad_calls_do_what_torch_does(bad):
    x = torch.randn(3, 4)
    call = BAD_CALLS[bad]
    assert_same_outcome(outcome(call, F.binary_cross_entropy_with_logits, x), outcome(call, TORCH, x))

"""One call of cross_entropy or of a softmax, forward and backward, against float64 and against torch."""

import torch
import torch.nn.functional as TF
from compare import assert_near, assert_no_worse_than_torch, assert_same_form, ulp_of
from references import cross_entropy, log_softmax, softmax

import fused_ml.nn.functional as F

SOFTMAXES = {
    "log_softmax": log_softmax,
    "softmax": softmax,
    "softmin": lambda x, dim, upstream: softmax(x, dim, upstream, -1),
}


def loss_and_gradient(function, x, target, upstream=None, **options):
    """`upstream` is the gradient of the loss: all ones where it is None."""
    x = x.detach().requires_grad_()
    loss = function(x, target, **options)
    upstream = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    (gradient,) = torch.autograd.grad(loss, x, upstream)
    return loss, gradient, upstream


def check_cross_entropy(x, target, upstream=None, **options):
    """One case against float64, and against torch where torch takes it."""
    loss, gradient, upstream = loss_and_gradient(F.cross_entropy, x, target, upstream, **options)
    expected = cross_entropy(x, target, upstream, **options)
    roundings = 1 if bool((upstream == 1).all()) or options.get("reduction") == "none" else 2
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, roundings, "gradient")
    torch_takes_it = (
        target.dtype == torch.int64 or target.is_floating_point() or (target.dtype == torch.uint8 and x.dim() < 3)
    )
    if not torch_takes_it or x.numel() == 0:
        return
    torch_loss, torch_gradient, _ = loss_and_gradient(TF.cross_entropy, x, target, upstream, **options)
    assert_same_form(loss, torch_loss, "loss")
    assert gradient.shape == torch_gradient.shape
    assert gradient.dtype == torch_gradient.dtype
    assert_no_worse_than_torch(loss, torch_loss, expected.loss, "loss")
    assert_no_worse_than_torch(gradient, torch_gradient, expected.gradient, "gradient")


def check_softmax(name, x, dim, dtype=None):
    x = x.detach().requires_grad_()
    results = []
    upstream = torch.randn(x.shape, dtype=torch.float64).to(x.device, dtype or x.dtype)
    for module in (F, TF):
        value = getattr(module, name)(x, dim, dtype=dtype)
        results.append((value, torch.autograd.grad(value, x, upstream)[0]))
    (value, gradient), (torch_value, torch_gradient) = results
    if x.numel():
        compare_softmax(name, x.detach().to(dtype or x.dtype), dim, upstream, value, gradient)
    if x.numel() and dtype is None:
        expected, expected_gradient, *_ = SOFTMAXES[name](x, dim, upstream)
        assert_no_worse_than_torch(value, torch_value, expected, f"{name} value")
        assert_no_worse_than_torch(gradient, torch_gradient, expected_gradient, f"{name} gradient")
    assert (gradient.shape, gradient.dtype) == (torch_gradient.shape, torch_gradient.dtype)
    assert_same_form(value, torch_value, name)


def compare_softmax(name, x, dim, upstream, value, gradient):
    """x: already converted to the dtype asked for, as torch does. Backward reads the rounded output."""
    expected, expected_gradient, size, gradient_size = SOFTMAXES[name](x, dim, upstream)
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

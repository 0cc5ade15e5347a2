"""Inputs, weights and upstream gradients of every layout: values, gradients, and the same bits for any threads."""

import pytest
import torch
from cases import FLOATS, name_of
from checks import compare_softmax
from compare import assert_near
from references import cross_entropy, log_softmax, softmax

import fused_ml.nn.functional as F
from bench.layout_cases import LAYOUTS

TF = torch.nn.functional
# Each way of walking: one row that threads share, rows in blocks, in one block, in tiles, one class; positions side by
# side that end within a step, of many classes, too few for a step, and a step made of several classes.
SHAPES = {
    "one long row": (1, 70001),
    "a few long rows": (3, 66000),
    "rows of two blocks": (20, 2100),
    "rows of one block": (33, 170),
    "rows of some classes": (70, 65),
    "rows of few classes": (300, 3),
    "rows of one class": (300, 1),
    "maps": (3, 5, 7, 11),
    "maps of many classes": (2, 167, 33),
    "small maps": (40, 6, 3),
    "few positions behind many classes": (4, 701, 3),
    "few positions, classes in blocks": (8190, 7),
    "positions behind more classes than a tile's": (1500, 20),
}
FUNCTIONS = {"softmax": softmax, "softmin": lambda *args: softmax(*args, -1), "log_softmax": log_softmax}


def arranged(layout, shape, dtype, device, scale=3.0):
    return LAYOUTS[layout](lambda size: (scale * torch.randn(tuple(size))).to(device, dtype), shape)


def on_one_and_three_threads(compute):
    """What it computes, the same bits on both."""
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(compute())
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)
    return results[0]


def with_gradient(function, x, upstream):
    leaf = x.detach().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value, leaf, upstream)[0]


def pairs():
    """Layouts of an input and of its upstream gradient: each of either beside the usual of the other."""
    usual = "contiguous"
    return [(name, usual) for name in LAYOUTS] + [(usual, name) for name in LAYOUTS if name != usual]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_softmax(name, shape, dtype, device):
    size = SHAPES[shape]
    for layout, above in pairs():
        x = arranged(layout, size, dtype, device)
        upstream = arranged(above, size, dtype, device, 1.0)
        for dim in {0, 1, len(size) - 1}:
            value, gradient = on_one_and_three_threads(
                lambda x=x, g=upstream, d=dim: with_gradient(lambda leaf: getattr(F, name)(leaf, d), x, g)
            )
            compare_softmax(name, x, dim, upstream, value, gradient)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("shape", SHAPES)
def test_logsigmoid(shape, dtype, device):
    size = SHAPES[shape]
    for layout, above in pairs():
        x, upstream = arranged(layout, size, dtype, device), arranged(above, size, dtype, device, 1.0)
        found = on_one_and_three_threads(lambda x=x, g=upstream: with_gradient(F.logsigmoid, x, g))
        expected = with_gradient(TF.logsigmoid, x.double(), upstream.double())
        assert_near(found[0], expected[0], expected[0].abs(), what=f"{layout} value")
        assert_near(found[1], expected[1], upstream.double().abs(), what=f"{layout}, {above} gradient")


def bce_gradients(module, x, t, upstream, **options):
    leaves = [v.detach().requires_grad_() for v in (x, t)]
    value = module.binary_cross_entropy_with_logits(*leaves, reduction="none", **options)
    return value.detach(), *torch.autograd.grad(value, leaves, upstream)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bce_weights(shape, name, dtype, device):
    """A weight of every set of dimensions, beside a target and an upstream gradient of every layout."""
    size = SHAPES[shape]
    for kept in ((0,), (len(size) - 1,), (1,), (), tuple(range(len(size)))):
        weight = torch.rand([n if d in kept else 1 for d, n in enumerate(size)]).to(device, dtype) + 0.5
        for layout, above in pairs():
            x, t = arranged("contiguous", size, dtype, device), arranged(layout, size, dtype, device).sigmoid()
            g = arranged(above, size, dtype, device, 1.0)
            found = on_one_and_three_threads(lambda x=x, t=t, g=g, w=weight: bce_gradients(F, x, t, g, **{name: w}))
            expected = bce_gradients(TF, x.double(), t.double(), g.double(), **{name: weight.double()})
            sizes = [2 * weight.double() * (x.double().abs() + 1), *[4 * weight.double() * g.double().abs()] * 2]
            sizes[2] = sizes[2] * (x.double().abs() + 1)
            for what, got, right, most in zip(("value", "input", "target"), found, expected, sizes, strict=True):
                assert_near(got, right, most.expand(size), what=f"{kept} {layout} {above} {what}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bce_mean_of_an_expanded_input(shape, layout, device):
    """The sum is taken in the order of whatever is not expanded."""
    size = SHAPES[shape]
    for name in LAYOUTS:
        x = arranged(layout, size, torch.float32, device)
        t = arranged(name, size, torch.float32, device).sigmoid()
        (found,) = on_one_and_three_threads(lambda x=x, t=t: (F.binary_cross_entropy_with_logits(x, t),))
        expected = TF.binary_cross_entropy_with_logits(x.double(), t.double())
        assert_near(found, expected, expected, what=f"target {name}")


LOSSES = {
    "classes": {},
    "weighted": {"weight": True},
    "smoothed": {"label_smoothing": 0.1},
    "probabilities": {},
    "nll_loss": {"weight": True},
}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("shape", SHAPES)
def test_losses(shape, kind, dtype, device):
    size, options = SHAPES[shape], dict(LOSSES[kind])
    if "weight" in options:
        options["weight"] = torch.rand(size[1]).to(device, dtype) + 0.5
    rows = (size[0], *size[2:])
    above = [name for name in LAYOUTS if len(rows) > 1 or name in ("contiguous", "one number", "every other")]
    function = "nll_loss" if kind == "nll_loss" else "cross_entropy"
    for layout, upper in [(layout, "contiguous") for layout in LAYOUTS] + [("contiguous", name) for name in above]:
        x = arranged(layout, size, dtype, device)
        g = arranged(upper, rows, dtype, device, 1.0)
        target = torch.randint(size[1], rows, device=device)
        if kind == "probabilities":
            target = torch.softmax(arranged(layout, size, dtype, device), 1)
        found = on_one_and_three_threads(
            lambda x=x, t=target, g=g: with_gradient(
                lambda leaf: getattr(F, function)(leaf, t, reduction="none", **options), x, g
            )
        )
        wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
        if kind == "nll_loss":
            expected = with_gradient(
                lambda leaf, t=target, o=wide: TF.nll_loss(leaf, t, reduction="none", **o),
                x.double().contiguous(),
                g.double().contiguous(),
            )
        else:  # not torch's: smoothed over 66,000 classes its float64 gradient is off by some 450 eps
            expected = cross_entropy(x, target, g, reduction="none", **wide)
        magnitude = 2 * x.double().abs().amax(1) + 12
        assert_near(found[0], expected[0], magnitude, what=f"{layout} value")
        above_rows = g.double().abs().unsqueeze(1).expand(size)
        assert_near(found[1], expected[1], 4 * above_rows, what=f"{layout} {upper}")

"""The options that cross_entropy has beyond torch's."""

import pytest
import torch
from cases import EXTRAS, FLOATS, REDUCTIONS, SMALL_LAYOUTS, class_weight, drawer, make_target, name_of, sample_weight
from compare import assert_near, same_bits
from references import cross_entropy as reference

import fused_ml.nn.functional as F

KINDS = (torch.int64, "probabilities")


def check(x, target, upstream=None, out_dtype=None, **options):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x, target, out_dtype=out_dtype, **options)
    upstream = torch.ones_like(loss) if upstream is None else upstream.to(loss)
    (gradient,) = torch.autograd.grad(loss, x, upstream)
    expected = reference(x, target, upstream, **options)
    assert loss.dtype == (out_dtype or x.dtype)
    assert gradient.dtype == x.dtype
    roundings = 1 if bool((upstream == 1).all()) or options.get("reduction") == "none" else 2
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, roundings, "gradient")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("extra", [*EXTRAS])
@pytest.mark.parametrize("layout", ["N,C", "N,C,H,W", "channels_last", "every other column"])
def test_small_extras_with_class_indices(layout, extra, reduction, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device))
    check(x, make_target(x), reduction=reduction, **EXTRAS[extra](x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("extra", [*EXTRAS])
def test_small_extras_with_probabilities(extra, reduction, dtype, device):
    x = SMALL_LAYOUTS["N,C,d"](drawer(dtype, device))
    options = EXTRAS[extra](x)
    options.pop("ignore_index", None)
    check(x, make_target(x, "probabilities"), reduction=reduction, **options)


@pytest.mark.parametrize("extra", [*EXTRAS])
def test_extras_on_one_position(extra, device):
    x = torch.randn(9, device=device)
    check(x, torch.tensor(5, device=device), **EXTRAS[extra](x))


@pytest.mark.parametrize("extra", [*EXTRAS])
def test_extras_on_many_rows(extra, device):
    x = drawer(torch.float32, device)(3000, 33)
    check(x, make_target(x), **EXTRAS[extra](x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_out_dtype(kind, reduction, dtype, device):
    """The loss is not rounded to the input's dtype; the gradient is of the input's dtype still."""
    x = drawer(dtype, device)(40, 50)
    check(x, make_target(x, kind), out_dtype=torch.float32, reduction=reduction)


def test_extras_ask_for_keywords():
    with pytest.raises(TypeError):
        F.cross_entropy(torch.randn(2, 3), torch.tensor([0, 1]), None, None, -100, None, "mean", 0.0, 0.1)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.parametrize("layout", ["C", "N,C", "N,C,H,W", "channels_last", "N,T,C to N,C,T"])
def test_stats(layout, kind, dtype, device):
    x = SMALL_LAYOUTS[layout](drawer(dtype, device)).requires_grad_()
    dim = 0 if x.dim() == 1 else 1
    target = make_target(x, kind)
    loss, stats = F.cross_entropy(x, target, return_stats=True)
    assert stats._fields == ("lse", "predicted", "correct")
    plain = F.cross_entropy(x, target)
    assert same_bits(loss.detach(), plain.detach())
    assert loss.requires_grad
    assert not any(part.requires_grad for part in stats)
    expected = torch.logsumexp(x.detach().double(), dim)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert [part.dtype for part in stats] == [wide, torch.int64, torch.bool]
    assert {part.shape for part in stats} == {expected.shape}
    assert_near(stats.lse, expected, expected.abs() + x.detach().double().abs().amax(dim), what="lse")
    assert torch.equal(stats.predicted, x.argmax(dim))
    assert torch.equal(stats.correct, x.argmax(dim) == (target if kind == torch.int64 else target.argmax(dim)))
    gradients = [torch.autograd.grad(value, x)[0] for value in (loss, plain)]
    assert same_bits(*gradients)


@pytest.mark.parametrize("classes", [2, 5, 16, 17, 70, 3000])
def test_stats_predict_the_first_maximum(classes, device):
    x = torch.zeros(classes, classes, device=device)
    x[torch.arange(classes), torch.arange(classes)] = 1.0
    x[:, -1] = 1.0  # every row has two maxima: its own class and the last
    stats = F.cross_entropy(x, torch.arange(classes, device=device), return_stats=True)[1]
    assert torch.equal(stats.predicted, torch.arange(classes, device=device))
    assert stats.correct.all()
    flat = F.cross_entropy(torch.zeros_like(x), torch.arange(classes, device=device), return_stats=True)[1]
    assert (flat.predicted == 0).all()
    assert flat.correct.sum() == 1


def test_stats_of_ignored_rows_are_not_correct(device):
    x = torch.eye(4, device=device)
    target = torch.tensor([0, 1, 2, 3], device=device)
    stats = F.cross_entropy(x, target, ignore_index=2, return_stats=True)[1]
    assert stats.correct.tolist() == [True, True, False, True]
    assert stats.predicted.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_stats_with_every_other_option(reduction, device):
    x = drawer(torch.float32, device)(6, 7)
    target = make_target(x)
    options = {**EXTRAS["everything"](x), "reduction": reduction}
    loss, stats = F.cross_entropy(x, target, return_stats=True, **options)
    assert same_bits(loss, F.cross_entropy(x, target, **options))
    capped = 4.0 * torch.tanh(x.double() / 4.0)
    torch.testing.assert_close(stats.lse, torch.logsumexp(capped, 1).float())
    assert torch.equal(stats.predicted, x.argmax(1))


BAD_EXTRAS = {
    "sample_weight of the wrong length": lambda: {"sample_weight": torch.ones(3)},
    "sample_weight of the wrong rank": lambda: {"sample_weight": torch.ones(4, 1)},
    "normalizer of two elements": lambda: {"normalizer": torch.ones(2)},
    "softcap zero": lambda: {"softcap": 0.0},
    "softcap negative": lambda: {"softcap": -1.0},
    "out_dtype integer": lambda: {"out_dtype": torch.int64},
}


@pytest.mark.parametrize("bad", [*BAD_EXTRAS])
def test_bad_extras_raise(bad, device):
    x = torch.randn(4, 5, device=device)
    with pytest.raises((ValueError, RuntimeError, TypeError)):
        F.cross_entropy(x, torch.tensor([0, 1, 2, 3], device=device), **BAD_EXTRAS[bad]())


def test_sample_weight_of_ones_and_zeros_selects_rows(device):
    x = drawer(torch.float32, device)(6, 7)
    target = make_target(x)
    chosen = torch.tensor([1, 0, 1, 1, 0, 1], device=device)
    torch.testing.assert_close(
        F.cross_entropy(x, target, sample_weight=chosen.float()),
        torch.nn.functional.cross_entropy(x[chosen == 1], target[chosen == 1]),
    )


def test_micro_batches_with_a_normalizer_add_up(device):
    x = torch.randn(12, 7, device=device, requires_grad=True)
    target = make_target(x)
    whole = torch.autograd.grad(torch.nn.functional.cross_entropy(x, target), x)[0]
    pieces = sum(
        torch.autograd.grad(F.cross_entropy(part, t, normalizer=12), x)[0]
        for part, t in zip(x.split(5), target.split(5), strict=True)
    )
    torch.testing.assert_close(pieces, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_softcap_with_gradients_to_logits_and_probabilities(dtype):
    """Both outputs are computed from the logits before either is written."""
    x = torch.randn(40, 12).to(dtype)
    q = torch.rand(40, 12).softmax(1).to(dtype)
    ours, reference = ([t.clone().to(d).requires_grad_() for t in (x, q)] for d in (dtype, torch.float64))
    F.cross_entropy(*ours, softcap=2.0, reduction="sum").backward()
    logits = 2.0 * torch.tanh(reference[0] / 2.0)
    torch.nn.functional.cross_entropy(logits, reference[1], reduction="sum").backward()
    close = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}[dtype]
    for mine, exact in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=close, atol=close / 10)


def test_z_loss_is_averaged_over_the_rows_whatever_the_class_weights(device):
    """Doubling every class weight changes nothing of a mean; half the z-loss it was before."""
    x = drawer(torch.float32, device)(30, 7)
    target = make_target(x)
    target[::5] = -100
    weight, rows = class_weight(x), sample_weight(x)
    logits = x.double()
    for by_row in (None, rows):
        scale = torch.ones_like(rows) if by_row is None else by_row
        counts = scale.double() * (target != -100)
        z_loss = 0.1 * (logits.logsumexp(1) ** 2 * counts).sum() / counts.sum()
        for factor in (1, 2):
            got = F.cross_entropy(x, target, factor * weight, z_loss=0.1, sample_weight=by_row)
            without = F.cross_entropy(x, target, factor * weight, sample_weight=by_row)
            torch.testing.assert_close(got - without, z_loss.float(), rtol=1e-4, atol=1e-5)

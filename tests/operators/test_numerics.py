"""Numerics: torch's contract, and better where torch is inaccurate. Each promise a test, against float64."""

import math

import pytest
import torch
from cases import FLOATS, INDEX_TARGETS, REDUCTIONS, name_of
from compare import assert_within_ulps, same_bits
from references import cross_entropy as reference
from references import log_softmax

import fused_ml.nn.functional as F

ONE = torch.ones(())
INF = torch.inf
# The logit gap between the true class and the others, and the probability that it means with two classes.
GAPS = {
    torch.bfloat16: (3.625, 5.5, 9.1875, 16.0, 40.0, 80.0),  # p = 0.974, 0.996, 0.9999, ...
    torch.float16: (3.625, 5.5, 7.6, 9.0),
    torch.float32: (7.6, 9.2, 11.5, 13.8, 16.1, 20.0, 40.0, 80.0),  # p = 0.9995 ... 1 - 1e-7, ...
    torch.float64: (7.6, 16.1, 30.0, 36.0, 80.0, 300.0, 700.0),
}
CONFIDENT = [(dtype, gap, classes) for dtype, gaps in GAPS.items() for gap in gaps for classes in (2, 5, 33, 1000)]
CLOSE = {
    torch.bfloat16: 1,
    torch.float16: 1,
    torch.float32: 1,
    torch.float64: 64,
}  # the reference is float64 too


def gradient_of(loss, x):
    return torch.autograd.grad(loss.sum(), x)[0]


@pytest.mark.parametrize(("dtype", "gap", "classes"), CONFIDENT, ids=name_of)
@pytest.mark.parametrize("positions", [0, 1, 40], ids=["rows", "column", "columns"])
def test_confident_rows(positions, dtype, gap, classes, device):
    """Loss and true-class gradient are right to the last place, however near to 1 the probability is."""
    x = torch.zeros(1, classes, *[positions] * (positions > 0), dtype=dtype, device=device)
    true = classes // 2
    x[0, true] = gap
    x.requires_grad_()
    target = torch.full((1, *x.shape[2:]), true, device=device)
    losses = F.cross_entropy(x, target, reduction="none")
    gradient = gradient_of(losses, x).reshape(1, classes, -1)[..., -1]  # the last position's
    loss = losses.flatten()[-1]
    others = (classes - 1) * math.exp(-x[0, true].flatten()[0].item())
    assert_within_ulps(loss, torch.tensor(math.log1p(others), dtype=torch.float64), CLOSE[dtype], "loss")
    expected = torch.tensor(-others / (1 + others), dtype=torch.float64)
    assert_within_ulps(gradient[0, true], expected, CLOSE[dtype], "gradient")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("shape", [(64, 10), (64, 1000), (4, 10, 33), (2, 3, 8, 8)], ids=str)
def test_confident_rows_of_random_logits(shape, dtype, device):
    """The same in every layout's kernel, the winning class anywhere."""
    x = torch.randn(shape, device=device).to(dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    x.scatter_add_(1, target[:, None], torch.rand_like(target[:, None].float()).to(dtype) * 8 + 6)
    x.requires_grad_()
    loss = F.cross_entropy(x, target, reduction="none")
    gradient = gradient_of(loss, x).gather(1, target[:, None])
    expected = reference(x, target, torch.ones_like(loss), reduction="none")
    limit = {2: 1, 4: 4, 8: 16}[dtype.itemsize]
    assert_within_ulps(loss, expected.loss, limit, "loss")
    assert_within_ulps(gradient, expected.gradient.gather(1, target[:, None].cpu()), limit, "gradient")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("shape", [(500, 10), (300, 64), (100, 1000), (4, 21, 100)], ids=str)
def test_float32_loss_of_16_bit_logits(shape, dtype, device, on_cuda):
    """Right in float32's last place, or nearly: the logits are what they are."""
    x = (3 * torch.randn(shape, device=device)).to(dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    x.scatter_(1, target[: shape[0] // 2, None], 12)
    loss, stats = F.cross_entropy(x, target, reduction="none", out_dtype=torch.float32, return_stats=True)
    alone = F.cross_entropy(x, target, reduction="none", out_dtype=torch.float32)
    wide = x.double().cpu()
    expected = torch.nn.functional.cross_entropy(wide, target.cpu(), reduction="none")
    limit = 4 if on_cuda else 1
    assert_within_ulps(loss, expected, limit, "loss")
    assert_within_ulps(alone, expected, limit, "loss without statistics")
    assert_within_ulps(stats.lse, torch.logsumexp(wide, 1), limit, "log-sum-exp")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("gap", [5.5, 9.0])
def test_confident_rows_of_log_softmax(gap, dtype, device):
    x = torch.zeros(3, 70, dtype=dtype, device=device)
    x[:, 41] = gap
    expected, *_ = log_softmax(x, 1, torch.ones(3, 70))
    assert_within_ulps(F.log_softmax(x, 1)[:, 41], expected[:, 41], 1 if dtype.itemsize == 2 else 4)


# Where the finite logits of a row of 3000 stand: every other tile, lane and thread of it holds only -inf.
FINITE = {
    "first": [0],
    "last": [2999],
    "one tile": [*range(1024, 1040)],
    "one lane": [*range(5, 3000, 16)],
    "both ends": [0, 2999],
    "all but a tile": [j for j in range(3000) if not 512 <= j < 1024],
}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("where", [*FINITE])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows", "columns"])
def test_minus_infinity_tiles_and_lanes(transposed, where, dtype, device):
    x = torch.full((2, 3000), -INF, dtype=dtype, device=device)
    x[:, FINITE[where]] = torch.randn(2, len(FINITE[where]), device=device).to(dtype)
    x = x.t().contiguous().t() if transposed else x
    target = torch.tensor([FINITE[where][0], FINITE[where][-1]], device=device)
    x.requires_grad_()
    loss = F.cross_entropy(x, target, reduction="none")
    gradient = gradient_of(loss, x)
    expected = reference(x, target, torch.ones(2), reduction="none")
    torch.testing.assert_close(loss, expected.loss.to(device, dtype))
    torch.testing.assert_close(gradient, expected.gradient.to(device, dtype))
    assert (gradient[x == -INF] == 0).all()
    p = F.softmax(x, 1)
    assert (p[x == -INF] == 0).all()
    assert p.isfinite().all()
    assert (F.log_softmax(x, 1)[x == -INF] == -INF).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("classes", [3, 40, 3000])
def test_row_of_minus_infinity_is_nan_alone(classes, dtype, device):
    check_poisoned_row(torch.full((classes,), -INF), dtype, device)


POISON = {"NaN": torch.nan, "+inf": INF}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("place", [0, 1, 20, -1])
@pytest.mark.parametrize("poison", [*POISON])
def test_nan_or_infinite_logit_poisons_its_own_row_only(poison, place, dtype, device):
    row = torch.randn(40)
    row[place] = POISON[poison]
    check_poisoned_row(row, dtype, device)


def check_poisoned_row(row, dtype, device):
    """The third of four rows gives NaN; the others give what they give without it; likewise in columns."""
    x = torch.randn(4, len(row), device=device).to(dtype)
    clean = x.clone()
    x[2] = row.to(device, dtype)
    target = torch.tensor([0, 1, 2, 0], device=device)
    for layout in (lambda t: t, lambda t: t.t().contiguous().t()):
        a, b = layout(x).requires_grad_(), layout(clean).requires_grad_()
        losses = [F.cross_entropy(t, target, reduction="none") for t in (a, b)]
        gradients = [gradient_of(loss, t) for loss, t in zip(losses, (a, b), strict=True)]
        assert losses[0][2].isnan()
        assert gradients[0][2].isnan().any()
        for bad, good in (losses, gradients, [F.softmax(t.detach(), 1) for t in (a, b)]):
            assert same_bits(bad[[0, 1, 3]], good[[0, 1, 3]])
        assert F.softmax(a, 1)[2].isnan().any()
        assert F.log_softmax(a, 1)[2].isnan().any()
        assert F.cross_entropy(a, target).isnan()


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}, {"softcap": 5.0}], ids=str)
def test_ignored_rows_have_gradient_zero_whatever_they_hold(options, reduction, dtype, device):
    x = torch.randn(5, 40, device=device).to(dtype)
    x[1], x[2, 3], x[3, 7] = torch.nan, INF, -INF
    target = torch.tensor([3, -100, -100, -100, 39], device=device)
    x.requires_grad_()
    loss = F.cross_entropy(x, target, reduction=reduction, **options)
    gradient = gradient_of(loss, x)
    assert (gradient[1:4] == 0).all()
    assert gradient[[0, 4]].isfinite().all()
    assert (gradient[[0, 4]] != 0).any()
    kept = F.cross_entropy(x[[0, 4]], target[[0, 4]], reduction=reduction, **options)
    torch.testing.assert_close(loss[[0, 4]] if reduction == "none" else loss, kept)


@pytest.mark.parametrize(("reduction", "expected"), [("mean", math.nan), ("sum", 0.0), ("none", 0.0)])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}], ids=str)
def test_all_targets_ignored(options, reduction, expected, device):
    x = torch.randn(3, 5, device=device, requires_grad=True)
    loss = F.cross_entropy(x, torch.full((3,), -100, device=device), reduction=reduction, **options)
    torch.testing.assert_close(loss, torch.full_like(loss, expected), equal_nan=True)
    assert (gradient_of(loss, x) == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 5, 0), (0, 5, 3)], ids=str)
@pytest.mark.parametrize("probabilities", [False, True])
def test_empty_batch_is_as_in_torch(probabilities, shape, reduction, device):
    x = torch.randn(shape, device=device, requires_grad=True)
    target = torch.rand(shape) if probabilities else torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
    loss = F.cross_entropy(x, target.to(device), reduction=reduction)
    expected = torch.nn.functional.cross_entropy(x, target.to(device), reduction=reduction)
    torch.testing.assert_close(loss, expected, equal_nan=True)
    assert gradient_of(loss, x).shape == shape


def test_denominators(device):
    """Class indices: the sum of the chosen weights; probabilities: the number of rows."""
    x = torch.randn(3, 4, device=device)
    weight = torch.tensor([0.5, 1.0, 2.0, 4.0], device=device)
    target = torch.tensor([1, 3, -100], device=device)
    total = F.cross_entropy(x, target, weight, reduction="sum")
    torch.testing.assert_close(F.cross_entropy(x, target, weight), total / 5.0)
    spread = torch.softmax(torch.randn(3, 4, device=device), 1)
    total = F.cross_entropy(x, spread, weight, reduction="sum")
    torch.testing.assert_close(F.cross_entropy(x, spread, weight), total / 3)


def test_zero_denominator_is_as_in_torch(device):
    x = torch.randn(2, 3, device=device)
    target, weight = torch.tensor([1, 1], device=device), torch.tensor([1.0, 0.0, 1.0], device=device)
    assert F.cross_entropy(x, target, weight).isnan()
    assert torch.nn.functional.cross_entropy(x, target, weight).isnan()


@pytest.mark.parametrize("kind", INDEX_TARGETS, ids=name_of)
def test_target_dtypes_reach_their_whole_range(kind, device):
    """uint8 up to 255, in a row of 300 classes; more in the wider dtypes."""
    x = torch.randn(4, 300, device=device)
    target = torch.tensor([0, 127, 128, 255 if kind == torch.uint8 else 299], device=device)
    expected = torch.nn.functional.cross_entropy(x, target, reduction="none")
    torch.testing.assert_close(F.cross_entropy(x, target.to(kind), reduction="none"), expected)
    ignored = F.cross_entropy(x, target.to(kind), reduction="none", ignore_index=128)
    assert ignored.count_nonzero() == 3


OUT_OF_RANGE = [
    *((torch.int64, bad) for bad in (5, -1, -99, 255, 2**31, 2**32, 2**32 + 1, -(2**32), 2**63 - 1, -(2**63))),
    *((torch.int32, bad) for bad in (5, -1, 2**31 - 1, -(2**31))),
    *((torch.uint8, bad) for bad in (5, 255)),
]


def check_only_the_last_row_is_nan(reduction, kind, bad, device):
    for shape in ((3, 5), (3, 5, 2), (3, 90)):
        bad = shape[1] if bad == 5 else bad
        x = torch.randn(shape, device=device, requires_grad=True)
        target = torch.zeros(shape[:1] + shape[2:], dtype=kind, device=device)
        target[-1] = bad
        if 0 <= target.flatten()[-1] < shape[1]:
            continue
        loss = F.cross_entropy(x, target, reduction=reduction)
        (gradient,) = torch.autograd.grad(loss.sum() if reduction == "none" else loss, x)
        assert gradient[-1].isnan().all()
        assert gradient[:-1].isfinite().all()
        assert gradient[:-1].abs().sum() > 0
        assert loss[-1].isnan().all() and loss[:-1].isfinite().all() if reduction == "none" else loss.isnan()


@pytest.mark.parametrize(("kind", "bad"), OUT_OF_RANGE, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_target_out_of_range(reduction, kind, bad, device, on_cuda):
    """Never narrowed before the range check: 2**32 + 1 is not class 1."""
    if on_cuda:
        return check_only_the_last_row_is_nan(reduction, kind, bad, device)
    for shape in ((3, 5), (3, 5, 2)):
        x = torch.randn(shape, device=device)
        target = torch.zeros(shape[:1] + shape[2:], dtype=kind, device=device)
        target[-1] = bad
        with pytest.raises(IndexError, match="out of bounds"):
            F.cross_entropy(x, target, reduction=reduction)
        with pytest.raises(IndexError, match="out of bounds"):
            F.cross_entropy(x.clone().requires_grad_(), target, reduction=reduction)

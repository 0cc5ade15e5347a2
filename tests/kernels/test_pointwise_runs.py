"""Every way in which a pointwise kernel walks over memory: ragged heads and tails, mixed types, rows, one by one."""

import math

import pytest
import torch
from cases import name_of
from compare import assert_near

PAIRS = [
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.float32),
    (torch.float16, torch.bfloat16),
    (torch.float32, torch.float16),
]
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def operator(x, t, weight=None, pos_weight=None, upstream=None, reduction="sum", focal=False):
    """-> loss, both gradients; with `upstream` the gradients alone."""
    focal_options = (2.0, 0.25, 0.1, -100.0) if focal else (0.0, -1.0, 0.0, math.nan)
    return torch.ops.fused_ml.binary_cross_entropy_with_logits(
        x, t, weight, pos_weight, None, upstream, REDUCTIONS[reduction], t.dtype, upstream is None,
        True, True, *focal_options,
    )  # fmt: skip


def check(x, t, reduction="sum", weight=None, pos_weight=None):
    """Against torch in float64; and the same bits again."""
    wide_x, wide_t = (v.detach().double().cpu().requires_grad_() for v in (x, t))
    wide = [None if v is None else v.double().cpu() for v in (weight, pos_weight)]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        wide_x, wide_t, wide[0], pos_weight=wide[1], reduction=reduction
    )
    upstream = torch.ones_like(x) if reduction == "none" else None
    gradients = torch.autograd.grad(expected.sum(), (wide_x, wide_t))
    got = operator(x, t, weight, pos_weight, None, reduction)
    again = operator(x, t, weight, pos_weight, None, reduction)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    assert_near(got[0], expected.detach(), expected.detach().abs() + 0.1, what="loss")
    if upstream is not None:
        got[1:] = operator(x, t, weight, pos_weight, upstream, reduction)
    for name, value, gradient in zip(("input", "target"), got[1:], gradients, strict=True):
        scale = gradient.abs().max()
        assert_near(value, gradient, gradient.abs() + scale, what=f"{name}'s gradient")


def draw(count, dtypes, device, offsets=(0, 0)):
    x, t = (torch.empty(offset + count, dtype=d, device=device) for offset, d in zip(offsets, dtypes, strict=True))
    x[offsets[0] :] = (4 * torch.randn(count)).to(device, dtypes[0])
    t[offsets[1] :] = torch.rand(count).to(device, dtypes[1])
    x[: offsets[0]] = t[: offsets[1]] = torch.nan
    return x[offsets[0] :], t[offsets[1] :]


@pytest.mark.parametrize("dtypes", PAIRS, ids=lambda pair: "-".join(map(name_of, pair)))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_offsets_and_lengths(dtypes, reduction, device):
    for count in (1, 2, 3, 7, 8, 9, 16, 31, 257, 2051):
        for offsets in ((0, 0), (1, 1), (3, 3), (4, 4), (7, 7), (8, 0), (1, 0), (0, 4), (2, 6)):
            check(*draw(count, dtypes, device, offsets), reduction)


@pytest.mark.parametrize("dtypes", PAIRS, ids=lambda pair: "-".join(map(name_of, pair)))
@pytest.mark.parametrize("columns", [1, 2, 4, 8, 10, 12, 24])
def test_weights_by_row_and_by_column(columns, dtypes, device):
    rows = 37
    x, t = (v.view(rows, columns) for v in draw(rows * columns, dtypes, device))
    by_column = torch.rand(columns).to(device, dtypes[1]) + 0.5
    by_row = torch.rand(rows, 1).to(device, dtypes[0]) + 0.5
    one = torch.full((1,), 1.5, dtype=dtypes[1], device=device)
    for weight in (None, by_row, one):
        for pos_weight in (None, by_column, one):
            check(x, t, "sum", *(None if w is None else w.expand(x.shape) for w in (weight, pos_weight)))


def test_columns_of_a_wider_tensor(device):
    for dtypes in PAIRS:
        for width, take in ((24, slice(0, 16)), (24, slice(8, 24)), (21, slice(0, 16)), (24, slice(1, 17))):
            x, t = (v.view(9, width)[:, take] for v in draw(9 * width, dtypes, device))
            check(x, t)


def test_one_sum_for_every_path(device):
    """The focal variant too: runs of 16 bytes, and one element after another, of the same numbers."""
    x, t = draw(1000, (torch.float32, torch.float32), device, (0, 0))
    shifted = draw(1000, (torch.float32, torch.float32), device, (0, 1))[1]
    shifted.copy_(t)
    for focal in (False, True):
        for a, b in zip(operator(x, t, focal=focal), operator(x, shifted, focal=focal), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)

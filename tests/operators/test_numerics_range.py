"""Numerics at the ends: determinism, large magnitudes, infinities of BCE, offsets past 2^31."""

import pytest
import torch
from cases import FLOATS, LAYOUTS, drawer, make_target, name_of
from compare import assert_near, same_bits
from references import binary_cross_entropy_with_logits, cross_entropy

import fused_ml.nn.functional as F

INF = torch.inf
THREADED = [
    "70000 rows of 3",
    "20000 rows of 10, transposed",
    "segmentation",
    "segmentation, channels_last",
    "4097 rows of 33",
    "one enormous row",
    "one enormous row, no batch",
    "5000 classes",
]


def all_results(x, target):
    """The values and gradients of the functions, some with a reduction across rows."""
    dim = 0 if x.dim() == 1 else 1
    x = x.detach().requires_grad_()
    binary = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    values = [
        F.cross_entropy(x, target),
        F.cross_entropy(x, target, reduction="sum", label_smoothing=0.1, z_loss=0.01),
        F.log_softmax(x, dim),
        F.nll_loss(x, target),
        F.binary_cross_entropy_with_logits(x, binary),
    ]
    return [t for v in values for t in (v.detach(), torch.autograd.grad(v, x, torch.ones_like(v))[0])]


@pytest.mark.parametrize("layout", THREADED)
def test_same_bits_for_any_thread_count_and_on_every_run(layout, threads, device):
    x = LAYOUTS[layout](drawer(torch.float32, device))
    target = make_target(x)
    threads(1)
    expected = all_results(x, target)
    for count in (1, 2, 3, 5):
        threads(count)
        for ours, theirs in zip(all_results(x, target), expected, strict=True):
            assert same_bits(ours, theirs)


MAGNITUDES = [
    (dtype, size) for dtype in FLOATS for size in (1e4, 6e4, 1e8, 1e20, 3e38, 1e300) if size < torch.finfo(dtype).max
]


@pytest.mark.parametrize(("dtype", "size"), MAGNITUDES, ids=name_of)
def test_large_logits(dtype, size, device):
    """Finite logits of any size: no overflow on the way, whichever class is the target."""
    x = torch.tensor([[0.0, 1, -1], [1, 0.5, -1], [-1, -1, -1], [1, 1, 1]], dtype=torch.float64) * size
    x = x.to(device, dtype).requires_grad_()
    target = torch.tensor([1, 0, 2, 1], device=device)
    loss = F.cross_entropy(x, target, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    expected = cross_entropy(x, target, torch.ones(4), reduction="none")
    torch.testing.assert_close(loss, expected.loss.to(device, dtype))
    torch.testing.assert_close(gradient, expected.gradient.to(device, dtype))
    assert F.softmax(x, 1).isfinite().all()
    doubtful = F.cross_entropy(x, torch.tensor([2, 2, 0, 0], device=device), reduction="none")
    gap = torch.tensor([2.0, 2.0, 0.0, 0.0], dtype=torch.float64) * size
    assert_near(doubtful[:2], gap[:2].clamp(max=INF), gap[:2], what="the target is the least class")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_target_of_probability_zero_has_infinite_loss(dtype, device):
    x = torch.tensor([[0.0, -INF, 1.0]], dtype=dtype, device=device, requires_grad=True)
    loss = F.cross_entropy(x, torch.tensor([1], device=device))
    expected = torch.nn.functional.cross_entropy(x, torch.tensor([1], device=device))
    assert loss.item() == expected.item() == INF
    ours, theirs = (torch.autograd.grad(value, x)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_bce_is_finite_where_the_mathematics_is(pos_weight, dtype, device):
    """Infinite logit of the target's sign: loss and gradient 0. Of the other: loss inf, gradient +-weight."""
    weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=dtype, device=device)
    positive = pos_weight or 1.0
    x = torch.tensor([INF, -INF, -INF, INF], dtype=dtype, device=device, requires_grad=True)
    target = torch.tensor([1.0, 0, 1, 0], dtype=dtype, device=device)
    loss = F.binary_cross_entropy_with_logits(x, target, pos_weight=weight, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert loss.tolist() == [0, 0, INF, INF]
    assert gradient.tolist() == [0, 0, -positive, 1]


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("pos_weight", [None, 0.0, 3.0])
@pytest.mark.parametrize("size", [90.0, 1e4, 6e4])
def test_bce_of_large_logits(size, pos_weight, dtype, device):
    x = (torch.tensor([1.0, -1, 1, -1, 1, -1], device=device) * size).to(dtype).requires_grad_()
    target = torch.tensor([1.0, 0, 0, 1, 0.5, 0.5], dtype=dtype, device=device)
    weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=dtype, device=device)
    loss = F.binary_cross_entropy_with_logits(x, target, pos_weight=weight, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    expected = binary_cross_entropy_with_logits(x, target, torch.ones(6), pos_weight=weight, reduction="none")
    torch.testing.assert_close(loss, expected.loss.to(device, dtype))
    torch.testing.assert_close(gradient, expected.gradient.to(device, dtype))


def test_bce_confident_elements_keep_their_gradient(device):
    """A right answer with logit +-80 still has loss and gradient e^-80, not 0."""
    x = torch.tensor([80.0, -80.0, 30.0, -30.0], device=device, requires_grad=True)
    target = torch.tensor([1.0, 0, 1, 0], device=device)
    loss = F.binary_cross_entropy_with_logits(x, target, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    expected = binary_cross_entropy_with_logits(x, target, torch.ones(4), reduction="none")
    assert_near(loss, expected.loss, expected.loss)
    assert_near(gradient, expected.gradient, expected.gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=name_of)
def test_low_precision_sums_are_kept_in_float32(dtype, device):
    """65,536 equal rows: their sum in bfloat16 would stop growing, in float16 overflow."""
    x = torch.zeros(65536, 2, dtype=dtype, device=device)
    target = torch.zeros(65536, dtype=torch.int64, device=device)
    expected = torch.tensor(2.0, dtype=torch.float64).log()
    assert F.cross_entropy(x, target) == expected.to(dtype)
    assert F.binary_cross_entropy_with_logits(x, x) == expected.to(dtype)
    total = F.cross_entropy(x, target, reduction="sum", out_dtype=torch.float32)
    torch.testing.assert_close(total.double(), expected * 65536, rtol=1e-6, atol=0)


# Rows, classes and their strides, in elements of an enormous buffer of which hardly a page is ever touched.
FAR = {
    "rows past 2^31": ((3, 64), (2**30 + 8, 1)),
    "rows past 2^32": ((3, 64), (2**31 + 24, 1)),
    "classes past 2^31": ((5, 4), (1, 2**30 - 1)),
    "classes past 2^32": ((5, 3), (1, 2**31 + 3)),
}


def far_view(shape, stride, device):
    size = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    try:
        buffer = torch.empty(size, dtype=torch.bfloat16, device=device)
    except RuntimeError:
        pytest.skip(f"no address space for {size} elements")
    return buffer.as_strided(shape, stride).copy_(torch.randn(shape))


@pytest.mark.parametrize("far", [*FAR])
def test_offsets_past_32_bits(far, device):
    x = far_view(*FAR[far], device)
    near = x.clone(memory_format=torch.contiguous_format)
    target = torch.arange(len(x), device=device) % 3
    binary = torch.rand(x.shape, device=device).bfloat16()
    results = []
    for logits in (x.detach().requires_grad_(), near.requires_grad_()):
        loss = F.cross_entropy(logits, target, reduction="none")
        picked = F.nll_loss(logits, target, reduction="none")
        smooth = F.log_softmax(logits, 1)
        binary_loss = F.binary_cross_entropy_with_logits(logits, binary, reduction="none")
        outputs = [loss, picked, smooth, binary_loss, F.logsigmoid(logits)]
        results.append(outputs + [torch.autograd.grad(value.sum(), logits)[0] for value in outputs[:1]])
    for far_result, near_result in zip(*results, strict=True):
        torch.testing.assert_close(far_result, near_result)


@pytest.mark.slow
def test_more_than_2_to_the_31_logits(device):
    """An expanded input (stride 0 between rows) of 2^31 + 2^16 elements, right in its last row."""
    classes = 2**16
    rows = 2**31 // classes + 1
    row = torch.randn(1, classes, device=device).bfloat16()
    target = torch.full((rows,), 3, device=device)
    target[-1] = classes - 1
    loss = F.cross_entropy(row.expand(rows, classes), target, reduction="none")
    once = F.cross_entropy(row.expand(2, classes), target[-2:], reduction="none")
    assert torch.equal(loss[:-1], once[:1].expand(rows - 1))
    assert loss[-1] == once[1]

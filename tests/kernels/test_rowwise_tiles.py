"""Every way in which the CUDA rowwise kernels cut rows into tiles; the CPU's kernels take the same shapes."""

import pytest
import torch
from cases import make_target, name_of
from checks import check_cross_entropy, check_softmax

FLOATS = (torch.float32, torch.float64, torch.bfloat16)
# Rows of C classes side by side (rows, C), or positions side by side (N, C, positions).
SHAPES = {
    "a thread a row": (300, 10),
    "two threads a row": (70, 50),
    "threads against bank conflicts": (70, 32),
    "a warp a row": (9, 1000),
    "a block a row": (140, 1030),
    "many threads a row": (133, 4100),
    "few rows in chunks": (3, 16400),
    "one enormous row in chunks": (1, 70000),
    "a thread a position": (2, 21, 300),
    "a warp of positions": (2, 21, 40),
    "several threads a position": (2, 300, 33),
    "positions in chunks": (2, 700, 40),
    "too few positions": (3, 20, 7),
}
OFFSETS = (0, 1)  # elements from 16-byte alignment
ORDERS = ("forward", "reverse", "shuffled:7")


def draw(shape, dtype, device, offset=0):
    buffer = torch.randn(torch.Size(shape).numel() + offset, dtype=torch.float64).to(device, dtype)
    return (3 * buffer[offset:]).view(shape)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("shape", [*SHAPES])
def test_cross_entropy(shape, offset, dtype, device):
    x = draw(SHAPES[shape], dtype, device, offset)
    check_cross_entropy(x, make_target(x))
    check_cross_entropy(x, make_target(x), reduction="none", label_smoothing=0.1)


@pytest.mark.parametrize("shape", [*SHAPES])
def test_probabilities(shape, device):
    x = draw(SHAPES[shape], torch.float32, device, 1)
    check_cross_entropy(x, torch.softmax(draw(SHAPES[shape], torch.float32, device), 1), label_smoothing=0.2)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", [*SHAPES])
def test_softmax(shape, name, dtype, device):
    check_softmax(name, draw(SHAPES[shape], dtype, device, 1), 1)


@pytest.mark.parametrize("layout", ["every other class", "every other row", "transposed", "two layouts"])
@pytest.mark.parametrize("shape", ["a thread a row", "a warp a row", "few rows in chunks"])
def test_strided(shape, layout, device):
    rows, classes = SHAPES[shape]
    x = {
        "every other class": lambda: draw((rows, 2 * classes), torch.float32, device)[:, ::2],
        "every other row": lambda: draw((2 * rows, classes + 3), torch.float32, device)[::2, 1 : classes + 1],
        "transposed": lambda: draw((classes, rows), torch.float32, device).t(),
        "two layouts": lambda: draw((rows, classes), torch.float32, device),
    }[layout]()
    check_cross_entropy(x, make_target(x), reduction="sum")
    probabilities = torch.softmax(x.detach(), 1)
    check_cross_entropy(x, probabilities.t().contiguous().t() if layout == "two layouts" else probabilities)


@pytest.mark.parametrize("shape", [*SHAPES])
def test_stats_and_in_place(shape, device):
    """The first of several maxima; the first NaN; the gradient over the logits as beside them."""
    x = draw(SHAPES[shape], torch.float32, device)
    x.select(1, x.shape[1] - 2).copy_(x.amax(1))
    x[0].select(0, 5).fill_(float("nan"))
    target = make_target(x)
    call = torch.ops.fused_ml.cross_entropy
    loss, gradient, lse, predicted = call(x, target, 0, -100, True, True)
    assert torch.equal(predicted, x.argmax(1).flatten())
    assert torch.equal(loss.isnan(), lse.isnan())
    torch.testing.assert_close(lse, x.logsumexp(1).flatten(), equal_nan=True)
    _, summed, *_ = call(x, target, 2, -100, True, True)
    over = x.clone()
    torch.ops.fused_ml.cross_entropy_(over, target, 2, -100)
    assert torch.equal(over.view(torch.int32), summed.view(torch.int32))
    assert torch.equal(gradient.view(torch.int32), summed.view(torch.int32))


@pytest.mark.parametrize("shape", [*SHAPES])
def test_every_order_of_threads_gives_the_same_bits(shape, device, emulated, monkeypatch):
    if not emulated:
        pytest.skip("the order of threads can be chosen in the emulation alone")
    x = draw(SHAPES[shape], torch.float32, device)
    target = make_target(x)
    results = []
    for order in ORDERS:
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        found = torch.ops.fused_ml.cross_entropy(x, target, 1, -100, True, True)
        results.append([t.view(torch.int32) for t in found])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))

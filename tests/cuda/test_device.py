"""What only a GPU shows: no waiting for the device, graphs, streams, several devices, more than 2^31 elements."""

import pytest
import torch

import fused_ml.nn.functional as F

LOSSES = {
    "cross_entropy mean": lambda x, t: F.cross_entropy(x, t),
    "cross_entropy sum": lambda x, t: F.cross_entropy(x, t, reduction="sum", label_smoothing=0.1),
    "cross_entropy none": lambda x, t: F.cross_entropy(x, t, reduction="none").sum(),
    "cross_entropy probabilities": lambda x, t: F.cross_entropy(x, torch.softmax(x.detach(), 1)),
    "cross_entropy normalizer": lambda x, t: F.cross_entropy(x, t, normalizer=7.0, z_loss=1e-4),
    "cross_entropy in place": lambda x, t: F.cross_entropy(x * 1, t, inplace_backward=True),
    "nll_loss": lambda x, t: F.nll_loss(F.log_softmax(x, 1), t),
    "softmax": lambda x, t: F.softmax(x, 1).square().sum(),
    "bce": lambda x, t: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
    "logsigmoid": lambda x, t: F.logsigmoid(x).sum(),
}
SHAPES = [(300, 10), (9, 1000), (4, 40000), (2, 21, 300)]


@pytest.fixture(autouse=True)
def needs_a_gpu(device):
    if device.type != "cuda":
        pytest.skip("runs on a GPU alone: pytest --device=cuda")


def draw(shape, device, dtype=torch.float32):
    x = torch.randn(shape, device=device, dtype=dtype, requires_grad=True)
    return x, torch.randint(shape[1], shape[:1] + shape[2:], device=device)


def step(loss, x, target, upstream=None):
    value = LOSSES[loss](x, target)
    return value, torch.autograd.grad(value, x, upstream)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", [*LOSSES])
def test_the_host_never_waits(loss, shape, device):
    x, target = draw(shape, device)
    upstream = torch.tensor(0.5, device=device)
    step(loss, x, target, upstream)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(loss, x, target, upstream)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", [*LOSSES])
def test_graphs_replay_with_other_targets_and_logits(loss, shape, device):
    x, target = draw(shape, device)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(loss, x, target)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value, gradient = step(loss, x, target)
    for _ in range(2):
        other, other_target = draw(shape, device)
        with torch.no_grad():
            x.copy_(other)
        target.copy_(other_target)
        graph.replay()
        expected, expected_gradient = step(loss, other, other_target)
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("loss", [*LOSSES])
def test_side_streams(loss, device):
    x, target = draw((64, 5000), device)
    expected = step(loss, x, target)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # so that work on another stream would be seen too early
        late = x.detach().clone().requires_grad_()
        got = step(loss, late, target)
    stream.synchronize()
    assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("loss", [*LOSSES])
def test_the_same_bits_on_every_run(loss, device):
    x, target = draw((5000, 100), device)
    first = step(loss, x, target)
    for _ in range(3):
        assert all(map(torch.equal, step(loss, x, target), first))


@pytest.mark.parametrize("loss", [*LOSSES])
def test_another_device_than_the_current_one(loss):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    x, target = draw((64, 50), torch.device("cuda:1"))
    value, gradient = step(loss, x, target)
    here = x.detach().to("cuda:0").requires_grad_()
    expected, expected_gradient = step(loss, here, target.to("cuda:0"))
    assert value.device == gradient.device == x.device
    torch.testing.assert_close(value.cpu(), expected.cpu())
    torch.testing.assert_close(gradient.cpu(), expected_gradient.cpu())


@pytest.mark.parametrize("shape", [(70_000, 32_768), (2**31 // 10 + 5, 10), (1, 2**31 + 40)], ids=str)
def test_more_than_2_31_elements(shape, device):
    """The last rows, or the last classes, against the same numbers alone."""
    free, _ = torch.cuda.mem_get_info()
    if free < 2 * 2 * shape[0] * shape[1] + 4e9:
        pytest.skip(f"needs more memory than {free / 1e9:.0f} GB")
    x = torch.empty(shape, device=device, dtype=torch.bfloat16).normal_().requires_grad_()
    target = torch.full(shape[:1], shape[1] - 1, device=device)
    loss = F.cross_entropy(x, target, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    if shape[0] > 1:
        last = x.detach()[-3:].clone().requires_grad_()
        (expected,) = torch.autograd.grad(F.cross_entropy(last, target[-3:], reduction="sum"), last)
        assert torch.equal(gradient[-3:], expected)
        return
    assert gradient[0, -1] < 0
    assert gradient.sum(dtype=torch.float64).abs() < 1e-2


def test_compile(device):
    x, target = draw((300, 100), device)
    compiled = torch.compile(lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), fullgraph=True)
    (got,) = torch.autograd.grad(compiled(x, target), x)
    (expected,) = torch.autograd.grad(F.cross_entropy(x, target, label_smoothing=0.1), x)
    torch.testing.assert_close(got, expected)

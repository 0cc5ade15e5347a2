"""The shipped kernels called without torch's dispatcher: near float64, and bit for bit what the operators give."""

import numpy as np
import pytest
import references
import torch
from compare import assert_near, assert_within_ulps, same_bits

import fused_ml

raw = pytest.importorskip(
    "bench.raw", reason="the raw module needs the sources and pybind11", exc_type=ModuleNotFoundError
)

LEVELS = ("baseline", "avx2", "avx512")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Few classes (a transpose), many (a row in blocks); tails of every vector.
SHAPES = ((1, 1), (5, 1), (3, 2), (37, 3), (70, 10), (17, 31), (129, 64), (5, 65), (33, 100), (4, 2049), (2, 5000))


@pytest.fixture(params=LEVELS)
def isa(request):
    """A level that this CPU has; the operators run on it as well."""
    if request.param not in fused_ml.cpu_isas_supported():
        pytest.skip(f"this CPU has no {request.param}")
    before = fused_ml.cpu_isa()
    torch.ops.fused_ml.choose_cpu_isa(LEVELS.index(request.param))
    assert raw.compiled_for(request.param)[1] == fused_ml.cpu_isa() == request.param
    yield request.param
    torch.ops.fused_ml.choose_cpu_isa(LEVELS.index(before))


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def logits(request, dtype):
    return (torch.randn(request.param) * 4).to(dtype)


def array(tensor):
    """The tensor's memory; bfloat16, which NumPy lacks, as uint16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def arithmetic(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def test_cross_entropy(logits, isa):
    target = torch.randint(logits.shape[1], logits.shape[:1])
    loss, gradient = torch.empty(len(logits), dtype=arithmetic(logits.dtype)), torch.empty_like(logits)
    raw.cross_entropy(array(logits), target.numpy(), array(loss), array(gradient), exact=True, isa=isa)

    upstream = torch.ones(len(logits), dtype=torch.float64)
    expected = references.cross_entropy(logits, target, upstream, reduction="none")
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, what="gradient")

    by_row = torch.ops.fused_ml.cross_entropy(logits, target, 0, -100, False, loss_dtype=loss.dtype)
    summed = torch.ops.fused_ml.cross_entropy(logits, target, 2, -100, True, loss_dtype=loss.dtype)
    assert same_bits(loss, by_row[0])
    assert same_bits(gradient, summed[1])


# Of a block, of several, and of so many that threads share a row; none ends with a whole step.
@pytest.mark.parametrize("shape", [(3, 163), (5, 1003), (3, 5003), (2, 67_591)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=lambda d: str(d).removeprefix("torch."))
def test_terms_wait_within_the_output(shape, dtype, isa):
    logits, target = torch.randn(shape, dtype=dtype), torch.randint(shape[1], shape[:1])
    for run in (raw.softmax, lambda x, out, isa: raw.cross_entropy(x, target.numpy(), None, out, isa=isa)):
        memory = torch.full((logits.numel() + 128,), 7, dtype=dtype)
        run(array(logits), array(memory[64:-64].view(shape)), isa=isa)
        assert (memory[:64] == 7).all()
        assert (memory[-64:] == 7).all()


def test_confident_rows(isa):
    """Within an ulp or two where the own class is nearly certain."""
    logits = torch.zeros(40, 100)
    logits[:, 7] = torch.linspace(0, 30, 40)
    target = torch.full((40,), 7)
    loss, gradient = torch.empty(40), torch.empty_like(logits)
    raw.cross_entropy(array(logits), target.numpy(), array(loss), array(gradient), exact=True, isa=isa)
    others = 99 * torch.exp(-logits[:, 7].double())
    assert_within_ulps(loss, torch.log1p(others), 1.0, "loss")
    assert_within_ulps(gradient[:, 7], -others / (1 + others), 1.0, "own gradient")


def test_log_softmax(logits, isa):
    out = torch.empty_like(logits)
    raw.log_softmax(array(logits), array(out), isa=isa)
    value, _, magnitude, _ = references.log_softmax(logits, 1, torch.zeros_like(logits))
    assert_near(out, value, magnitude, what="log_softmax")
    assert same_bits(out, torch.ops.fused_ml.log_softmax(logits, 1, logits.dtype))


def test_softmax(logits, isa):
    out = torch.empty_like(logits)
    raw.softmax(array(logits), array(out), isa=isa)
    assert same_bits(out, torch.ops.fused_ml.softmax(logits, 1, False, logits.dtype))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_activation_backward(name, logits, isa):
    grad, dx = torch.randn(logits.shape).to(logits.dtype), torch.empty_like(logits)
    negate = (False,) if name == "softmax" else ()
    output = getattr(torch.ops.fused_ml, name)(logits, 1, *negate, logits.dtype)
    getattr(raw, f"{name}_backward")(array(grad), array(output), array(dx), isa=isa)
    backward = getattr(torch.ops.fused_ml, f"{name}_backward")
    assert same_bits(dx, backward(grad, output, 1, *negate, logits.dtype))


def test_binary_cross_entropy(logits, isa):
    target, value, dx = torch.rand(logits.shape).to(logits.dtype), *torch.empty(2, *logits.shape, dtype=logits.dtype)
    raw.binary_cross_entropy(array(logits), array(target), array(value), array(dx), isa=isa)
    leaf = logits.clone().requires_grad_()
    losses = fused_ml.nn.functional.binary_cross_entropy_with_logits(leaf, target, reduction="none")
    losses.sum().backward()
    assert same_bits(value, losses.detach())
    assert same_bits(dx, leaf.grad)
    total = raw.binary_cross_entropy(array(logits), array(target), isa=isa)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), target.double(), reduction="sum")
    assert total == pytest.approx(expected.item(), rel=1e-6)


def test_logsigmoid(logits, isa):
    value, dx, grad = (torch.randn(logits.shape).to(logits.dtype) for _ in range(3))
    raw.logsigmoid(array(logits), array(value), isa=isa)
    raw.logsigmoid(array(logits), grad=array(grad), dx=array(dx), isa=isa)
    assert same_bits(value, torch.ops.fused_ml.logsigmoid(logits))
    assert same_bits(dx, torch.ops.fused_ml.logsigmoid_backward(grad, logits))


@pytest.mark.parametrize("numel", [1, 7, 255, 256, 4099, 70_001])
def test_adam(numel, dtype, isa):
    ours = [torch.randn(numel).to(dtype), torch.randn(numel).to(dtype), *torch.rand(2, numel).to(dtype)]
    theirs = [t.clone() for t in ours]
    options = [1e-2, 0.9, 0.99, 1e-8, 0.1, 1.0, 0.0]
    param, grad, *states = map(array, ours)
    raw.adam(param, grad, states, 3, options, 4, isa=isa)
    torch.ops.fused_ml.adam_(theirs[:1], theirs[1:2], theirs[2:], [torch.tensor(3.0)], 3, options)
    assert all(map(same_bits, ours, theirs))


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("numel", [1, 7, 255, 256, 4099, 70_001])
def test_sgd(numel, momentum, dtype, isa):
    ours = [torch.randn(numel).to(dtype) for _ in range(2 + momentum)]
    theirs = [t.clone() for t in ours]
    options = [1e-2, 0.9 * momentum, 0.1, 0.05, 0.0, 0.0]
    param, grad, *states = map(array, ours)
    raw.sgd(param, grad, states, int(momentum), options, isa=isa)
    torch.ops.fused_ml.sgd_(theirs[:1], theirs[1:2], theirs[2:], [], int(momentum), options)
    assert all(map(same_bits, ours, theirs))


def test_what_does_not_fit_is_refused(isa):
    x, target = np.zeros((4, 5), np.float32), np.zeros(4, np.int64)
    with pytest.raises(IndexError, match="row 2"):
        raw.cross_entropy(x, np.array([0, 4, 5, 0]), isa=isa)
    with pytest.raises(ValueError, match="contiguous"):
        raw.log_softmax(x[:, ::2], x[:, ::2].copy(), isa=isa)
    with pytest.raises(ValueError, match="of the input's shape"):
        raw.cross_entropy(x, target, None, np.zeros((5, 4), np.float32), isa=isa)
    with pytest.raises(TypeError, match="int32"):
        raw.log_softmax(x.astype(np.int32), x, isa=isa)
    with pytest.raises(ValueError, match="sse9"):
        raw.log_softmax(x, x.copy(), isa="sse9")

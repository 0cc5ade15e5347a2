"""Under a loss scale: a 16-bit gradient is rounded once, after the gradient from above has been applied.

Of small losses over many elements float16 gradients are subnormal or 0 before they are scaled: a gradient rounded in
forward would have lost what the scale is there to keep.
"""

import pytest
import torch
from cases import name_of
from compare import assert_no_worse_than_torch, ulps

import fused_ml.nn.functional as F

TF = torch.nn.functional
ROWS, CLASSES, SCALE = 512, 300, 2.0**16
GENERATOR = torch.Generator().manual_seed(5)
INDEX = torch.randint(CLASSES, (ROWS,), generator=GENERATOR)


def drawn(*shape):
    return torch.rand(shape, generator=GENERATOR, dtype=torch.float64)


def representable(x):
    """In every type: the reference gets the same numbers."""
    return x.bfloat16().half().double()


SHARES = representable(drawn(ROWS, CLASSES).mul(9).softmax(1))
WEIGHT = representable(drawn(CLASSES) + 0.5)


def ce(**options):
    return lambda f, x: f.cross_entropy(x, INDEX.to(x.device), **options)


def probabilities(f, x):
    return f.cross_entropy(x, SHARES.to(x))


def weighted(f, x):
    return f.cross_entropy(x, INDEX.to(x.device), WEIGHT.to(x), ignore_index=3)


def bce(reduction="mean"):
    return lambda f, x: f.binary_cross_entropy_with_logits(x, SHARES.to(x), reduction=reduction)


def focal(f, x):
    extra = {"focal_gamma": 0.0, "ignore_index": 2.0} if f is F else {}  # the other kernel, the same numbers
    return f.binary_cross_entropy_with_logits(x, SHARES.to(x), **extra)


CALLS = {
    "cross_entropy": ce(),
    "cross_entropy smoothing": ce(label_smoothing=0.1),
    "cross_entropy sum": ce(reduction="sum"),
    "cross_entropy none": ce(reduction="none"),
    "cross_entropy probabilities": probabilities,
    "cross_entropy weight": weighted,
    "nll_loss": lambda f, x: f.nll_loss(x, INDEX.to(x.device)),
    "bce": bce(),
    "bce sum": bce("sum"),
    "bce none": bce("none"),
    "bce ignore_index": focal,
    "softmax": lambda f, x: f.softmax(x, 1).square().mean(),
    "log_softmax": lambda f, x: f.log_softmax(x, 1).mean(),
    "logsigmoid": lambda f, x: f.logsigmoid(x).mean(),
}
ONE_TYPE = ("softmax", "log_softmax", "logsigmoid")  # their output, and what comes down to it, has the input's type
IN_PLACE = {  # options, made from the logits
    "plain": lambda x: {},
    "smoothing": lambda x: {"label_smoothing": 0.1},
    "out_dtype": lambda x: {"out_dtype": torch.float32},
    "weight, sum": lambda x: {"weight": WEIGHT.to(x), "reduction": "sum"},
    "z_loss, softcap": lambda x: {"z_loss": 1e-3, "softcap": 9.0},
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch.compiler.reset()


def logits(dtype, device):
    x = torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return representable(3 * x).to(device, dtype)


def scaled_gradient(call, f, x, dtype=None, scale=SCALE):
    """Of `call` on a leaf that is taken to `dtype` first, under a scale that multiplies the loss."""
    leaf = x.detach().clone().requires_grad_()
    inside = leaf if dtype is None else leaf.to(dtype)
    inside.retain_grad()
    loss = call(f, inside)
    loss = loss.float().mean() if loss.dim() else loss.float()
    (loss * scale).backward()
    return inside.grad


def reference(call, x, scale=SCALE):
    return scaled_gradient(call, TF, x.double(), scale=scale)


def assert_kept(gradient, expected, limit, what):
    assert gradient.dtype in (torch.float16, torch.bfloat16)
    rounded = expected.to(gradient.dtype)
    lost = (gradient == 0) & (rounded != 0)
    assert not lost.any(), f"{what}: {int(lost.sum())} of {lost.numel()} gradients are wrongly 0"
    assert ulps(gradient, expected).max() <= limit, what


def assert_unbiased(gradient, expected, what):
    """The gradient from above was not rounded: that would move every element the same way."""
    finite = gradient.isfinite()
    bias = ((gradient.double() - expected) * expected.sign())[finite].sum() / expected[finite].abs().sum()
    assert bias.abs() < 0.25 * torch.finfo(gradient.dtype).eps, f"{what}: every gradient is off by {bias:.2g}"


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("call", [*CALLS])
def test_gradients_survive(call, dtype, autocast, device):
    x = logits(dtype, device)
    # Where the loss itself has 16 bits the gradient from above has them too; 65536 is inf in float16.
    scale = SCALE if dtype == torch.bfloat16 or (autocast and call not in ONE_TYPE) else 2.0**12
    with torch.autocast(device.type, dtype=dtype, enabled=autocast):
        gradient = scaled_gradient(CALLS[call], F, x, scale=scale)
        theirs = scaled_gradient(CALLS[call], TF, x, scale=scale)
    expected = reference(CALLS[call], x, scale)
    if call in ONE_TYPE:
        assert_no_worse_than_torch(gradient, theirs, expected, call)
    else:
        assert_kept(gradient, expected, 2.0 if dtype == torch.bfloat16 else 1.0, call)


@pytest.mark.parametrize("call", [*IN_PLACE])
@pytest.mark.parametrize("view", ["whole", "view", "transpose"])
def test_gradients_written_over_the_logits_survive(call, view, device):
    x = logits(torch.float16, device)

    def run(**options):
        leaf = x.clone().requires_grad_()
        over = leaf * 1
        if view == "view":
            over = over.view(ROWS // 2, 2, CLASSES).flatten(0, 1)
        elif view == "transpose":
            over = (leaf.t() * 1).t()
        with torch.autocast(device.type, dtype=torch.float16):
            loss = F.cross_entropy(over, INDEX.to(device), **IN_PLACE[call](over), **options)
        (loss.float() * SCALE).backward()
        return loss.detach(), leaf.grad

    torch.testing.assert_close(run(inplace_backward=True), run(), rtol=0, atol=0)
    assert (run()[1] == 0).float().mean() < 0.2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("call", [name for name in CALLS if "cross_entropy" in name or "bce" in name])
def test_compiled_gradients_survive(call, dtype, device):
    """The gradient from above stays in its own type: 65536 is finite, and keeps the bits that bfloat16 lacks."""
    x, scale = logits(dtype, device), 65536.0 * (1 + 0.99 * 2**-8)  # which bfloat16 would round to 65536
    compiled = torch.compile(lambda x: CALLS[call](F, x), backend="aot_eager", fullgraph=True)
    with torch.autocast(device.type, dtype=dtype):
        gradient = scaled_gradient(lambda _, x: compiled(x), F, x, scale=scale)
    expected = reference(CALLS[call], x, scale=scale)
    assert_kept(gradient, expected, 2.0 if dtype == torch.bfloat16 else 1.0, call)
    assert_unbiased(gradient, expected, call)


def test_the_first_step_of_a_scaler(device):
    """torch's first step under a scale of 2^16 is finite; so is ours, eager and compiled."""
    x, target = logits(torch.float32, device), INDEX.to(device)
    for function in (F.cross_entropy, torch.compile(F.cross_entropy, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        scaler = torch.amp.GradScaler(device.type, init_scale=SCALE)
        optimizer = torch.optim.SGD([leaf], lr=1.0)
        with torch.autocast(device.type, dtype=torch.float16):
            loss = function(leaf.half(), target)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert scaler._found_inf_per_device(optimizer)[leaf.device].item() == 0
        expected = scaled_gradient(ce(), TF, x.half().double(), scale=1.0)
        torch.testing.assert_close(leaf.grad.double(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("count", [2_000_000, 20_000_000])
def test_a_mean_over_millions(count, device, emulated):
    """1 / 20,000,000 is no float16 number; times 65536 it is."""
    count = count // 100 if emulated else count
    x = torch.linspace(-8, 8, count, device=device).half().requires_grad_()
    with torch.autocast(device.type, dtype=torch.float16):
        loss = F.binary_cross_entropy_with_logits(x, torch.zeros_like(x))
    (loss * SCALE).backward()
    expected = x.detach().double().sigmoid() * (SCALE / count)
    assert ((x.grad == 0) & (expected.half() != 0)).sum() == 0
    assert ulps(x.grad, expected).max() <= 1


def test_a_gradient_over_the_logits_twice(device):
    """With retain_graph the logits stay; the last backward may write over them."""
    leaf = logits(torch.float16, device).requires_grad_()
    loss = F.cross_entropy(leaf * 1, INDEX.to(device), inplace_backward=True, out_dtype=torch.float32)
    (first,) = torch.autograd.grad(loss, leaf, torch.tensor(SCALE, device=device), retain_graph=True)
    (second,) = torch.autograd.grad(loss, leaf, torch.tensor(SCALE, device=device))
    assert torch.equal(first, second)

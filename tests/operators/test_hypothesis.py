"""Random shapes, strides, dtypes and options, against float64."""

import pytest
import torch
from cases import make_target
from compare import assert_near
from optimizers import LAYOUTS, OPTIONS, Pair
from references import binary_cross_entropy_with_logits, cross_entropy

import fused_ml.nn.functional as F

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")
given = hypothesis.given

DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
SIZES = st.integers(1, 9)


@st.composite
def tensors(draw, dtype, shape, generator):
    """A tensor of `shape`: its dimensions in some order, with steps and a shift in memory, some expanded."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    expanded = [size > 1 and draw(st.integers(0, 5)) == 0 for size in shape]
    sizes = [1 if flat else size * step for size, step, flat in zip(shape, steps, expanded, strict=True)]
    count, shift = torch.Size(sizes).numel(), draw(st.integers(0, 3))
    scale = draw(st.sampled_from([0.1, 1.0, 4.0]))
    flat = (torch.randn(count + shift, generator=generator, dtype=torch.float64) * scale).to(dtype)
    stored = flat[shift:].view([sizes[d] for d in order])
    x = stored.permute([order.index(d) for d in range(len(shape))])
    for d, (step, flat_dimension) in enumerate(zip(steps, expanded, strict=True)):
        x = x.expand(*(shape[d] if i == d else -1 for i in range(x.dim()))) if flat_dimension else x
        x = x if flat_dimension else x[(slice(None),) * d + (slice(None, None, step),)]
    assert x.shape == torch.Size(shape)
    return x


@st.composite
def cross_entropy_calls(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    classes = draw(st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 200])))
    shape = draw(st.sampled_from([(classes,), (draw(SIZES), classes), (draw(SIZES), classes, draw(SIZES))]))
    shape = (*shape, draw(SIZES)) if len(shape) == 3 and draw(st.booleans()) else shape
    x = draw(tensors(draw(DTYPES), shape, generator))
    kind = draw(st.sampled_from([torch.int64, torch.int32, torch.uint8, "probabilities"]))
    target = make_target(x, kind)
    rows = target.shape if kind != "probabilities" else shape[:1] * (len(shape) > 1) + shape[2:]
    options = {"reduction": draw(REDUCTIONS)}
    choices = {
        "weight": lambda: (torch.rand(classes, generator=generator, dtype=torch.float64) + 0.1).to(x.dtype),
        "label_smoothing": lambda: draw(st.floats(0, 1)),
        "z_loss": lambda: draw(st.floats(0, 1)),
        "softcap": lambda: draw(st.floats(1, 50)),
        "sample_weight": lambda: torch.rand(rows, generator=generator) + 0.1,
        "normalizer": lambda: draw(st.floats(0.5, 100)),
    }
    if kind != "probabilities" and classes > 1:
        choices["ignore_index"] = lambda: draw(st.integers(0, classes - 1))
    options |= {name: make() for name, make in choices.items() if draw(st.integers(0, 3)) == 0}
    if options.get("ignore_index") is not None and target.eq(options["ignore_index"]).all():
        del options["ignore_index"]  # mean would divide by zero
    return x, target, options


@given(cross_entropy_calls())
def test_cross_entropy(call):
    x, target, options = call
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x, target, **options)
    (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
    expected = cross_entropy(x, target, torch.ones(loss.shape), **options)
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, what="gradient")


@st.composite
def binary_calls(draw):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shape = tuple(draw(st.lists(st.integers(1, 8), min_size=0, max_size=4)))
    dtype = draw(DTYPES)
    x = draw(tensors(dtype, shape, generator))
    target = draw(tensors(dtype, shape, generator)).sigmoid()
    options = {"reduction": draw(REDUCTIONS)}

    def factor():
        """Broadcast to the input's shape."""
        kept = [size if draw(st.booleans()) else 1 for size in shape[draw(st.integers(0, len(shape))) :]]
        return (torch.rand(kept, generator=generator, dtype=torch.float64) + 0.1).to(dtype)

    choices = {
        "weight": factor,
        "pos_weight": factor,
        "focal_gamma": lambda: draw(st.floats(0.5, 5)),
        "focal_alpha": lambda: draw(st.floats(0, 1)),
        "label_smoothing": lambda: draw(st.floats(0, 1)),
    }
    options |= {name: make() for name, make in choices.items() if draw(st.integers(0, 2)) == 0}
    if draw(st.integers(0, 3)) == 0 and target.numel() > 1:
        target = torch.where(torch.rand(shape, generator=generator) < 0.3, -1.0, target)
        target.view(-1)[0] = 0.5  # one element stays
        options["ignore_index"] = -1
    return x, target, options


@given(binary_calls())
def test_binary_cross_entropy_with_logits(call):
    x, target, options = call
    x = x.detach().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(x, target, **options)
    (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
    expected = binary_cross_entropy_with_logits(x, target, torch.ones(loss.shape), **options)
    assert_near(loss, expected.loss, expected.loss_magnitude, what="loss")
    assert_near(gradient, expected.gradient, expected.gradient_magnitude, what="gradient")


@st.composite
def strided(draw):
    dims = draw(st.integers(0, 4))
    shape = [draw(st.integers(0, 9)) for _ in range(dims)]
    order = draw(st.permutations(range(dims)))
    gaps = [draw(st.integers(1, 3)) for _ in range(dims)]
    stride, strides = 1, [0] * dims
    for d in order:
        strides[d] = stride * gaps[d]
        stride *= max(shape[d], 1) * gaps[d]
    return shape, strides, draw(st.integers(0, 5)), stride


@given(
    case=st.sampled_from(sorted(OPTIONS)),
    dtype=DTYPES,
    layouts=st.lists(strided(), min_size=1, max_size=4),
    grads=st.sampled_from(sorted(LAYOUTS)),
)
def test_optimizers(case, dtype, layouts, grads):
    params = []
    for shape, strides, offset, extent in layouts:
        buffer = torch.randn(extent + offset + 8).to(dtype)
        params.append(buffer.as_strided(shape, strides, offset))
    pair = Pair(case, params)
    for _ in range(2):
        pair.set_gradients()
        for p in pair.ours:
            if p.dim():
                p.grad = LAYOUTS[grads](p.grad) if p.dim() > 1 else p.grad
        pair.optimizer.step()
        pair.reference.step()
    pair.check()

"""Every operator of the pointwise catalog: values, gradients, forms, derivatives, weights, errors, and its module."""

import pytest
import torch
from cases import FLOATS, POINTWISE_LAYOUTS, REDUCTIONS, drawer, name_of
from compare import (
    assert_near,
    assert_no_worse_than_torch,
    assert_same_form,
    assert_same_outcome,
    outcome,
    same_bits,
)
from rows import CALLS, LOSSES, PUBLIC, ROWS, WEIGHTED, name_of_options
from rows import OURS as F
from torch.autograd import gradcheck, gradgradcheck

import fused_ml
import fused_ml.nn as fnn
from fused_ml._library import ISA_LEVELS


def label(value):
    return name_of_options(value) if isinstance(value, dict) else name_of(value) or str(value)


every_call = pytest.mark.parametrize(("row", "options"), CALLS, ids=label)


def leaves(*tensors):
    return [t.detach().requires_grad_() for t in tensors]


def reductions(row):
    return [{"reduction": reduction} for reduction in REDUCTIONS] if row.loss else [{}]


def check(row, options, operands):
    """Value and gradients: near those of float64, no worse than torch's, and of torch's form."""
    operands = leaves(*operands)
    ours, theirs = getattr(F, row.name)(*operands, **options), row.torchs(*operands, **options)
    assert_same_form(ours, theirs, "value")
    upstream = drawer(ours.dtype, ours.device, 1.0)(*ours.shape)
    wide = leaves(*(t.detach().double().cpu() for t in operands))
    wide_options = {k: v.double().cpu() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    expected = row.reference(*wide, **wide_options)
    found, torchs = (torch.autograd.grad(value, operands, upstream) for value in (ours, theirs))
    exact = torch.autograd.grad(expected, wide, upstream.double().cpu())
    assert_near(ours, expected.detach(), expected.detach().abs(), what="value")
    assert_no_worse_than_torch(ours, theirs, expected.detach(), "value")
    terms = upstream.double().cpu().abs() / (wide[0].numel() if options.get("reduction") == "mean" else 1)
    for gradient, torch_gradient, reference in zip(found, torchs, exact, strict=True):
        assert (gradient.shape, gradient.dtype) == (torch_gradient.shape, torch_gradient.dtype)
        assert_near(gradient, reference, reference.abs() + terms, 2, "gradient")
        assert_no_worse_than_torch(gradient, torch_gradient, reference, "gradient")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("layout", [*POINTWISE_LAYOUTS])
@every_call
def test_layouts(row, options, layout, dtype, device):
    operands = row.operands(POINTWISE_LAYOUTS[layout](drawer(dtype, device)))
    for reduction in reductions(row):
        check(row, {**options, **reduction}, operands)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@every_call
def test_whole_range_and_infinities(row, options, dtype, device):
    most = torch.finfo(dtype).max
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, most, -most], dtype=torch.float64)
    x = torch.cat([torch.linspace(-80, 80, 2001, dtype=torch.float64), special]).to(device, dtype)
    others = [torch.zeros_like(x) for _ in row.operands(x)[1:]]
    more = {**options, "reduction": "none"} if row.loss else options
    ours = getattr(F, row.name)(x, *others, **more).cpu().double()
    wide = row.reference(x.cpu().double(), *(t.cpu().double() for t in others), **more)
    error = (ours - wide).abs() / (wide.abs() * torch.finfo(dtype).eps + 2 * torch.finfo(dtype).tiny)
    fine = (error <= 4) | (ours.isnan() & wide.isnan()) | (ours == wide.to(dtype).double())
    assert fine.all(), f"{error[~fine].max():.3g} ulp at {x.cpu()[~fine]}"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("row", "options"), WEIGHTED, ids=label)
def test_weight(row, options, reduction, device):
    x = drawer(torch.float32, device)(5, 7)
    check(row, {**options, "reduction": reduction, "weight": torch.rand_like(x)}, row.operands(x))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("row", "options"), LOSSES, ids=label)
def test_small_float16_gradients_are_there(row, options, reduction, device):
    """Divided by millions of elements, and times a loss scale: no gradient is lost before the scale is applied."""
    x = drawer(torch.float16, device, 1.0)(1000, 3000)
    operands = leaves(*row.operands(x))
    value = getattr(F, row.name)(*operands, **options, reduction=reduction)
    scale = torch.tensor(32768.0 if reduction == "mean" else 1.0).to(value)  # the largest power of two in float16
    (found,) = torch.autograd.grad((value * scale).sum(), operands[:1])
    wide = leaves(*(t.detach().double().cpu() for t in operands))
    (exact,) = torch.autograd.grad(row.torchs(*wide, **options, reduction=reduction).sum() * scale.item(), wide[:1])
    assert_near(found, exact, exact.abs(), 2, "gradient")


@every_call
def test_derivatives(row, options):
    x = torch.randn(3, 4, dtype=torch.float64)
    for reduction in reductions(row):
        call = lambda *a: getattr(F, row.name)(*a, **options, **reduction)  # noqa: E731, B023
        operands = leaves(*row.operands(x))
        assert gradcheck(call, operands)
        assert gradgradcheck(call, operands)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@every_call
def test_instruction_sets_and_threads(row, options, dtype):
    """Near each other at every instruction set, and the same bits on one and on three threads."""
    x = drawer(dtype, "cpu")(210, 310)
    chosen, threads, results = torch.ops.fused_ml.cpu_isa(), torch.get_num_threads(), []
    try:
        for level in fused_ml.cpu_isas_supported():
            torch.ops.fused_ml.choose_cpu_isa(ISA_LEVELS.index(level))
            for count in (1, 3):
                torch.set_num_threads(count)
                operands = leaves(*row.operands(x))
                value = getattr(F, row.name)(*operands, **options)
                results.append((value.detach(), *torch.autograd.grad(value.sum(), operands)))
            assert all(map(same_bits, *results[-2:]))
    finally:
        torch.ops.fused_ml.choose_cpu_isa(chosen)
        torch.set_num_threads(threads)
    # A derivative's terms may cancel; they are as large as what comes from above.
    eps, terms = torch.finfo(dtype).eps, 1 / x.numel() if row.loss else 1.0
    for result in results[1:]:
        for i, (a, b) in enumerate(zip(result, results[0], strict=True)):
            least = 2 * eps * terms if i else 8 * torch.finfo(dtype).tiny
            torch.testing.assert_close(a, b, rtol=8 * eps, atol=least)


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize(("row", "options"), [(row, o) for row in PUBLIC for o in row.options], ids=label)
def test_module(row, options, dtype, device):
    ours, theirs = getattr(fnn, row.module)(**options), getattr(torch.nn, row.module)(**options)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    operands = row.operands(drawer(dtype, device)(3, 4))
    with fused_ml.explaining() as told:
        value = ours(*operands)
    assert same_bits(value, getattr(F, row.name)(*operands, **options))
    assert [call.fused for call in told.calls] == [True]


BAD = {
    "no tensor": lambda f, x, *rest: f([1.0], *rest),
    "integers": lambda f, x, *rest: f(torch.arange(3), *rest),
    "complex": lambda f, x, *rest: f(x.to(torch.complex64), *rest),
    "no rest": lambda f, x, *rest: f(x),
    "other shapes": lambda f, x, *rest: f(x.expand(2, 3), *rest),
    "reduction": lambda f, x, *rest: f(x, *rest, **({"reduction": "average"} if rest else {})),
}


@pytest.mark.parametrize("bad", [*BAD])
@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_bad_calls_do_what_torch_does(row, bad):
    operands = row.operands(torch.randn(3))
    assert_same_outcome(outcome(BAD[bad], getattr(F, row.name), *operands), outcome(BAD[bad], row.torchs, *operands))


@pytest.mark.parametrize(("row", "options"), [(row, o) for row in ROWS for o in row.refused], ids=label)
@pytest.mark.filterwarnings("ignore")
def test_options_out_of_range_raise_as_in_torch(row, options):
    operands = row.operands(torch.randn(3))
    ours, theirs = (outcome(lambda f=f: f(*operands, **options)) for f in (getattr(F, row.name), row.torchs))
    assert isinstance(theirs, Exception)
    assert_same_outcome(ours, theirs)


@pytest.mark.parametrize(("row", "options"), [(row, o) for row, o in CALLS if o], ids=label)
@pytest.mark.parametrize("kind", ["tensor", "word", "none", "bool"])
@pytest.mark.filterwarnings("ignore")
def test_options_that_are_no_numbers_do_what_torch_does(row, options, kind):
    given = {"tensor": torch.tensor(1.5), "word": "1", "none": None, "bool": True}[kind]
    operands, options = row.operands(torch.randn(3)), dict.fromkeys(options, given)
    ours, theirs = (outcome(lambda f=f: f(*operands, **options)) for f in (getattr(F, row.name), row.torchs))
    assert_same_outcome(ours, theirs)


def schemas():
    """The arguments' names of every operator of this package."""
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("fused_ml::"):
            stem, _, overload = name.removeprefix("fused_ml::").partition(".")
            yield stem, [a.name for a in torch._C._get_schema(f"fused_ml::{stem}", overload).arguments]


def test_every_operator_of_the_catalog_has_a_row():
    """It is known by the arguments that the catalog gives its kind."""
    activations = {name.removesuffix("_backward") for name, arguments in schemas() if arguments[1:2] == ["saved"]}
    losses = {name for name, arguments in schemas() if arguments[2:5] == ["weight", "normalizer", "grad_output"]}
    assert {name for row in ROWS if not row.loss for name in row.operators or [row.name]} == activations
    assert {row.name for row in ROWS if row.loss} == losses

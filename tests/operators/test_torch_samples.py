"""torch's own sample inputs, error inputs and criterion tests, given to the fused functions and modules."""

import pytest
import torch
from _torch_internal import CriterionTest, ModuleErrorEnum, criterion_tests, module_db, op_db
from cases import name_of
from compare import assert_same_form
from rows import OURS as F
from rows import PUBLIC, ROWS

import fused_ml.nn as fnn

pytestmark = pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
T = torch.nn.functional
NAMES = {
    "nn.functional.cross_entropy": "cross_entropy",
    "nn.functional.nll_loss": "nll_loss",
    "nn.functional.binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    "nn.functional.softmin": "softmin",
    "log_softmax": "log_softmax",
    "softmax": "softmax",
    **{f"nn.functional.{row.name}": row.name for row in ROWS},
}
OPS = [op for op in op_db if op.name in NAMES]
MODULES = [
    "CrossEntropyLoss",
    "NLLLoss",
    "LogSoftmax",
    "Softmax",
    "Softmin",
    "BCEWithLogitsLoss",
    *(row.module for row in PUBLIC),
]
MODULE_INFOS = [info for info in module_db if info.module_cls in {getattr(torch.nn, name) for name in MODULES}]
TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2e-2, "atol": 5e-3},
    torch.float16: {"rtol": 2e-3, "atol": 1e-3},
}


def close(ours, theirs, dtype):
    torch.testing.assert_close(ours, theirs, equal_nan=True, check_dtype=False, **TOLERANCE[dtype])


def widened(value):
    """torch's own results in 16 bits are no measure: there it is given the same numbers in float32."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype.itemsize == 2:
        return value.detach().float().requires_grad_(value.requires_grad)
    return value


def gradients(function, tensors):
    """The value, and its gradient by every one of `tensors` that asks for one."""
    value = function()
    wanted = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]
    if not value.requires_grad:
        return value, []
    upstream = (torch.arange(value.numel(), device=value.device) % 5 * 0.25).to(value.dtype).view(value.shape)
    return value, torch.autograd.grad(value, wanted, upstream, allow_unused=True)


def test_every_fused_function_has_torchs_samples():
    assert {op.name for op in OPS} == set(NAMES)
    assert len(MODULE_INFOS) == len(MODULES)


@pytest.mark.parametrize("dtype", [*TOLERANCE], ids=name_of)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.formatted_name)
def test_sample_inputs(op, dtype, device):
    fused, original = getattr(F, NAMES[op.name]), getattr(T, NAMES[op.name])
    for sample in op.sample_inputs(device, dtype, requires_grad=True):
        arguments = (sample.input, *sample.args)
        tensors = [*arguments, *sample.kwargs.values()]
        wide, options = [widened(a) for a in arguments], {k: widened(v) for k, v in sample.kwargs.items()}
        ours, our_gradients = gradients(lambda: fused(*arguments, **sample.kwargs), tensors)  # noqa: B023
        theirs, their_gradients = gradients(lambda: original(*wide, **options), [*wide, *options.values()])  # noqa: B023
        assert_same_form(ours, original(*arguments, **sample.kwargs), str(sample))
        close(ours, theirs, dtype)
        close(our_gradients, their_gradients, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
@pytest.mark.parametrize("info", MODULE_INFOS, ids=lambda info: info.name)
def test_module_inputs(info, dtype, device):
    for sample in info.module_inputs_func(info, device, dtype, requires_grad=True, training=True):
        made, results = sample.constructor_input, []
        for library in (fnn, torch.nn):
            module = getattr(library, info.module_cls.__name__)(*made.args, **made.kwargs).to(device, dtype)
            forward = sample.forward_input
            tensors = [*forward.args, *forward.kwargs.values()]
            results.append(gradients(lambda: module(*forward.args, **forward.kwargs), tensors))  # noqa: B023
            if sample.reference_fn is not None and library is fnn:
                detached = [a.detach() if isinstance(a, torch.Tensor) else a for a in forward.args]
                expected = sample.reference_fn(module, *detached, **forward.kwargs)
                close(results[0][0].detach(), expected, dtype)
        (ours, our_gradients), (theirs, their_gradients) = results
        assert_same_form(ours, theirs, sample.desc)
        close(ours, theirs, dtype)
        close(our_gradients, their_gradients, dtype)


@pytest.mark.parametrize("info", [i for i in MODULE_INFOS if i.module_error_inputs_func], ids=lambda i: i.name)
def test_module_error_inputs(info, device):
    cls = getattr(fnn, info.module_cls.__name__)
    samples = info.module_error_inputs_func(info, device, torch.float32, requires_grad=True, training=True)
    for sample in samples:
        made, forward = sample.module_error_input.constructor_input, sample.module_error_input.forward_input
        if sample.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(sample.error_type, match=sample.error_regex):
                cls(*made.args, **made.kwargs)
            continue
        module = cls(*made.args, **made.kwargs).to(device)
        with pytest.raises(sample.error_type, match=sample.error_regex):
            module(*forward.args, **forward.kwargs)


def fused_criteria():
    """torch's criterion tests of the modules that are fused: (name, the test with the fused constructor)."""
    for info in criterion_tests:
        made = info.get("constructor") or getattr(torch.nn, info.get("module_name", ""), None)
        name = str(info.get("fullname") or info.get("module_name"))
        fused = next((m for m in MODULES if name.startswith(m)), None)
        if made is not None and fused is not None:
            yield pytest.param(fused, info, id=name + str(info.get("desc", "")))


CRITERIA = [*fused_criteria()]


@pytest.mark.parametrize(("fused", "info"), CRITERIA)
def test_criterion_tests(fused, info, monkeypatch):
    """The constructors in the table look the class up in torch.nn: during the test it is the fused one."""
    monkeypatch.setattr(torch.nn, fused, getattr(fnn, fused))
    runner = Comparison()
    CriterionTest(**info)(runner)


class Comparison:
    """What a CriterionTest wants of the unittest it runs in."""

    def _forward_criterion(self, criterion, input, target, extra_args=()):
        assert type(criterion).__module__.startswith("fused_ml")
        return criterion(input, target, *extra_args)

    def assertEqual(self, ours, theirs):
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=1e-6, atol=1e-6)

"""torch's contract beyond values: bad calls, legacy arguments, autocast, transforms, subclasses, copies."""

import copy
import io
import pickle

import pytest
import torch
from cases import name_of
from compare import assert_same_form, assert_same_outcome, outcome

import fused_ml.nn as fnn
import fused_ml.nn.functional as F

pytestmark = pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
T = torch.nn.functional
X, INDEX = torch.randn(4, 5), torch.tensor([0, 4, 2, 1])
BAD_CALLS = {
    "misspelt reduction": lambda m: m.cross_entropy(X, INDEX, reduction="average"),
    "weight too long": lambda m: m.cross_entropy(X, INDEX, weight=torch.ones(6)),
    "weight of two dimensions": lambda m: m.cross_entropy(X, INDEX, weight=torch.ones(5, 1)),
    "weight of another dtype": lambda m: m.cross_entropy(X, INDEX, weight=torch.ones(5).double()),
    "weight that is a list": lambda m: m.cross_entropy(X, INDEX, weight=[1.0] * 5),
    "smoothing above 1": lambda m: m.cross_entropy(X, INDEX, label_smoothing=1.5),
    "smoothing below 0": lambda m: m.cross_entropy(X, INDEX, label_smoothing=-0.1),
    "smoothing NaN": lambda m: m.cross_entropy(X, INDEX, label_smoothing=float("nan")),
    "batch sizes differ": lambda m: m.cross_entropy(X, INDEX[:3]),
    "float indices": lambda m: m.cross_entropy(X, INDEX.float()),
    "bool indices": lambda m: m.cross_entropy(X, INDEX > 2),
    "int16 indices": lambda m: m.cross_entropy(X, INDEX.short()),
    "integer probabilities": lambda m: m.cross_entropy(X, torch.zeros(4, 5, dtype=torch.int64)),
    "spatial sizes differ": lambda m: m.cross_entropy(torch.randn(2, 3, 4, 4), torch.zeros(2, 4, 5).long()),
    "spatial target of lower rank": lambda m: m.cross_entropy(torch.randn(2, 3, 4), torch.zeros(2).long()),
    "0-d input": lambda m: m.cross_entropy(torch.tensor(1.0), torch.tensor(0)),
    "integer input": lambda m: m.cross_entropy(X.long(), INDEX),
    "complex input": lambda m: m.cross_entropy(X.to(torch.complex64), INDEX),
    "no classes": lambda m: m.cross_entropy(torch.randn(3, 0), torch.zeros(3).long()),
    "ignore_index with probabilities": lambda m: m.cross_entropy(X, X.softmax(1), ignore_index=1),
    "input None": lambda m: m.cross_entropy(None, INDEX),
    "target None": lambda m: m.cross_entropy(X, None),
    "meta target": lambda m: m.cross_entropy(X, INDEX.to("meta")),
    "nll: misspelt reduction": lambda m: m.nll_loss(X, INDEX, reduction="average"),
    "nll: batch sizes differ": lambda m: m.nll_loss(X, INDEX[:3]),
    "nll: weight too short": lambda m: m.nll_loss(X, INDEX, weight=torch.ones(4)),
    "nll: float target": lambda m: m.nll_loss(X, INDEX.float()),
    "nll: target of two dimensions": lambda m: m.nll_loss(X, INDEX[:, None]),
    "nll: 0-d input": lambda m: m.nll_loss(torch.tensor(1.0), torch.tensor(0)),
    "log_softmax: integers": lambda m: m.log_softmax(X.int(), 1),
    "softmax: integers": lambda m: m.softmax(X.int(), 1),
    "softmax: integer dtype": lambda m: m.softmax(X, 1, dtype=torch.int32),
    "softmax: dim of wrong type": lambda m: m.softmax(X, 1.5),
    "softmax: no tensor": lambda m: m.softmax([1.0, 2.0], 0),
    "softmin: bool": lambda m: m.softmin(X > 0, 1),
    "logsigmoid: bool": lambda m: m.logsigmoid(X > 0),
    "logsigmoid: no tensor": lambda m: m.logsigmoid(1.0),
}


@pytest.mark.parametrize("bad", [*BAD_CALLS])
def test_bad_calls_do_what_torch_does(bad):
    assert_same_outcome(outcome(BAD_CALLS[bad], F), outcome(BAD_CALLS[bad], T))


LEGACY = [(a, b) for a in (None, True, False) for b in (None, True, False) if (a, b) != (None, None)]


@pytest.mark.parametrize(("size_average", "reduce"), LEGACY)
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "binary_cross_entropy_with_logits"])
def test_legacy_reduction_arguments(name, size_average, reduce):
    target = torch.rand(4, 5) if name.startswith("binary") else INDEX
    results = []
    for module in (F, T):
        with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
            results.append(getattr(module, name)(X, target, size_average=size_average, reduce=reduce))
    assert_same_form(*results)
    torch.testing.assert_close(*results)


CALLS = {
    "cross_entropy": lambda m, x: m.cross_entropy(x, INDEX),
    "cross_entropy, probabilities": lambda m, x: m.cross_entropy(x, X.softmax(1).to(x.dtype)),
    "nll_loss": lambda m, x: m.nll_loss(x, INDEX),
    "log_softmax": lambda m, x: m.log_softmax(x, 1),
    "softmax": lambda m, x: m.softmax(x, 1),
    "softmin": lambda m, x: m.softmin(x, 1),
    "logsigmoid": lambda m, x: m.logsigmoid(x),
    "binary_cross_entropy_with_logits": lambda m, x: m.binary_cross_entropy_with_logits(x, X.sigmoid().to(x.dtype)),
}


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=name_of)
@pytest.mark.parametrize("call", [*CALLS])
def test_autocast_dtypes(call, dtype, autocast):
    with torch.autocast("cpu", dtype=autocast):
        results = []
        for module in (F, T):
            x = X.to(dtype, copy=True).requires_grad_()
            value = CALLS[call](module, x)
            results.append((value, *torch.autograd.grad(value.sum(), x)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=2e-2)


@pytest.mark.parametrize("call", [*CALLS])
def test_functional_transforms(call):
    """grad, vmap, jvp and jacrev: handled, or handed to torch's function; never wrong."""

    def scalar(module):
        return lambda x: CALLS[call](module, x).square().sum()

    batch = torch.randn(3, *X.shape)
    for transform, argument in (
        (torch.func.grad, X),
        (torch.func.jacrev, X),
        (torch.func.vmap, batch),
        (lambda f: torch.func.vmap(torch.func.grad(f)), batch),
        (lambda f: lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1], X),
    ):
        torch.testing.assert_close(transform(scalar(F))(argument), transform(scalar(T))(argument))


class Seen(torch.Tensor):
    """A subclass that notes which functions it was given to."""

    log = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.log.append(getattr(function, "__name__", str(function)))
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("call", [*CALLS])
def test_tensor_subclasses_are_given_torchs_function(call):
    Seen.log.clear()
    value = CALLS[call](F, X.clone().as_subclass(Seen))
    assert type(value) is Seen
    name = call.split(",")[0]
    assert any(name.replace("logsigmoid", "log_sigmoid") in seen or name in seen for seen in Seen.log)
    torch.testing.assert_close(value.as_subclass(torch.Tensor), CALLS[call](T, X))


@pytest.mark.parametrize("call", [*CALLS])
def test_parameters_and_inference_tensors(call):
    """torch.nn.Parameter is no stranger; tensors made under inference_mode work outside it."""
    assert CALLS[call](F, torch.nn.Parameter(X.clone())).requires_grad
    with torch.inference_mode():
        made = X * 1
    torch.testing.assert_close(CALLS[call](F, made), CALLS[call](T, X))


@pytest.mark.parametrize("call", [*CALLS])
def test_meta_and_fake_tensors(call):
    from torch._subclasses.fake_tensor import FakeTensorMode

    expected = CALLS[call](T, X)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        value = CALLS[call](F, mode.from_tensor(X))
    assert (value.shape, value.dtype, value.stride()) == (expected.shape, expected.dtype, expected.stride())


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": lambda module: torch.load(saved(module), weights_only=False),
}


def saved(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("how", [*COPIES])
def test_modules_are_copied(how):
    losses = [
        fnn.CrossEntropyLoss(torch.rand(5), ignore_index=2, label_smoothing=0.1),
        fnn.NLLLoss(torch.rand(5), reduction="sum"),
    ]
    for loss in losses:
        again = COPIES[how](loss)
        assert type(again) is type(loss)
        assert torch.equal(again(X, INDEX), loss(X, INDEX))
    binary = fnn.BCEWithLogitsLoss(torch.rand(5), pos_weight=torch.rand(5))
    assert torch.equal(COPIES[how](binary)(X, X.sigmoid()), binary(X, X.sigmoid()))
    for module in (fnn.Softmax(1), fnn.LogSoftmax(1), fnn.Softmin(1), fnn.LogSigmoid()):
        assert torch.equal(COPIES[how](module)(X), module(X))

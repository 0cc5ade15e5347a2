"""Calls that no kernel takes: torch's own function answers them, sees them once, and refuses them in its own words."""

import contextlib
import re
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as TF
from compare import outcome
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

import fused_ml
import fused_ml.nn.functional as F

pytestmark = pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
INDEX = torch.tensor([0, 4, 1, 1, 2, 3])
X = torch.linspace(-2, 2, 30).view(6, 5)


class Watching(torch.Tensor):
    """A subclass that counts what it is given to."""

    seen: list = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


class Mode(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


class Foreign:
    """No tensor at all, but it answers torch's functions."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func, len(args), sorted(kwargs or {})


SIMPLE = {
    "softmax": lambda f, x: f.softmax(x, 1),
    "softmax, no dim": lambda f, x: f.softmax(x, None),
    "softmin": lambda f, x: f.softmin(x, 1),
    "log_softmax": lambda f, x: f.log_softmax(x, 1),
    "logsigmoid": lambda f, x: f.logsigmoid(x),
    "nll_loss": lambda f, x: f.nll_loss(x, INDEX),
    "cross_entropy": lambda f, x: f.cross_entropy(x, INDEX),
    "cross_entropy, smoothing": lambda f, x: f.cross_entropy(x, INDEX, label_smoothing=0.1, reduction="none"),
    "cross_entropy, probabilities": lambda f, x: f.cross_entropy(x, X.softmax(1)),
    "bce": lambda f, x: f.binary_cross_entropy_with_logits(x, X.sigmoid()),
}
simple = pytest.mark.parametrize("call", [*SIMPLE])


WAYS = {"imported": (F, contextlib.nullcontext), "patched": (TF, fused_ml.patch_torch)}


@simple
@pytest.mark.parametrize("way", [*WAYS])
def test_a_subclass_sees_torchs_function_once(call, way):
    seen = []
    for f, context in (WAYS[way], (TF, contextlib.nullcontext)):
        Watching.seen = []
        with context():
            result = SIMPLE[call](f, X.as_subclass(Watching))
        assert type(result) is Watching
        seen.append(Watching.seen)
    assert seen[0] == seen[1]


@simple
def test_a_subclass_in_another_place_is_seen_too(call):
    if call in ("softmax", "softmax, no dim", "softmin", "log_softmax", "logsigmoid"):
        return  # one tensor only
    weights = {"bce": "pos_weight"}.get(call, "weight")
    name = call.split(",")[0].replace("bce", "binary_cross_entropy_with_logits")
    target = X.sigmoid() if call in ("bce", "cross_entropy, probabilities") else INDEX
    seen = []
    for f in (F, TF):
        Watching.seen = []
        getattr(f, name)(X, target, **{weights: torch.ones(5).as_subclass(Watching)})
        seen.append(Watching.seen)
    assert seen[0] == seen[1]


@simple
@pytest.mark.parametrize("way", [*WAYS])
def test_a_function_mode_sees_torchs_function_once(call, way):
    modes = [Mode(), Mode()]
    for mode, (f, context) in zip(modes, (WAYS[way], (TF, contextlib.nullcontext)), strict=True):
        with context(), mode:
            SIMPLE[call](f, X)
    assert modes[0].seen == modes[1].seen


class Renamed(TorchFunctionMode):
    """Adds 1 to the results of functions that are torch's own; a compiler guards on what a mode holds: nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return result + 1 if getattr(func, "__name__", "") in NAMES else result


NAMES = {*F.FUSED, "log_sigmoid"}


@simple
def test_a_function_mode_sees_torchs_function_while_compiling(call):
    if call == "softmax, no dim":
        return  # torch looks at the frames above it, which no compiler has
    results = []
    for f in (F, TF):
        torch.compiler.reset()
        compiled = torch.compile(partial(SIMPLE[call], f), backend="eager", fullgraph=True)
        with Renamed():
            results.append(compiled(X))
    torch.testing.assert_close(*results)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(results[0], SIMPLE[call](F, X))


@simple
def test_a_device_mode_while_compiling(call):
    torch.compiler.reset()
    with torch.device("cpu"):
        compiled = torch.compile(partial(SIMPLE[call], F), backend="eager", fullgraph=call != "softmax, no dim")
        torch.testing.assert_close(compiled(X), SIMPLE[call](TF, X))


@simple
def test_an_object_with_torch_function(call):
    assert outcome(SIMPLE[call], F, Foreign()) == outcome(SIMPLE[call], TF, Foreign())


@simple
def test_a_device_mode_is_no_reason_to_leave_the_kernels(call, monkeypatch):
    with warnings.catch_warnings(), torch.device("cpu"):
        warnings.simplefilter("error", fused_ml.FusedFallbackWarning)
        SIMPLE[call](F, X)


INPUTS = {
    "nested": lambda: torch.nested.nested_tensor([X[:2].clone(), X[2:].clone()]),
    "jagged": lambda: torch.nested.nested_tensor([X[:2].clone(), X[2:].clone()], layout=torch.jagged),
    "sparse": lambda: X.to_sparse(),
    "csr": lambda: X.to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
    "mkldnn": lambda: X.to_mkldnn(),
    **{
        f"meta {str(d)[6:]}": (lambda d=d: torch.empty(6, 5, device="meta", dtype=d))
        for d in (torch.float32, torch.bfloat16, torch.float16)
    },
    "complex": lambda: X.to(torch.complex64),
    "integers": lambda: torch.ones(6, 5, dtype=torch.int64),
    "bool": lambda: X > 0,
    "float8": lambda: X.to(torch.float8_e4m3fn),
    "negated view": lambda: torch.complex(X, X).conj().imag,
    "zeros without memory": lambda: torch._efficientzerotensor((6, 5)),
    "a number": lambda: torch.tensor(1.0),
    "no rows": lambda: torch.empty(0, 5),
    "None": lambda: None,
    "numpy": lambda: X.numpy(),
    "list": lambda: [1.0, 2.0],
    "float": lambda: 3.0,
}


def comparable(result):
    if not isinstance(result, torch.Tensor):
        return result
    if result.is_meta:
        return ("meta", result.shape, result.dtype)
    return result.to_dense().detach() if result.layout is torch._mkldnn else result.detach()


@simple
@pytest.mark.parametrize("kind", [*INPUTS])
def test_inputs_of_every_kind(kind, call):
    ours, theirs = (outcome(lambda f: comparable(SIMPLE[call](f, INPUTS[kind]())), f) for f in (F, TF))
    assert_same(ours, theirs)


def assert_same(ours, theirs):
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), f"got {ours!r}, torch raises {theirs!r}"
        ours, theirs = (re.sub(r"\bj\d+", "j", str(e).splitlines()[0]) for e in (ours, theirs))  # a jagged size's name
        assert ours == theirs
    elif isinstance(theirs, torch.Tensor) and not isinstance(ours, Exception):
        if theirs.is_nested:
            ours, theirs = ours.unbind(), theirs.unbind()
        elif theirs.layout is not torch.strided:
            ours, theirs = ours.to_dense(), theirs.to_dense()
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    else:
        assert ours == theirs


BAD = {  # name: arguments that torch refuses, or takes in its own way
    "cross_entropy": [
        {"ignore_index": None}, {"ignore_index": 1.0}, {"ignore_index": True}, {"label_smoothing": None},
        {"label_smoothing": "a"}, {"label_smoothing": 2.0}, {"label_smoothing": -0.5}, {"label_smoothing": 1},
        {"label_smoothing": True}, {"reduction": None}, {"reduction": 3}, {"reduction": "avg"}, {"reduction": ["mean"]},
        {"weight": [1.0] * 5}, {"weight": 1.0}, {"weight": torch.ones(4)}, {"weight": torch.ones(5, 1)},
        {"weight": torch.ones(5).double()}, {"weight": torch.ones(5, dtype=torch.int64)},
        {"weight": torch.ones(5, requires_grad=True)}, {"size_average": False}, {"reduce": False},
        {"target": None}, {"target": INDEX.short()}, {"target": INDEX.float()}, {"target": INDEX[:4]},
        {"target": [0, 1, 2, 3, 4, 0]}, {"target": X.double()}, {"target": X > 0}, {"target": INDEX + 3},
        {"target": X.softmax(1), "ignore_index": 2},
    ],
    "nll_loss": [
        {"ignore_index": None}, {"ignore_index": 1.0}, {"reduction": None}, {"reduction": "avg"},
        {"weight": [1.0] * 5}, {"weight": torch.ones(4)}, {"weight": torch.ones(5).double()},
        {"target": None}, {"target": INDEX.short()}, {"target": INDEX.float()}, {"target": INDEX[:4]},
        {"target": INDEX + 3}, {"weight": torch.ones(5, requires_grad=True)}, {"size_average": False},
    ],
    "binary_cross_entropy_with_logits": [
        {"reduction": None}, {"reduction": 3}, {"reduction": "avg"}, {"weight": 1.0}, {"weight": torch.ones(4)},
        {"weight": torch.ones(6, 1)}, {"weight": torch.ones(2, 6, 5)}, {"pos_weight": 2.0},
        {"pos_weight": torch.ones(4)}, {"pos_weight": torch.ones(2, 6, 5)}, {"target": None}, {"target": INDEX},
        {"target": X[:3]}, {"target": X.double()}, {"target": X > 0}, {"weight": torch.ones(5, requires_grad=True)},
        {"pos_weight": torch.ones(5, requires_grad=True)}, {"size_average": False},
    ],
    "softmax": [
        {"dim": 2}, {"dim": -3}, {"dim": 1.0}, {"dim": "1"}, {"dim": True}, {"dtype": "float32"},
        {"dtype": torch.int64}, {"dtype": torch.complex64}, {"dim": (1,)},
    ],
    "softmin": [{"dim": 2}, {"dim": 1.0}, {"dim": True}, {"dtype": torch.int64}],
    "log_softmax": [{"dim": 2}, {"dim": 1.0}, {"dim": True}, {"dtype": torch.int64}],
    "logsigmoid": [
        {"out": torch.zeros(6, 5)}, {"out": torch.zeros(2)}, {"out": 3}, {"out": torch.zeros(6, 5).double()},
    ],
}  # fmt: skip
REQUIRED = {
    "cross_entropy": {"target": INDEX}, "nll_loss": {"target": INDEX},
    "binary_cross_entropy_with_logits": {"target": X.sigmoid()},
    "softmax": {"dim": 1}, "softmin": {"dim": 1}, "log_softmax": {"dim": 1}, "logsigmoid": {},
}  # fmt: skip
CASES = [(name, bad) for name, cases in BAD.items() for bad in cases]


@pytest.mark.filterwarnings("ignore:size_average", "ignore::UserWarning")
@pytest.mark.parametrize(("name", "bad"), CASES, ids=lambda v: str(v)[:60].replace("\n", ""))
@pytest.mark.parametrize("grad", [False, True])
def test_arguments_that_torch_refuses(name, bad, grad):
    def call(f):
        x = X.clone().requires_grad_(grad)
        return comparable(getattr(f, name)(x, **{**REQUIRED[name], **bad}))

    assert_same(outcome(call, F), outcome(call, TF))


OURS = {  # option, value, error
    "cross_entropy": [
        ("z_loss", None, TypeError), ("z_loss", "a", TypeError), ("z_loss", -1.0, ValueError),
        ("softcap", "a", TypeError), ("softcap", 0.0, ValueError), ("normalizer", "a", TypeError),
        ("normalizer", torch.ones(2), ValueError), ("sample_weight", 1.0, TypeError),
        ("sample_weight", torch.ones(3), ValueError), ("out_dtype", torch.int64, TypeError),
    ],
    "binary_cross_entropy_with_logits": [
        ("focal_gamma", None, ValueError), ("focal_gamma", "a", TypeError), ("focal_gamma", -1.0, ValueError),
        ("focal_alpha", 2.0, ValueError), ("label_smoothing", None, ValueError), ("label_smoothing", 2.0, ValueError),
        ("ignore_index", "a", TypeError),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in OURS.items() for case in cases], ids=lambda v: str(v)[:50]
)
def test_our_own_options_are_named_in_errors(name, case):
    option, value, error = case
    with pytest.raises(error, match=option):
        getattr(F, name)(X, **{**REQUIRED[name], option: value})


def under_fake_tensors():
    with FakeTensorMode(allow_non_fake_inputs=True):
        return F.softmax(X, 1)


REASONS = {
    "sample_weight requires a gradient": lambda: F.cross_entropy(
        X, INDEX, sample_weight=torch.ones(6, requires_grad=True)
    ),
    "target must be float64 with": lambda: F.binary_cross_entropy_with_logits(X, X.double().sigmoid()),
    "input is a Watching": lambda: F.softmax(X.as_subclass(Watching), 1),
    "function transform": lambda: torch.func.vmap(lambda x: F.log_softmax(x, 0))(X),
    "input is nested": lambda: F.softmax(torch.nested.nested_tensor([X[:2].clone()]), -1),
    "tracing mode": under_fake_tensors,
    "out is given": lambda: F.logsigmoid(X, out=torch.empty(6, 5)),
}


@pytest.mark.filterwarnings("default::fused_ml.FusedFallbackWarning", "ignore:The PyTorch API of nested")
@pytest.mark.parametrize("reason", [*REASONS])
def test_the_warning_names_what_is_at_fault(reason, monkeypatch):
    monkeypatch.setattr("fused_ml._explain._warned", set())
    with pytest.warns(fused_ml.FusedFallbackWarning, match=reason):
        REASONS[reason]()


MIXED = {  # what autocast casts to float32, with 16-bit logits
    "class weight": lambda f, x: f.cross_entropy(x, INDEX, torch.linspace(0.5, 2, 5)),
    "class weight, none": lambda f, x: f.cross_entropy(x, INDEX, torch.linspace(0.5, 2, 5), reduction="none"),
    "nll weight": lambda f, x: f.nll_loss(x, INDEX, torch.linspace(0.5, 2, 5)),
    "soft targets": lambda f, x: f.cross_entropy(x, X.softmax(1), label_smoothing=0.1),
    "soft targets, weight": lambda f, x: f.cross_entropy(x, X.softmax(1), torch.linspace(0.5, 2, 5)),
    "bce": lambda f, x: f.binary_cross_entropy_with_logits(x, X.sigmoid(), torch.linspace(0.5, 2, 5)),
    "bce 16-bit target": lambda f, x: f.binary_cross_entropy_with_logits(X + 0 * x.float(), X.sigmoid().to(x.dtype)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("call", [*MIXED])
def test_autocast_of_mixed_types_is_fused(call, dtype):
    values = []
    for f in (F, TF):
        x = X.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=dtype), warnings.catch_warnings():
            warnings.simplefilter("error", fused_ml.FusedFallbackWarning)
            value = MIXED[call](f, x)
        value.float().sum().backward()
        values.append((value.detach(), x.grad))
    torch.testing.assert_close(*values, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    assert values[0][0].dtype == torch.float32

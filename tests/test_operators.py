"""torch.library.opcheck over every operator with a tensor argument, on calls the package really makes."""

import pytest
import torch
from rows import CALLS as CALLS_OF_ROWS
from rows import name_of_options
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

import fused_ml.nn.functional as F
from bench.layout_cases import LAYOUTS

OPTIMIZERS = ("adam", "sgd", "multi_tensor")  # tested with the optimizers
X, MAP = torch.randn(6, 5), torch.randn(2, 5, 3, 2)
INDEX, MAP_INDEX = torch.tensor([0, 4, -100, 1, 2, 2]), torch.randint(5, (2, 3, 2))
SPREAD, BINARY = torch.softmax(torch.randn(6, 5), 1), torch.rand(6, 5)
WEIGHT, ROWS, BYTES = torch.rand(5), torch.rand(6), INDEX.to(torch.uint8)

CALLS = {
    "cross_entropy": lambda x: F.cross_entropy(x, INDEX),
    "cross_entropy sum": lambda x: F.cross_entropy(x, INDEX, WEIGHT, label_smoothing=0.1, reduction="sum"),
    "cross_entropy none": lambda x: F.cross_entropy(x, BYTES, ignore_index=156, reduction="none"),
    "cross_entropy probabilities": lambda x: F.cross_entropy(x, SPREAD, WEIGHT),
    "cross_entropy by target": lambda x: F.cross_entropy(x, SPREAD.clone().requires_grad_()),
    "cross_entropy map": lambda x: F.cross_entropy(MAP * x[0].view(5, 1, 1), MAP_INDEX),
    "cross_entropy channels_last": lambda x: F.cross_entropy(
        (MAP * x[0].view(5, 1, 1)).contiguous(memory_format=torch.channels_last), MAP_INDEX, reduction="none"
    ),
    "cross_entropy strided": lambda x: F.cross_entropy(x.t().contiguous().t()[::2], INDEX[::2]),
    "cross_entropy one position": lambda x: F.cross_entropy(x[0], INDEX[0]),
    "cross_entropy extras": lambda x: F.cross_entropy(
        x, INDEX, z_loss=0.1, softcap=3.0, sample_weight=ROWS, normalizer=5.0, out_dtype=torch.float64
    ),
    "cross_entropy stats": lambda x: F.cross_entropy(x, INDEX, return_stats=True)[0],
    "cross_entropy in place": lambda x: F.cross_entropy(x * 1, INDEX, inplace_backward=True),
    "nll_loss": lambda x: F.nll_loss(x, INDEX, WEIGHT),
    "nll_loss none": lambda x: F.nll_loss(x, INDEX.int(), reduction="none"),
    "nll_loss map": lambda x: F.nll_loss(MAP * x[0].view(5, 1, 1), MAP_INDEX, reduction="sum"),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "log_softmax dim 0": lambda x: F.log_softmax(x, 0, dtype=torch.float64),
    "softmax": lambda x: F.softmax(x, 1),
    "softmax dim 0": lambda x: F.softmax(x.t(), 0, dtype=torch.bfloat16),
    "softmin": lambda x: F.softmin(x, -1),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, BINARY),
    "bce weights": lambda x: F.binary_cross_entropy_with_logits(
        x, BINARY.clone().requires_grad_(), weight=ROWS[:, None], pos_weight=WEIGHT, reduction="none"
    ),
    "bce extras": lambda x: F.binary_cross_entropy_with_logits(
        x,
        BINARY.round(),
        focal_gamma=2.0,
        focal_alpha=0.25,
        label_smoothing=0.1,
        ignore_index=1,
        reduction="sum",
    ),
    **{
        f"{row} {name_of_options(options)}{form}": lambda x, row=row, options=options, view=view: row.call(
            F, view(x), options
        )
        for row, options in CALLS_OF_ROWS
        for form, view in {"": lambda x: x, " strided": torch.t}.items()
    },
}


class Recorder(TorchDispatchMode):
    """Keeps a copy of the arguments of every call of an operator of this package."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fused_ml":
            self.calls.append((function, tree_map(detached, args), tree_map(detached, kwargs or {})))
        return function(*args, **(kwargs or {}))


def detached(value):
    """A copy with the same strides, expanded dimensions too."""
    if not isinstance(value, torch.Tensor):
        return value
    storage = value.detach().untyped_storage().clone()
    copy = torch.empty(0, dtype=value.dtype, device=value.device)
    return copy.set_(storage, value.storage_offset(), value.shape, value.stride())


def recorded(call, dtype=torch.float32):
    with Recorder() as recorder:
        x = X.to(dtype, copy=True).requires_grad_()
        value = CALLS[call](x)
        torch.autograd.grad(value, x, torch.ones_like(value) * 0.5)
    return recorder.calls


def operators_with_tensors():
    """The names of this package's operators that take a tensor, those of the optimizers apart."""
    names = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    for stem in sorted(name.removeprefix("fused_ml::") for name in names if name.startswith("fused_ml::")):
        packet = getattr(torch.ops.fused_ml, stem)
        schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
        takes_tensors = any("Tensor" in str(a.type) for s in schemas for a in s.arguments)
        if takes_tensors and not stem.startswith(OPTIMIZERS):
            yield stem


@pytest.mark.parametrize("call", [*CALLS])
def test_opcheck(call):
    calls = recorded(call)
    assert calls, "no operator of this package was called"
    for function, args, kwargs in calls:
        torch.library.opcheck(function, args, kwargs)


def test_every_operator_is_covered():
    seen = {function._schema.name.removeprefix("fused_ml::") for call in CALLS for function, *_ in recorded(call)}
    assert seen | {"scale_"} == set(operators_with_tensors())  # CUDA alone: test_scale.py


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("call", ["log_softmax", "softmax", "softmin", "logsigmoid ", "bce", "cross_entropy"])
def test_opcheck_of_other_dtypes(call, dtype, monkeypatch):
    monkeypatch.setitem(globals(), "BINARY", BINARY.to(dtype))
    for function, args, kwargs in recorded(call, dtype):
        torch.library.opcheck(function, args, kwargs, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("call", [*CALLS])
def test_operators_leave_their_arguments(call):
    """Only what the schema says is written (the name ends in an underscore) changes."""
    for function, args, kwargs in recorded(call):
        before = tree_map(detached, args)
        function(*args, **kwargs)
        for argument, was, described in zip(args, before, function._schema.arguments, strict=False):
            if isinstance(argument, torch.Tensor) and not (described.alias_info and described.alias_info.is_write):
                torch.testing.assert_close(argument, was, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "shape", [(6, 5), (1, 5), (6, 1), (3, 5, 4), (2, 5, 3, 4), (2, 5, 1, 4), (4, 2, 5, 3, 2)], ids=str
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_lie_where_tracing_expects_them(layout, shape):
    """Of cross entropy, whose inputs are copied in some layouts: the fake's strides are the real ones."""

    def made(name):
        return LAYOUTS[name](lambda size: torch.rand(tuple(size)), shape)

    permuted = torch.rand([shape[d] for d in reversed(range(len(shape)))]).permute(*reversed(range(len(shape))))
    for target in (torch.zeros((shape[0], *shape[2:]), dtype=torch.int64), *map(made, LAYOUTS), permuted):
        by_target = target.is_floating_point()
        for x in (made(layout), permuted):
            args = (x, target, 1, -100, True, False, torch.float32, None, 0.0, 0.0, 0.0, None, None, by_target)
            real = torch.ops.fused_ml.cross_entropy(*args)
            with FakeTensorMode() as mode:
                fake = torch.ops.fused_ml.cross_entropy(*tree_map_only(torch.Tensor, mode.from_tensor, args))
            assert [(t.shape, t.stride()) for t in fake] == [(t.shape, t.stride()) for t in real]

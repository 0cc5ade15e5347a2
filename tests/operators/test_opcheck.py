"""torch.library.opcheck over every operator with a tensor argument, on calls the package really makes."""

import operator_calls
import pytest
import torch
from operator_calls import CALLS, X
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only

from bench.layout_cases import LAYOUTS
from fused_ml.optim._base import FusedStep

# Tested with the optimizers.
OPTIMIZERS = ("multi_tensor", *(each._family.run_lists for each in FusedStep.known.values()))


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
    assert seen | {"scale_"} == set(operators_with_tensors())  # CUDA alone: kernels/test_scale.py


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("call", ["log_softmax", "softmax", "softmin", "logsigmoid ", "bce", "cross_entropy"])
def test_opcheck_of_other_dtypes(call, dtype, monkeypatch):
    monkeypatch.setattr(operator_calls, "BINARY", operator_calls.BINARY.to(dtype))
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

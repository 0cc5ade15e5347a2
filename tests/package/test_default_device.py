"""A default device other than the tensors': no result depends on it, for nothing is made without saying where."""

import ast
import contextlib
from pathlib import Path

import pytest
import torch
from operator_calls import CALLS, X
from optimizers import EXAMPLES, OPTIONS, numbers, random_params, snapshot, takes
from torch.utils._device import _device_constructors

import fused_ml.optim

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "fused_ml").rglob("*.py")), *(ROOT / "tests" / f"{n}.py" for n in ("cases", "references"))]
FLAGS = ({}, {"fused": True}, {"foreach": True})
STEPS = [(case, flags) for case, (name, _) in OPTIONS.items() for flags in FLAGS if takes(name, flags)]
STEPS += [(case, {"max_grad_norm": 0.5, **scaled}) for case in OPTIONS for scaled in ({}, {"scaled": True})]
# What torch.device, as a context, gives a device to; `as_tensor` copies even a tensor to it.
FACTORIES = {each.__name__ for each in _device_constructors()} | {"from_file", "normal"}


@contextlib.contextmanager
def set_default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


ELSEWHERE = {"context": lambda: torch.device("meta"), "default": lambda: set_default_device("meta")}


def without_device(source):
    """The lines of `source` that call one of torch's factories without saying where."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "torch"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute):
            name = function.attr if ast.unparse(function.value) in ("torch", "th") else None
        else:
            name = imported.get(getattr(function, "id", ""))
        if name in FACTORIES and "device" not in {keyword.arg for keyword in node.keywords}:
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_tensor_is_made_without_a_device(path):
    assert not list(without_device(path.read_text()))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("torch.empty(3, dtype=torch.uint8)", 1),
        ("torch.as_tensor(x)", 1),
        ("torch.tensor(1.0, device='cpu')", 0),
        ("from torch import zeros as z; z(3)", 1),
        ("from torch import zeros; zeros(3, device=d)", 0),
        ("torch.empty_like(x), x.new_zeros(3), np.zeros(3)", 0),
    ],
)
def test_the_search_finds_them(line, found):
    assert len(list(without_device(line))) == found


def step_thrice(case, around, scaled=False, **extra):
    """Everything that three steps leave behind, on the CPU."""
    name, options = OPTIONS[case]
    params = [p.requires_grad_() for p in random_params(torch.float32, [(5, 7), (), (300,), (0,)])]
    optimizer = getattr(fused_ml.optim, name)(params, **numbers(options), **extra)
    generator = torch.Generator().manual_seed(3)
    norms = []
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, device="cpu")
        if scaled:
            optimizer.grad_scale = torch.tensor(2.0, device="cpu")
            optimizer.found_inf = torch.tensor(float(len(norms) == 1), device="cpu")
        with around():
            optimizer.step()
        norms.append(optimizer.grad_norm)
    assert all(norm is None or norm.device.type == "cpu" for norm in norms)
    params, states = snapshot(optimizer)
    return [*params, *(states[key] for key in sorted(states)), *(norm for norm in norms if norm is not None)]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize(("case", "extra"), STEPS, ids=str)
def test_steps_do_not_depend_on_it(case, extra, elsewhere):
    expected = step_thrice(case, contextlib.nullcontext, **extra)
    for actual, value in zip(step_thrice(case, ELSEWHERE[elsewhere], **extra), expected, strict=True):
        assert torch.equal(actual, value)


@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("name", EXAMPLES)
def test_torchs_own_step_does_not_depend_on_it(name, elsewhere):
    results = []
    for around in (contextlib.nullcontext, ELSEWHERE[elsewhere]):
        p = torch.ones(5, dtype=torch.complex64, requires_grad=True)  # has no kernel
        optimizer = getattr(fused_ml.optim, name)([p], lr=0.1, max_grad_norm=0.5)
        for _ in range(2):
            p.grad = torch.full((5,), 1 + 2j)
            with around():
                optimizer.step()
        results.append(p.detach().clone())
    assert torch.equal(*results)


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("call", CALLS)
def test_functions_do_not_depend_on_it(call, elsewhere):
    results = []
    for around in (contextlib.nullcontext, ELSEWHERE[elsewhere]):
        x = X.clone().requires_grad_()
        torch.manual_seed(0)
        with around():
            value = CALLS[call](x)
            value.sum().backward()
        results.append((value.detach(), x.grad))
    for actual, expected in zip(*results, strict=True):
        assert torch.equal(actual, expected)

"""The namespaces mirror torch's; patching puts the fused names under torch's and takes them away again."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo  # which enable() imports; it adds names to torch of its own

import fused_ml
import fused_ml.nn
import fused_ml.nn.functional
import fused_ml.optim

NAMESPACES = {
    "nn.functional": (torch.nn.functional, fused_ml.nn.functional),
    "nn": (torch.nn, fused_ml.nn),
    "optim": (torch.optim, fused_ml.optim),
}
FUNCTIONS = (
    "cross_entropy",
    "nll_loss",
    "log_softmax",
    "softmax",
    "softmin",
    "logsigmoid",
    "binary_cross_entropy_with_logits",
)
MODULES = (
    "CrossEntropyLoss",
    "NLLLoss",
    "LogSoftmax",
    "Softmax",
    "Softmin",
    "LogSigmoid",
    "BCEWithLogitsLoss",
)
OPTIMIZERS = ("SGD", "Adam", "AdamW")
EXPECTED = {
    *(f"nn.functional.{name}" for name in FUNCTIONS),
    *(f"nn.{name}" for name in MODULES),
    *(f"optim.{name}" for name in OPTIMIZERS),
}


def under_torch(name):
    """The object that torch has under a name of fused_ops()."""
    owner, _, last = name.rpartition(".")
    return getattr(NAMESPACES[owner][0], last)


def snapshot():
    """Every name of the namespaces that patching may touch, and what it is bound to."""
    spaces = ("", ".nn", ".nn.functional", ".nn.modules", ".nn.modules.loss", ".nn.modules.activation")
    spaces += (".optim", ".optim.adam", ".optim.sgd", ".optim.adamw")
    modules = [importlib.import_module("torch" + space) for space in spaces]
    return {(module.__name__, name): id(value) for module in modules for name, value in vars(module).items()}


def test_fused_ops():
    names = fused_ml.fused_ops()
    assert set(names) >= EXPECTED
    assert len(names) == len(set(names))


@pytest.mark.parametrize("space", [*NAMESPACES])
def test_every_public_name_is_reachable_and_torchs_own_unless_fused(space):
    theirs, ours = NAMESPACES[space]
    fused = {name.removeprefix(space + ".") for name in fused_ml.fused_ops()}
    for name in dir(theirs):
        value = getattr(theirs, name)
        if name.startswith("_") or not (callable(value) or inspect.ismodule(value)):
            continue
        if (space, name) == ("nn", "functional"):
            assert getattr(ours, name) is fused_ml.nn.functional
        elif name in fused:
            assert getattr(ours, name) is not value, name
        elif not (inspect.ismodule(value) and value.__name__.startswith(theirs.__name__)):
            assert getattr(ours, name) is value, name
    assert {name for name in dir(theirs) if not name.startswith("_")} <= set(dir(ours))


@pytest.mark.parametrize("space", [*NAMESPACES])
def test_unknown_names_raise(space):
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = NAMESPACES[space][1].no_such_name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_begin_with_torchs(name):
    """The same parameters, order, kinds and defaults; what is added is keyword-only and has a default."""
    ours = list(inspect.signature(getattr(fused_ml.nn.functional, name)).parameters.values())
    if name == "logsigmoid":  # torch's is a builtin without a signature
        assert [(p.name, p.default) for p in ours] == [("input", inspect.Parameter.empty), ("out", None)]
        return
    theirs = list(inspect.signature(getattr(torch.nn.functional, name)).parameters.values())
    for a, b in zip(ours, theirs, strict=False):
        assert (a.name, a.kind, a.default) == (b.name, b.kind, b.default)
    for extra in ours[len(theirs) :]:
        assert extra.kind is inspect.Parameter.KEYWORD_ONLY
        assert extra.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name):
    function = getattr(fused_ml.nn.functional, name)
    assert function.__name__ == name
    assert len(function.__doc__ or "") > 40


MADE = {
    "CrossEntropyLoss": [{}, {"label_smoothing": 0.1}, {"reduction": "sum", "ignore_index": 3}],
    "NLLLoss": [{}, {"reduction": "none"}],
    "LogSoftmax": [{}, {"dim": 1}],
    "Softmax": [{}, {"dim": -1}],
    "Softmin": [{}, {"dim": 0}],
    "LogSigmoid": [{}],
    "BCEWithLogitsLoss": [{}, {"pos_weight": torch.ones(3)}],
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_torchs_with_another_forward(name):
    ours, theirs = getattr(fused_ml.nn, name), getattr(torch.nn, name)
    assert issubclass(ours, theirs)
    for options in MADE[name]:
        a, b = ours(**options), theirs(**options)
        assert isinstance(a, theirs)
        assert repr(a) == repr(b)
        assert a.state_dict().keys() == b.state_dict().keys()
        b.load_state_dict(a.state_dict())
    if name in ("Softmax", "LogSoftmax", "Softmin"):
        assert repr(ours(1)) == repr(theirs(1))


def test_modules_take_the_extras():
    x, target = torch.randn(4, 5), torch.tensor([0, 4, 2, 1])
    f = fused_ml.nn.functional
    loss = fused_ml.nn.CrossEntropyLoss(z_loss=0.1, softcap=3.0)
    assert torch.equal(loss(x, target), f.cross_entropy(x, target, z_loss=0.1, softcap=3.0))
    binary = fused_ml.nn.BCEWithLogitsLoss(focal_gamma=2.0, focal_alpha=0.25)
    expected = f.binary_cross_entropy_with_logits(x, x.sigmoid(), focal_gamma=2.0, focal_alpha=0.25)
    assert torch.equal(binary(x, x.sigmoid()), expected)


def assert_patched(patched):
    for name in fused_ml.fused_ops():
        assert under_torch(name).__module__.startswith("fused_ml" if patched else "torch"), name


def test_patch_torch_restores_exactly():
    before = snapshot()
    assert_patched(False)
    with fused_ml.patch_torch():
        assert_patched(True)
        assert snapshot() != before
    assert snapshot() == before


def test_patch_torch_restores_after_an_exception_and_when_nested():
    before = snapshot()
    with pytest.raises(ZeroDivisionError), fused_ml.patch_torch():
        _ = 1 / 0
    assert snapshot() == before
    with fused_ml.patch_torch():
        inside = snapshot()
        with fused_ml.patch_torch():
            assert snapshot() == inside
        assert snapshot() == inside
    assert snapshot() == before


def test_enable_and_disable():
    before = snapshot()
    fused_ml.enable()
    try:
        fused_ml.enable()
        assert_patched(True)
        with fused_ml.patch_torch():
            assert_patched(True)
        assert_patched(True)
    finally:
        fused_ml.disable()
    assert snapshot() == before
    fused_ml.disable()
    assert snapshot() == before


@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_patched_code_works_falls_back_and_raises_as_before():
    """While torch's names are ours, torch's function is still there for what is ours to hand over."""
    x, target = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 4, 2, 1])
    expected = torch.nn.functional.cross_entropy(x, target)
    with fused_ml.patch_torch():
        f = torch.nn.functional
        torch.testing.assert_close(f.cross_entropy(x, target), expected)
        torch.testing.assert_close(torch.nn.CrossEntropyLoss()(x, target), expected)
        with pytest.raises(RuntimeError):
            f.cross_entropy(x, target, weight=torch.ones(7))
        with pytest.raises(RuntimeError, match="Long"):
            torch.nn.NLLLoss()(x, target.float())
        assert f.softmin(torch.arange(3), 0, dtype=torch.float32).shape == (3,)
        batched = torch.func.vmap(lambda row: f.log_softmax(row, 0))(x.detach())
        torch.testing.assert_close(batched, torch.log_softmax(x.detach(), 1))
        model = torch.nn.Linear(5, 5)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        f.cross_entropy(model(x), target).backward()
        optimizer.step()
    assert isinstance(optimizer, torch.optim.Adam)


def test_valid_calls_without_a_kernel_warn_once():
    code = (
        "import warnings, torch, fused_ml, fused_ml.nn.functional as F\n"
        "warnings.simplefilter('always')\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    x = torch.func.vmap(lambda row: F.log_softmax(row, 0))\n"
        "    x(torch.randn(2, 3)); x(torch.randn(2, 3))\n"
        "kinds = [w.category for w in caught if issubclass(w.category, fused_ml.FusedFallbackWarning)]\n"
        "assert len(kinds) == 1, kinds\n"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def run(*arguments):
    root = Path(fused_ml.__file__).parents[1]
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True)


def test_patched_code_compiles_to_the_fused_operators():
    """In a process of its own: torch.compile looks at torch's names once."""
    program = """
import torch, fused_ml
fused_ml.enable()
seen = []
def look(graph, _):
    seen.extend(str(node.target) for node in graph.graph.nodes)
    return graph.forward
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
compiler = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(look(graph, inputs)))
loss = torch.compile(lambda x, t: torch.nn.functional.cross_entropy(x, t), fullgraph=True, backend=compiler)
loss(torch.randn(4, 5, requires_grad=True), torch.tensor([0, 4, 2, 1])).backward()
assert any(name.startswith("fused_ml.cross_entropy") for name in seen), seen
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_import_prints_nothing():
    done = run("-c", "import fused_ml, fused_ml.nn.functional, fused_ml.optim")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_python_dash_m():
    done = run("-m", "fused_ml")
    assert done.returncode == 0, done.stderr
    for expected in (
        fused_ml.__version__,
        torch.__version__,
        *fused_ml.cpu_isas_compiled(),
        "threads",
        "CUDA",
    ):
        assert expected in done.stdout


def test_the_package_is_typed():
    assert Path(fused_ml.__file__).with_name("py.typed").exists()

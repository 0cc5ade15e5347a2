"""Under patch_torch torch's classes stay what they are and become fused, wherever and whenever an object was made."""

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
import threading

import pytest
import torch
import torch._dynamo  # which enable() imports; it adds names to torch of its own
from patching import fused_operators, parameter, step
from rows import PUBLIC
from torch.nn.functional import cross_entropy as bound_before

import fused_ml
from fused_ml.nn.functional import FUSED as FUNCTIONS

MODULES, OPTIMIZERS = fused_ml.nn.FUSED, fused_ml.optim.FUSED
X = torch.linspace(-2, 2, 20).view(4, 5)
CLASSES = torch.tensor([0, 4, 2, 1])
LOSSES = {"CrossEntropyLoss": (X, CLASSES), "NLLLoss": (X, CLASSES), "BCEWithLogitsLoss": (X, X.sigmoid())}
LOSSES |= {row.module: row.operands(X) for row in PUBLIC}


def snapshot():
    """Every name of the namespaces and classes that patching may touch, and what it is bound to."""
    spaces = ("", ".nn", ".nn.functional", ".nn.modules", ".nn.modules.loss", ".nn.modules.activation")
    spaces += (".optim", ".optim.adam", ".optim.sgd", ".optim.adamw")
    owners = [importlib.import_module("torch" + space) for space in spaces]
    owners += [getattr(torch.nn, name) for name in MODULES] + [getattr(torch.optim, name) for name in OPTIMIZERS]
    names = {(owner.__name__, name): value for owner in owners for name, value in vars(owner).items()}
    codes = {name: inspect.unwrap(getattr(torch.optim, name).step).__code__ for name in OPTIMIZERS}
    return {**{key: id(value) for key, value in names.items()}, **{("step", key): code for key, code in codes.items()}}


def assert_patched(patched):
    for name in FUNCTIONS:
        assert (getattr(torch.nn.functional, name) is getattr(fused_ml.nn.functional, name)) is patched, name
    assert fused_operators(step, torch.optim.SGD([parameter()])) == ({"sgd_run"} if patched else set())


# What is replaced, for how long.


def test_only_functions_change_their_names_and_all_is_restored():
    assert_patched(False)
    before = snapshot()
    with fused_ml.patch_torch():
        assert_patched(True)
        within = snapshot()
    assert snapshot() == before
    changed = {key for key in before if within[key] != before[key]}
    steps = {("step", name) for name in OPTIMIZERS}
    assert changed == {("torch.nn.functional", name) for name in FUNCTIONS} | steps
    assert before.keys() == within.keys()
    assert_patched(False)


def test_restores_after_an_exception_and_when_nested():
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

    @fused_ml.patch_torch()
    def patched():
        return snapshot()

    assert patched() == inside
    assert snapshot() == before


def test_nothing_stays_of_a_patch_that_failed(monkeypatch):
    before = snapshot()
    torchs = torch.nn.functional.softmin

    def fail():
        assert torch.nn.functional.softmin is not torchs
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fused_ml.optim._stand_in, "put_in_place", fail)
        for come_in in (fused_ml.enable, fused_ml.patch_torch().__enter__):
            with pytest.raises(KeyboardInterrupt):
                come_in()
            assert snapshot() == before
    fused_ml.disable()
    with fused_ml.patch_torch():
        assert_patched(True)
    assert snapshot() == before


def test_enable_and_disable():
    before = snapshot()
    fused_ml.disable()
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


def test_disable_does_not_end_somebodys_block():
    before = snapshot()
    with fused_ml.patch_torch():
        fused_ml.disable()
        assert_patched(True)
        fused_ml.enable()
        fused_ml.disable()
        assert_patched(True)
    assert snapshot() == before
    with fused_ml.patch_torch():
        fused_ml.enable()
    assert_patched(True)
    fused_ml.disable()
    assert snapshot() == before


def test_a_thread_keeps_the_patch_when_another_leaves():
    before, seen = snapshot(), []
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first():
        with fused_ml.patch_torch():
            first_in.set()
            assert second_in.wait(10)
        first_out.set()

    def second():
        assert first_in.wait(10)
        with fused_ml.patch_torch():
            second_in.set()
            assert first_out.wait(10)
            seen.append(torch.nn.functional.cross_entropy is fused_ml.nn.functional.cross_entropy)
            seen.append(fused_operators(step, torch.optim.SGD([parameter()])) == {"sgd_run"})

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [True, True]
    assert snapshot() == before


def test_many_threads_come_and_go():
    before = snapshot()

    def come_and_go():
        for _ in range(200):
            with fused_ml.patch_torch():
                wrong.append(1) if torch.nn.functional.softmin is not fused_ml.nn.functional.softmin else None

    wrong: list[int] = []
    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert snapshot() == before


def test_a_function_bound_by_its_name_stays_what_it_was():
    with fused_ml.patch_torch():
        from torch.nn.functional import cross_entropy as bound_within

        assert not fused_operators(bound_before, X, CLASSES)
    assert fused_operators(bound_within, X, CLASSES) == {"cross_entropy"}
    torch.testing.assert_close(bound_within(X, CLASSES), bound_before(X, CLASSES))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_fused(name):
    arguments = (X, CLASSES) if name in ("cross_entropy", "nll_loss") else (X,)
    arguments = (X, X.sigmoid()) if name == "binary_cross_entropy_with_logits" else arguments
    arguments = (X, 1) if "soft" in name else arguments
    arguments = {row.name: row.operands(X) for row in PUBLIC}.get(name, arguments)
    function = getattr(torch.nn.functional, name)
    expected = function(*arguments)
    assert not fused_operators(function, *arguments)
    with fused_ml.patch_torch():
        torch.testing.assert_close(getattr(torch.nn.functional, name)(*arguments), expected)
        assert fused_operators(getattr(torch.nn.functional, name), *arguments)


@pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning")
def test_patched_code_falls_back_and_raises_as_before():
    """While torch's names are ours, torch's function is still there for what is ours to hand over."""
    with fused_ml.patch_torch():
        f = torch.nn.functional
        with pytest.raises(RuntimeError):
            f.cross_entropy(X, CLASSES, weight=torch.ones(7))
        with pytest.raises(RuntimeError, match="Long"):
            torch.nn.NLLLoss()(X, CLASSES.float())
        assert f.softmin(torch.arange(3), 0, dtype=torch.float32).shape == (3,)
        batched = torch.func.vmap(lambda row: f.log_softmax(row, 0))(X)
        torch.testing.assert_close(batched, torch.log_softmax(X, 1))


# torch's modules.


def module_cases(name):
    """Instances of torch's class and of subclasses in the ways that people write them."""
    cls = getattr(torch.nn, name)

    class Plain(cls):
        pass

    class ByName(cls):
        def __init__(self, *arguments):
            cls.__init__(self, *arguments)

        def forward(self, *arguments):
            return cls.forward(self, *arguments)

    class BySuper(cls):
        def forward(self, *arguments):
            return super().forward(*arguments)

    arguments = (1,) if "Soft" in name else ()
    return [each(*arguments) for each in (cls, Plain, ByName, BySuper)]


@pytest.mark.parametrize("name", MODULES)
def test_modules_made_before_within_and_after(name):
    cls, inputs = getattr(torch.nn, name), LOSSES.get(name, (X,))
    before = module_cases(name)
    expected = before[0](*inputs)
    with fused_ml.patch_torch():
        assert getattr(torch.nn, name) is cls
        within = module_cases(name)
        for module in before + within:
            assert isinstance(module, getattr(torch.nn, name))
            assert fused_operators(module, *inputs)
            torch.testing.assert_close(module(*inputs), expected)
        copies = [pickle.loads(pickle.dumps(before[0])), copy.deepcopy(within[0])]
    for module in before + within + module_cases(name) + copies:
        assert isinstance(module, cls)
        assert not fused_operators(module, *inputs)
        assert torch.equal(module(*inputs), expected)
    assert type(copies[0]) is type(copies[1]) is type(within[0]) is cls


def test_fused_modules_and_optimizers_are_themselves_within():
    with fused_ml.patch_torch():
        assert issubclass(fused_ml.nn.CrossEntropyLoss, torch.nn.CrossEntropyLoss)
        assert fused_operators(fused_ml.nn.CrossEntropyLoss(z_loss=0.1), X, CLASSES) == {"cross_entropy"}
        assert fused_operators(step, fused_ml.optim.SGD([parameter()], 0.1, max_grad_norm=1.0)) >= {"sgd_run"}
        for name, keywords in (("CrossEntropyLoss", {"z_loss": 0.1}), ("BCEWithLogitsLoss", {"focal_gamma": 2.0})):
            with pytest.raises(TypeError):
                getattr(torch.nn, name)(**keywords)
        with pytest.raises(TypeError):
            torch.optim.SGD([parameter()], max_grad_norm=1.0)


# Compilers.


def test_patched_code_compiles_to_the_fused_operators():
    """In a process of its own: torch.compile looks at torch's names once."""
    program = """
import torch, fused_ml
old = torch.nn.CrossEntropyLoss()
fused_ml.enable()
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
def look(graph, _):
    seen.extend(str(node.target) for node in graph.graph.nodes)
    return make_boxed_func(graph.forward)
compiler = aot_autograd(fw_compiler=look)
for loss in (lambda x, t: torch.nn.functional.cross_entropy(x, t), old, torch.nn.CrossEntropyLoss()):
    seen = []
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=compiler)
    compiled(torch.randn(4, 5, requires_grad=True), torch.tensor([0, 4, 2, 1])).backward()
    assert any(name.startswith("fused_ml.cross_entropy") for name in seen), seen
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", MODULES)
def test_scripted_modules_are_torchs(name):
    inputs = LOSSES.get(name, (X,))
    expected = torch.jit.script(module_cases(name)[0])(*inputs)
    with fused_ml.patch_torch():
        scripted = torch.jit.script(module_cases(name)[0])
        assert not fused_operators(scripted, *inputs)
        assert torch.equal(scripted(*inputs), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_functions_are_torchs():
    def function(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        f = torch.nn.functional
        return f.cross_entropy(x, target) + f.softmax(x, 1).sum() + f.logsigmoid(x).sum() + f.softmin(x, 1).max()

    expected = function(X, CLASSES)
    with fused_ml.patch_torch():
        scripted = torch.jit.script(function)
        assert not fused_operators(scripted, X, CLASSES)
    torch.testing.assert_close(scripted(X, CLASSES), expected)

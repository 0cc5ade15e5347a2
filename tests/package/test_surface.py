"""The namespaces mirror torch's, name for name."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from optimizers import EXAMPLES
from rows import PUBLIC

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
    "binary_cross_entropy_with_logits",
    *(row.name for row in PUBLIC),
)
MODULES = (
    "CrossEntropyLoss",
    "NLLLoss",
    "LogSoftmax",
    "Softmax",
    "Softmin",
    "BCEWithLogitsLoss",
    *(row.module for row in PUBLIC),
)
EXPECTED = {
    *(f"nn.functional.{name}" for name in FUNCTIONS),
    *(f"nn.{name}" for name in MODULES),
    *(f"optim.{name}" for name in EXAMPLES),
}


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


def parameters_of_torchs(name):
    try:
        return list(inspect.signature(getattr(torch.nn.functional, name)).parameters.values())
    except ValueError:  # a builtin, whose operator has a schema
        arguments = getattr(torch.ops.aten, name).default._schema.arguments
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    empty = inspect.Parameter.empty
    return [
        inspect.Parameter(
            "input" if each.name == "self" else each.name,
            kinds[each.kwarg_only],
            default=each.default_value if each.has_default_value() else empty,
        )
        for each in arguments
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_begin_with_torchs(name):
    """The same parameters, order, kinds and defaults; what is added is keyword-only and has a default."""
    ours = list(inspect.signature(getattr(fused_ml.nn.functional, name)).parameters.values())
    if name == "logsigmoid":  # torch's is a builtin without a signature
        assert [(p.name, p.default) for p in ours] == [("input", inspect.Parameter.empty), ("out", None)]
        return
    theirs = parameters_of_torchs(name)
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

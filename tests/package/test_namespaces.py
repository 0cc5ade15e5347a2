"""Every name and every path under torch.nn and torch.optim is there under ours: torch's own, or the fused one."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest
import torch

import fused_ml.optim

OURS = {  # modules of ours under torch's names
    "nn": {"", ".functional", ".modules", ".modules.activation", ".modules.loss"},
    "optim": {"", *(f".{name.lower()}" for name in fused_ml.optim.FUSED)},
}


def module_or_none(name):
    try:
        return importlib.import_module(name)
    except Exception:  # what torch's own path needs is not installed
        return None


def paths(space):
    package = importlib.import_module(f"torch.{space}")
    return ["", *(each.name.removeprefix(package.__name__) for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda _: None))]  # fmt: skip  # noqa: E501


PATHS = [(space, path) for space in OURS for path in paths(space)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("space", "path"), PATHS, ids=["".join(each) for each in PATHS])
class TestPaths:
    def test_is_torchs_module_or_ours(self, space, path):
        theirs = module_or_none(f"torch.{space}{path}")
        if theirs is None:
            return
        found = importlib.import_module(f"fused_ml.{space}{path}")
        if path in OURS[space]:
            assert found.__name__ == f"fused_ml.{space}{path}"
        else:
            assert found is theirs
            assert theirs.__spec__.name == theirs.__name__ == f"torch.{space}{path}"

    def test_has_torchs_names(self, space, path):
        if path not in OURS[space]:
            return
        theirs, found = (importlib.import_module(f"{root}.{space}{path}") for root in ("torch", "fused_ml"))
        fused = {*fused_ml.nn.FUSED, *fused_ml.nn.functional.FUSED, *fused_ml.optim.FUSED}
        for name in dir(theirs):
            if name in fused:
                assert getattr(found, name).__module__.startswith("fused_ml."), name
            elif not name.startswith("__") and f".{path}.{name}".replace("..", ".").rstrip(".") not in OURS[space]:
                assert getattr(found, name) is getattr(theirs, name), name
        assert set(dir(theirs)) <= set(dir(found))
        with pytest.raises(AttributeError, match=f"module 'fused_ml.{space}{path}' has no attribute 'nothing'"):
            found.nothing  # noqa: B018

    def test_gives_a_star_import_what_torchs_gives(self, space, path):
        if path not in OURS[space]:
            return
        theirs, found = {}, {}
        exec(f"from torch.{space}{path} import *", theirs)
        exec(f"from fused_ml.{space}{path} import *", found)
        later = {name for name, value in theirs.items() if isinstance(value, ModuleType)}  # imported since, perhaps
        more = {"CrossEntropyStats"} if path == ".functional" else set()
        assert set(found) - later == (set(theirs) | more) - later


@pytest.mark.parametrize("name", ["nn.nothing", "nn.utils.nothing", "optim.nothing", "nn.modules.nothing"])
def test_a_path_that_torch_lacks_is_not_found(name):
    with pytest.raises(ModuleNotFoundError, match=f"fused_ml.{name}"):
        importlib.import_module(f"fused_ml.{name}")


@pytest.mark.parametrize(
    "first",
    ["fused_ml.nn.utils.rnn", "fused_ml.optim.lr_scheduler", "fused_ml.nn.modules.linear", "fused_ml.nn.functional"],
)
def test_a_path_may_be_the_first_import(first):
    check = f"import {first} as m, sys; import torch; assert m.__spec__.name == m.__name__; print(m.__name__)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = first == "fused_ml.nn.functional"
    assert done.stdout.strip() == (first if ours else first.replace("fused_ml", "torch"))


def test_torchs_modules_are_pickled_and_found_by_their_own_names():
    importlib.import_module("fused_ml.nn.modules.linear")
    assert torch.nn.Linear.__module__ == "torch.nn.modules.linear"
    assert sys.modules["fused_ml.nn.modules.linear"] is sys.modules["torch.nn.modules.linear"]

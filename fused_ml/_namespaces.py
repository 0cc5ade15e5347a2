"""torch.nn and torch.optim under our names: every name and every module path that we do not have is torch's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_SPACES = {"fused_ml.nn.": "torch.nn.", "fused_ml.optim.": "torch.optim."}


def complete(name: str, ours: Iterable[str] = ()) -> None:
    """Let our module `name` have the names of torch's that it lacks, and a star import give what torch's gives.

    `ours` are the names that it adds to those.
    """
    module, torchs = sys.modules[name], importlib.import_module(name.replace("fused_ml", "torch", 1))

    def __getattr__(attribute: str) -> Any:
        try:
            return getattr(torchs, attribute)
        except AttributeError:
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}") from None

    def __dir__() -> list[str]:
        return sorted({*vars(module), *dir(torchs)})

    public = getattr(torchs, "__all__", [each for each in dir(torchs) if not each.startswith("_")])
    vars(module).update(__getattr__=__getattr__, __dir__=__dir__, __all__=[*dict.fromkeys([*public, *ours])])


def fused(name: str) -> tuple[str, ...]:
    """The names of our module `name` that stand for torch's: what of it is written in this package."""
    module, torchs = sys.modules[name], importlib.import_module(name.replace("fused_ml", "torch", 1))
    return tuple(
        sorted(
            each
            for each, value in vars(module).items()
            if str(getattr(value, "__module__", "")).startswith("fused_ml.") and hasattr(torchs, each)
        )
    )


class _Torchs(Loader):
    """Loads torch's module of another name, as the one object that it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own  # in the place of which the import system has put the other name's


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = next((space for space in _SPACES if fullname.startswith(space)), None)
        if ours is None:
            return None
        parent = fullname.rpartition(".")[0]
        if sys.modules[parent].__name__ == parent:  # a package of ours, and no alias
            spec = PathFinder.find_spec(fullname, path)
            if spec is not None and spec.origin is not None:  # a module, and no folder of stubs
                return spec
        name = _SPACES[ours] + fullname.removeprefix(ours)
        found = find_spec(name)
        if found is None:
            return None
        return ModuleSpec(fullname, _Torchs(name), is_package=found.submodule_search_locations is not None)


sys.meta_path.insert(0, _Finder())

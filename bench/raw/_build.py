"""Builds the module from csrc/testing into build/raw: with the library's own flags, and only when a source is newer."""

from __future__ import annotations

import os
import runpy
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "build" / "raw" / ("_raw" + sysconfig.get_config_var("EXT_SUFFIX"))
SOURCES = [*(ROOT / "csrc" / "testing").glob("*.cpp")]


def _stale() -> bool:
    if not MODULE.exists():
        return True
    read = [*SOURCES, *(ROOT / "csrc").rglob("*.h"), Path(__file__), ROOT / "setup.py"]
    return max(path.stat().st_mtime for path in read) > MODULE.stat().st_mtime


def build() -> None:
    """Bring the module up to date."""
    if not _stale():
        return
    import pybind11

    MODULE.parent.mkdir(parents=True, exist_ok=True)
    fresh = MODULE.with_name(f"{os.getpid()}.so")  # renamed when whole: another process may build at the same time
    command = [
        os.environ.get("CXX", "c++"), "-shared", "-fPIC", *runpy.run_path(str(ROOT / "setup.py"))["FLAGS"],
        *(f"-I{path}" for path in (ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include"))),
        *map(str, SOURCES), "-o", str(fresh), "-ldl", "-pthread", *os.environ.get("FUSED_ML_LDFLAGS", "").split(),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    fresh.replace(MODULE)


def load() -> ModuleType:
    """The module, up to date."""
    build()
    loader = ExtensionFileLoader("_raw", str(MODULE))
    module = module_from_spec(ModuleSpec("_raw", loader, origin=str(MODULE)))
    loader.exec_module(module)
    return module

"""The formulas and the shipped kernels on NumPy arrays, without torch's dispatcher, at any instruction set.

For development: tests and micro-benchmarks (``python -m bench.raw``). Not in the wheel; built from csrc/testing on the
first import.
"""

from typing import Any

from bench.raw import _build
from fused_ml import _library

_module = _build.load()
_module.open_library(str(_library.LIBRARY))


def __getattr__(name: str) -> Any:
    return getattr(_module, name)

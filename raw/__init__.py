"""The formulas and the shipped kernels on NumPy arrays, without torch's dispatcher, at any instruction set.

For development: tests and micro-benchmarks (``python -m raw``). Not in the wheel; built from csrc/raw on first import.
"""

from typing import Any

from fused_ml import _library
from raw import _build

_module = _build.load()
_module.open_library(str(_library.LIBRARY))


def __getattr__(name: str) -> Any:
    return getattr(_module, name)

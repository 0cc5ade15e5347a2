"""Loads the compiled library and chooses the CPU instruction set."""

from __future__ import annotations

import os
from pathlib import Path

import torch

ISA_LEVELS = ("baseline", "avx2", "avx512")
LIBRARY = Path(__file__).with_name("_cpu.so")


def _names(mask: int) -> tuple[str, ...]:
    return tuple(name for level, name in enumerate(ISA_LEVELS) if mask >> level & 1)


def _load() -> None:
    if not LIBRARY.exists():
        raise ImportError(
            f"fused_ml's compiled library is missing ({LIBRARY.name}, beside {__file__}). Install the package "
            "with `pip install .`, or build it in place with `python setup.py build_ext --inplace`."
        )
    torch.ops.load_library(str(LIBRARY))
    wanted = os.environ.get("FUSED_ML_ISA", "")
    if not wanted:
        return
    if wanted not in cpu_isas_supported():
        raise ImportError(
            f"FUSED_ML_ISA={wanted!r}: expected one of {', '.join(cpu_isas_supported())}, the instruction sets "
            f"that this CPU supports (compiled in: {', '.join(cpu_isas_compiled())}). Unset it to use the best."
        )
    torch.ops.fused_ml.choose_cpu_isa(ISA_LEVELS.index(wanted))


def cpu_isa() -> str:
    """The instruction set that the CPU kernels run on: ``"baseline"``, ``"avx2"`` or ``"avx512"``."""
    return ISA_LEVELS[torch.ops.fused_ml.cpu_isa()]


def cpu_isas_compiled() -> tuple[str, ...]:
    """The instruction sets that the library holds kernels for."""
    return _names(torch.ops.fused_ml.cpu_isas_compiled())


def cpu_isas_supported() -> tuple[str, ...]:
    """Those of them that this CPU can run."""
    return _names(torch.ops.fused_ml.cpu_isas_supported())


_load()

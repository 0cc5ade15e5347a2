"""Loads the compiled libraries and chooses the CPU instruction set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

ISA_LEVELS = ("baseline", "avx2", "avx512")
LIBRARY = Path(__file__).with_name("_cpu.so")
CUDA_LIBRARY = LIBRARY.with_name("_cuda.so")
CUDA_FACTS = LIBRARY.with_name("_cuda.json")


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


def _load_cuda() -> str:
    """Load the CUDA kernels. Returns "" or why there are none: the CPU package works without them."""
    if not CUDA_LIBRARY.exists():
        return (
            "this build of fused_ml has no CUDA kernels; install one that has, or build it where there is a CUDA "
            "toolkit (FUSED_ML_CUDA=1 pip install .)"
        )
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    try:
        torch.ops.load_library(str(CUDA_LIBRARY))
    except (OSError, RuntimeError) as error:
        return f"fused_ml's CUDA kernels could not be loaded: {error}"
    return ""


def cpu_isa() -> str:
    """The instruction set that the CPU kernels run on: ``"baseline"``, ``"avx2"`` or ``"avx512"``."""
    return ISA_LEVELS[torch.ops.fused_ml.cpu_isa()]


def cpu_isas_compiled() -> tuple[str, ...]:
    """The instruction sets that the library holds kernels for."""
    return _names(torch.ops.fused_ml.cpu_isas_compiled())


def cpu_isas_supported() -> tuple[str, ...]:
    """Those of them that this CPU can run."""
    return _names(torch.ops.fused_ml.cpu_isas_supported())


def empty_cache() -> int:
    """Free the memory that is kept for the next large result on the CPU; returns how many bytes that was.

    A result of 4 MiB or more (a gradient of logits, say) takes the memory of the last one of about its size, which
    need not be zeroed anew. Memory that is kept is offered to the system, which takes it when it runs short
    (``MADV_FREE``): there is no need to call this but for a process's memory to be seen to shrink. At most four such
    results are kept, and an eighth of the machine's memory; none with the environment variable ``FUSED_ML_CACHE=0``.
    `torch.cuda.empty_cache` is the like for CUDA.

    >>> import fused_ml
    >>> _ = fused_ml.empty_cache()
    >>> fused_ml.empty_cache()
    0
    """
    return torch.ops.fused_ml.empty_cache()


def _cuda_facts() -> dict[str, Any]:
    return json.loads(CUDA_FACTS.read_text()) if CUDA_FACTS.exists() and CUDA_LIBRARY.exists() else {}


def cuda_toolkit() -> str | None:
    """The version of the CUDA toolkit that compiled the CUDA kernels; None: this build has none."""
    return _cuda_facts().get("toolkit")


def cuda_architectures() -> tuple[str, ...]:
    """The compute capabilities that the CUDA kernels are compiled for, such as ``"9.0"``; ``+PTX``: and newer ones."""
    return tuple(_cuda_facts().get("architectures", ()))


def cuda_problem() -> str:
    """Why CUDA tensors have no fused kernels here, in a sentence; ``""`` where they have."""
    return _cuda_problem


_load()
_cuda_problem = _load_cuda()


def no_kernel_for(device_type: str) -> str:
    """Why no kernel reads tensors of this device."""
    return (cuda_problem() if device_type == "cuda" else "") or f"there is no kernel for {device_type} tensors"

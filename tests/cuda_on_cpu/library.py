"""The package's CUDA sources as a library of CPU operators: the same operators, taken over from the CPU kernels.

`load()` builds and loads it into this process; from then on CPU tensors go through the CUDA kernels, emulated, wherever
csrc/operators/cuda/registration.cpp has one. As a command it builds only:
`python tests/cuda_on_cpu/library.py [sanitizer]`.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.utils.cpp_extension as cpp

sys.path.insert(0, str(Path(__file__).parent))
from build import BuildError, build, toolkit_include

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
TORCH_LIBRARIES = Path(torch.__file__).parent / "lib"


def sources() -> list[Path]:
    """What the CUDA library is compiled from."""
    return [ROOT / path for path in runpy.run_path(str(ROOT / "setup.py"))["sources"]("cuda")]


def missing() -> str:
    """What the build needs and does not find, or ""."""
    try:
        toolkit_include()
    except BuildError as problem:
        return str(problem)
    return ""


def compile_library(sanitize: str | None = None) -> Path:
    """Compile what has changed; returns the library's path."""
    return build(
        sources(),
        ROOT / "build" / "cuda_on_cpu" / f"_cuda_emulated{'-' + sanitize if sanitize else ''}.so",
        sanitize,
        [str(CSRC), *cpp.include_paths()],
        [
            "-DFUSED_ML_EMULATED",
            "-DFUSED_ML_DEVICE_KEY=CPU",
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
            "-fvisibility=hidden",
        ],
        [f"-L{TORCH_LIBRARIES}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", f"-Wl,-rpath,{TORCH_LIBRARIES}"],
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the process writes to stderr: torch's C++ warns there that a kernel is replaced."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def take_over_optimizers() -> None:
    """Steps go through the CUDA library's plans, and numbers count as a GPU's: Python does not look at them."""
    from fused_ml.optim import _base, _family, _plan

    _plan.operators_for = lambda device: torch.ops.fused_ml_cuda
    _plan.on_host = _base.on_host = _family.on_host = lambda number: not isinstance(number, torch.Tensor)


def load(sanitize: str | None = None) -> Path:
    """Build, and put the emulated kernels in place of the CPU's; returns the library's path."""
    import fused_ml  # noqa: F401  (the schemas, and what is taken over)

    path = compile_library(sanitize)
    with quiet():
        torch.ops.load_library(str(path))
    take_over_optimizers()
    return path


if __name__ == "__main__":
    print(compile_library(*sys.argv[1:]))

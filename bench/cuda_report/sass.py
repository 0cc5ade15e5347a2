"""Compiles the CUDA frames for one architecture at a time and reads what came out: registers, stack, access widths."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "csrc" / "frames" / "cuda").rglob("*.cu"))
FLAGS = ("-O3", "-std=c++20", "--expt-relaxed-constexpr", "-Xfatbin=-compress-all", "--compress-mode=size")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/", re.MULTILINE)
INSTRUCTION_BYTES = 16
ACCESS = re.compile(r"\b(LDG|STG|LDL|STL)\.?([\w.]*)")


@dataclass
class Kernel:
    """One kernel for one architecture."""

    name: str
    registers: int
    shared: int  # static, bytes
    stack: int  # bytes a thread: what registers were spilled to, and local arrays
    loads: set[int] = field(default_factory=set)  # widths in bytes, of global memory
    stores: set[int] = field(default_factory=set)
    local: int = 0  # accesses of local memory
    code: int = 0  # bytes


def tool(name: str) -> str:
    """A tool's path: of the toolkit, or of its package beside this Python."""
    packaged = Path(sys.prefix).glob(f"lib/python*/site-packages/nvidia/*/bin/{name}")
    path = shutil.which(name) or next((str(p) for p in packaged), None)
    if path is None:
        raise SystemExit(f"cuda_report: {name} not found: pip install nvidia-cuda-{name}")
    return path


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")


def compiled(source: Path, architecture: str) -> Path:
    """A source's code as it comes into the library, compressed; made anew when a header or source is newer."""
    fatbin = ROOT / "build" / "cuda_report" / f"{source.stem}.sm_{architecture}.fatbin"
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*.*") if path.is_file())
    if not fatbin.exists() or fatbin.stat().st_mtime < newest:
        fatbin.parent.mkdir(parents=True, exist_ok=True)
        compiler = nvcc()
        if compiler is None:
            raise SystemExit("cuda_report: no nvcc: put a CUDA toolkit's on the PATH, or set CUDA_HOME")
        target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
        command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", target, "-fatbin", "-o", str(fatbin), str(source)]
        subprocess.run(command, check=True)
    return fatbin


def _dump(*arguments: str) -> str:
    # cuobjdump calls nvdisasm
    path = f"{Path(tool('nvdisasm')).parent}{os.pathsep}{os.environ['PATH']}"
    command = [tool("cuobjdump"), *arguments]
    return subprocess.run(command, check=True, text=True, capture_output=True, env={**os.environ, "PATH": path}).stdout


def width(modifiers: str) -> int:
    """Bytes that one thread moves: 4 unless the instruction says otherwise."""
    for mark, size in (("128", 16), ("64", 8), ("16", 2), ("8", 1)):
        if re.search(rf"(^|\.)[USB]?{mark}(\.|$)", modifiers):
            return size
    return 4


def read(fatbin: Path) -> list[Kernel]:
    usage = _dump("-res-usage", str(fatbin))
    found = {}
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    for name, registers, stack, shared, local in re.findall(pattern, usage):
        found[name] = Kernel(name, int(registers), int(shared), int(stack) + int(local))
    for part in re.split(r"\n\s+Function : ", _dump("-sass", str(fatbin)))[1:]:
        kernel = found[part.split(None, 1)[0]]
        kernel.code = INSTRUCTION_BYTES * len(INSTRUCTION.findall(part))
        for operation, modifiers in ACCESS.findall(part):
            if operation in ("LDL", "STL"):
                kernel.local += 1
            else:
                (kernel.loads if operation == "LDG" else kernel.stores).add(width(modifiers))
    return list(found.values())


def short_names(names: list[str]) -> dict[str, str]:
    """Mangled names as a reader wants them."""
    text = subprocess.run(["c++filt"], input="\n".join(names), text=True, capture_output=True, check=True).stdout
    result = {}
    for mangled, name in zip(names, text.splitlines(), strict=True):
        name = re.sub(r"^void ", "", name)
        name = name[: _end_of_name(name)]
        name = re.sub(r"fused_ml::(cuda|formulas)::|\(anonymous namespace\)::", "", name)
        result[mangled] = re.sub(VARIANT, _variant, name)
    return result


VARIANT = r"Variant<(\w+)<(\w+)>, \w+, (\d), (\w+), (\w+), (\w+), (\w+)> ?"


def _variant(match: re.Match[str]) -> str:
    """A variant of a pointwise kernel (csrc/frames/cuda/pointwise/frame.cuh), in words."""
    formula, arithmetic, run, *flags = match.groups()
    mixed, even, value, gradient = (flag == "true" for flag in flags)
    results = "value" if not gradient else "all" if value else "gradient"
    return f"{formula}, {arithmetic}{' mixed' * mixed}, {run}, {'even, ' * even}{results}"


def _end_of_name(name: str) -> int:
    """Where the parameters begin: the first parenthesis outside template arguments and namespaces."""
    depth = 0
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and not name[i:].startswith("(anonymous"):
            return i
    return len(name)


def kernels(architecture: str) -> list[Kernel]:
    """All kernels, with short names."""
    found = []
    for source in SOURCES:
        found += read(compiled(source, architecture))
    names = short_names([kernel.name for kernel in found])
    for kernel in found:
        kernel.name = names[kernel.name]
    return sorted(found, key=lambda kernel: kernel.name)


def library_bytes(architecture: str) -> int:
    """What an architecture adds to the library."""
    return sum(compiled(source, architecture).stat().st_size for source in SOURCES)

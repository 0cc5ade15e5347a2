"""Build of the compiled libraries: PyTorch's stable ABI and Python's limited API, so one wheel serves every Python.

`_cpu` holds every schema and is always built; `_cuda` is built where there is a CUDA toolkit and torch has CUDA, or on
request whatever torch is here.
`_gather` is the only one that knows Python; without it (a free-threaded Python) the package takes a longer way.
The variables that steer it are listed in docs/building.md.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch
import torch.utils.cpp_extension as cpp
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10, the oldest that the libraries run on
FLAGS = [
    # Of -O3 what the loops need. All of it takes twice as long to compile and makes the library a quarter larger, at
    # the same speed: docs/cpu-kernels.md.
    "-O2",
    "-ftree-vectorize",
    "-fvect-cost-model=dynamic",
    "-fpeel-loops",
    "--param=max-inline-insns-auto=30",
    "--param=early-inlining-insns=14",
    "--param=inline-min-speedup=15",
    "-std=c++20",
    "-fopenmp-simd",  # vector pragmas only: threads are torch's
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-tree-loop-distribute-patterns",  # no calls, and no `rep stos`, for loops over a step's 16 lanes
    "-fvisibility=hidden",
    "-g0",  # Python's own flags ask for debug information: four fifths of the library
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",  # vectors are passed between inlined functions only
    *os.environ.get("FUSED_ML_CXXFLAGS", "").split(),
]
MORE_LINK = os.environ.get("FUSED_ML_LDFLAGS", "").split()
LINK = [f"-L{Path(cpp.__file__).parents[1] / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", *MORE_LINK]
CSRC = Path(__file__).resolve().parent / "csrc"
ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")  # and PTX of the last, for what comes after


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def find_toolkit() -> tuple[Path | None, str]:
    """The CUDA toolkit's folder, or why there is none."""
    wanted = "1" if os.environ.get("FORCE_CUDA") == "1" else os.environ.get("FUSED_ML_CUDA") or "auto"
    if wanted not in ("auto", "1", "0"):
        raise SystemExit(f"fused_ml: FUSED_ML_CUDA={wanted}: expected auto, 1 or 0")
    if wanted == "0":
        return None, "FUSED_ML_CUDA=0"
    if wanted == "auto" and torch.version.cuda is None and not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return None, f"torch {torch.__version__} has no CUDA; FUSED_ML_CUDA=1 builds them all the same"
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if not home and (nvcc := shutil.which("nvcc")):  # perhaps a script: the compiler itself knows where it lies
        top = re.search(r"TOP=(.*)", output(nvcc, "--dryrun", "-x", "cu", os.devnull))
        home = top and os.path.realpath(top[1].strip())
    root = Path(home or "/usr/local/cuda")
    if (root / "bin" / "nvcc").exists():
        return root, ""
    reason = f"no CUDA toolkit found: no nvcc in {root / 'bin'}; set CUDA_HOME, or put nvcc on the PATH"
    if wanted == "1":
        raise SystemExit(f"fused_ml: CUDA kernels are required (FUSED_ML_CUDA or FORCE_CUDA), but {reason}")
    return None, reason


def sources(device: str) -> list[str]:
    """Of the library of cpu or cuda. Both have the operators, each for its own device; the CPU one has the schemas."""
    paths = [
        p for room in ("frames", "operators") for p in (CSRC / room / device).rglob("*") if p.suffix in (".cpp", ".cu")
    ]
    paths += [p for p in (CSRC / "operators").glob("*.cpp") if device == "cpu" or p.stem != "schemas"]
    return sorted(os.path.relpath(p, CSRC.parent) for p in paths)


def library(name: str, sources: list, flags: dict, link: list, include: list) -> Extension:
    return Extension(f"fused_ml.{name}", sources, language="c++", py_limited_api=True, extra_compile_args=flags,
                     extra_link_args=[*LINK, *link], include_dirs=[str(CSRC), *include])  # fmt: skip


def cuda_library(root: Path) -> tuple[Extension, dict]:
    """The CUDA library, and what it is built with and for."""
    nvcc = str(root / "bin" / "nvcc")
    known = output(nvcc, "--list-gpu-arch").split()
    toolkit = re.search(r"release ([\d.]+)", output(nvcc, "--version"))[1]
    default = ";".join(a for a in ARCHITECTURES if "compute_" + a.replace(".", "") in known) + "+PTX"
    wanted = os.environ["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST") or default
    cpp.CUDA_HOME = str(root)  # None where torch itself has no CUDA
    cpp._check_cuda_version = lambda *_: None  # torch may have another CUDA, or none: no header of that part is used
    folders = (root / d for d in ("lib64", "lib", "targets/x86_64-linux/lib"))
    runtime = next((d for d in folders if (d / "libcudart_static.a").exists()), root)
    # Not one flag of nvcc may contain "arch": torch would leave out those of TORCH_CUDA_ARCH_LIST.
    small = "--compress-mode=size" if int(toolkit.split(".")[0]) >= 13 else "-Xfatbin=-compress-all"
    threads = [f"--threads={n}"] if (n := os.environ.get("NVCC_THREADS")) else []
    flags = ["-O3", "-std=c++20", "-Xcompiler=-fvisibility=hidden", small, *threads, TARGET, "-DUSE_CUDA"]
    # The runtime's symbols stay inside: torch brings a libcudart of its own, perhaps of another version.
    link = [f"-L{runtime}", "-lcudart_static", "-lrt", "-ldl", "-lpthread", "-Wl,--exclude-libs,ALL"]
    extension = library("_cuda", sources("cuda"), {"cxx": [*FLAGS, TARGET, "-DUSE_CUDA"], "nvcc": flags}, link,
                        [*cpp.include_paths(), str(root / "include")])  # fmt: skip
    return extension, {"toolkit": toolkit, "architectures": re.split("[; ]+", wanted)}


def python_module() -> Extension:
    return Extension("fused_ml._gather", ["csrc/python/gather.cpp"], language="c++", py_limited_api=True,
                     extra_compile_args={"cxx": FLAGS}, extra_link_args=MORE_LINK,
                     include_dirs=[str(CSRC), *cpp.include_paths()])  # fmt: skip


def say(line: str) -> None:
    """Print it, and show it on the terminal where pip keeps what a build prints to itself."""
    print(line, flush=True)
    if not sys.stdout.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(line + "\n")


class BuildLibraries(cpp.BuildExtension):
    """Says what is built; keeps the libraries' objects apart; writes the CUDA library's facts beside it."""

    summary = ""
    facts: dict = {}

    def run(self) -> None:
        say(self.summary)
        if self.editable_mode:  # setuptools would compile all anew, into a folder that it throws away
            self.build_temp = f"build/temp.{self.plat_name}-{sys.implementation.cache_tag}"
        super().run()
        library = Path(self.get_ext_fullpath("fused_ml._cuda"))
        if not self.facts:
            library.unlink(missing_ok=True)  # of an earlier build
        library.with_name("_cuda.json").write_text(json.dumps(self.facts) + "\n")

    def get_ext_filename(self, fullname: str) -> str:
        name = super().get_ext_filename(fullname)  # a Python without the limited API must not find the module
        return name.replace("_gather.so", "_gather.abi3.so")

    def build_extension(self, ext: Extension) -> None:
        base, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        newest = max(path.stat().st_mtime for path in Path("csrc").rglob("*.*h"))
        for made in Path(self.build_temp).rglob("*.o"):  # with a CPU-only torch nobody knows which headers nvcc read
            if ext.name.endswith("_cuda") and made.stat().st_mtime < newest:
                made.unlink()
        super().build_extension(ext)
        self.build_temp = base


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>: the libraries are bound to the platform, not to a Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


if __name__ == "__main__":  # bench/raw/_build.py reads FLAGS
    modules = [library("_cpu", sources("cpu"), {"cxx": [*FLAGS, TARGET]}, [], cpp.include_paths()), python_module()]
    root, kernels = find_toolkit()
    if root:
        cuda, facts = cuda_library(root)
        modules.append(cuda)
        BuildLibraries.facts = facts
        kernels = f"CUDA {facts['toolkit']} kernels for {' '.join(facts['architectures'])}"
    else:
        kernels = f"no CUDA kernels ({kernels})"
    levels = "baseline, avx2, avx512" if platform.machine() == "x86_64" else "baseline"
    BuildLibraries.summary = f"fused_ml: CPU kernels ({levels}); {kernels}"
    setup(
        ext_modules=modules,
        cmdclass={
            "build_ext": BuildLibraries.with_options(no_python_abi_suffix=True),
            "bdist_wheel": PlatformWheel,
        },
    )

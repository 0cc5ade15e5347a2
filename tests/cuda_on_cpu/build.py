"""Compiles CUDA sources, as they are, into a shared library that runs them on the CPU.

As a module: `build(sources, output, sanitize=None, include_dirs=(), flags=(), link=())`. As a command:
`python build.py --output lib.so [--sanitize address|thread|trace] [--include DIR] [--flag=F] [--link=F] a.cu b.cpp`.
What is up to date is not compiled again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
JOBS = 2

# Type punning through pointers is common in CUDA, and nvcc compiles it as it is meant.
COMMON = ["-std=c++20", "-g1", "-fPIC", "-fno-strict-aliasing", "-fno-gnu-unique", "-Wall", "-Wno-unknown-pragmas"]
ALIGNMENT = ["-fsanitize=alignment", "-fno-sanitize-recover=alignment"]
# Without optimization every access of the source is one access of the program, of the same width.
COUNTED = ["-O0", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]


@dataclass(frozen=True)
class Mode:
    """How the sources are instrumented; `define` tells the runtime, which never is."""

    flags: Sequence[str]
    link: Sequence[str] = ()
    define: Sequence[str] = ()


MODES = {
    None: Mode(["-O2", *ALIGNMENT]),
    "address": Mode(
        [
            "-Og",  # compiled in three quarters of the time that -O1 takes
            "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined",
            "-fno-sanitize=vptr",
            "-fno-sanitize-recover=all",
        ],
        ["-fsanitize=address,undefined"],
        ["-DCUDA_ON_CPU_ADDRESS"],
    ),
    "thread": Mode(
        ["-O1", "-fno-omit-frame-pointer", "-fsanitize=thread", *ALIGNMENT],
        ["-fsanitize=thread"],
        ["-DCUDA_ON_CPU_THREAD"],
    ),
    "trace": Mode([*COUNTED, *ALIGNMENT], [], ["-DCUDA_ON_CPU_TRACE"]),
}


class BuildError(RuntimeError):
    """A compiler or linker that failed, with what it said."""


def compiler() -> str:
    """The C++ compiler: $CXX, else g++."""
    return os.environ.get("CXX", "g++")


def toolkit_include() -> Path:
    """The CUDA toolkit's headers: $CUDA_HOME/include, else beside nvcc, else /usr/local/cuda/include."""
    nvcc = shutil.which("nvcc")
    beside = Path(nvcc).resolve().parents[1] if nvcc else None
    for home in (os.environ.get("CUDA_HOME"), beside, "/usr/local/cuda"):
        if home and (Path(home) / "include/cuda_runtime_api.h").exists():
            return Path(home) / "include"
    raise BuildError("the CUDA toolkit's headers were not found: set CUDA_HOME")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _dependencies(rule: Path) -> list[Path]:
    """The files that a make rule written by -MMD names."""
    text = rule.read_text().replace("\\\n", " ")
    return [Path(name) for name in text.split(":", 1)[1].split()]


def _up_to_date(product: Path, inputs: Iterable[Path]) -> bool:
    if not product.exists():
        return False
    made = product.stat().st_mtime_ns
    return all(path.exists() and path.stat().st_mtime_ns <= made for path in inputs)


def _object(source: Path, objects: Path, command: Sequence[str]) -> Path:
    """Compiles one source unless its object is newer than all that it was made from."""
    key = hashlib.sha256("\0".join([str(source), *command]).encode()).hexdigest()[:16]
    product = objects / f"{source.stem}-{key}.o"
    rule = product.with_suffix(".d")
    if rule.exists() and _up_to_date(product, _dependencies(rule)):
        return product
    partial = product.with_suffix(".partial")
    _run([*command, "-MD", "-MF", str(rule), "-x", "c++", "-c", str(source), "-o", str(partial)])
    partial.replace(product)
    return product


def _commands(sanitize: str | None, include_dirs: Sequence[Path], flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command lines for the given sources and for the runtime."""
    mode = MODES[sanitize]
    headers = [f"-I{HERE / 'include'}", *(f"-I{directory}" for directory in include_dirs)]
    toolkit = ["-isystem", str(toolkit_include())]
    base = [compiler(), *COMMON]
    ours = [flag for flag in flags if flag.startswith("-DCUDA_ON_CPU_")]
    return (
        [*base, *mode.flags, *headers, *toolkit, *flags],
        [*base, "-O2", "-fvisibility=hidden", *mode.define, *ours, f"-I{HERE / 'include'}", *toolkit],
    )


def build(
    sources: Sequence[str | Path],
    output: str | Path,
    sanitize: str | None = None,
    include_dirs: Sequence[str | Path] = (),
    flags: Sequence[str] = (),
    link: Sequence[str] = (),
) -> Path:
    """Compiles .cu and .cpp sources and the emulator's runtime into the shared library `output`; returns its path.

    `sanitize` is None, "address" (with the undefined-behaviour checks), "thread" or "trace" (counts bytes).
    `flags` go to the compilation of the sources (a -DCUDA_ON_CPU_... to the runtime's, too), `link` to the linker.
    """
    output = Path(output).resolve()
    objects = output.with_suffix(".objects")
    objects.mkdir(parents=True, exist_ok=True)
    ours, runtime = _commands(sanitize, [Path(d).resolve() for d in include_dirs], flags)
    work = [(Path(source).resolve(), objects, ours) for source in sources]
    work += [(source, objects, runtime) for source in sorted((HERE / "runtime").glob("*.cpp"))]
    with open(objects / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ThreadPoolExecutor(JOBS) as pool:
            made = list(pool.map(lambda job: _object(*job), work))
        command = [
            compiler(),
            "-shared",
            "-Wl,-Bsymbolic",
            "-Wl,-z,defs",
            *map(str, made),
            *MODES[sanitize].link,
            *link,
        ]
        stamp = objects / "linked"
        if not (_up_to_date(output, made) and stamp.exists() and stamp.read_text() == "\n".join(command)):
            partial = objects / "library.partial"
            _run([*command, "-o", str(partial)])
            partial.replace(output)
            stamp.write_text("\n".join(command))
    return output


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--sanitize", choices=[name for name in MODES if name])
    parser.add_argument("--include", action="append", default=[], metavar="DIR")
    parser.add_argument("--flag", action="append", default=[], help="for the compiler")
    parser.add_argument("--link", action="append", default=[], help="for the linker")
    given = parser.parse_args()
    print(build(given.sources, given.output, given.sanitize, given.include, given.flag, given.link))


if __name__ == "__main__":
    main()

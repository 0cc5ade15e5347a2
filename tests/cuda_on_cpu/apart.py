"""Runs Python in a process apart, set up for a library that was built with a sanitizer.

What the emulator refuses ends in abort(), and the sanitizers' libraries must be there from the start: both need
a process of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from .build import compiler

# Leaks are Python's own business here.
OPTIONS = {
    "address": {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "thread": {"TSAN_OPTIONS": "exitcode=66 report_signal_unsafe=0"},
}
LIBRARIES = {"address": ["libasan.so", "libubsan.so", "libstdc++.so"], "thread": ["libtsan.so", "libstdc++.so"]}


def missing_tool(sanitize: str | None) -> str | None:
    """What this machine lacks to run such a library, or None."""
    for name in LIBRARIES.get(sanitize, []):
        if not os.path.isabs(_library(name)):
            return f"{name} is not installed"
    if sanitize == "thread" and shutil.which("setarch") is None:
        return "setarch is not installed"
    return None


def _library(name: str) -> str:
    """The path of a library of the compiler's, or the bare name if it has none."""
    command = [compiler(), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return os.path.realpath(path) if os.path.isabs(path) else name


def run_python(
    arguments: Sequence[str],
    sanitize: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the arguments; `sanitize` is that of the library it is going to load."""
    command = [sys.executable, *arguments]
    variables = {**os.environ, **OPTIONS.get(sanitize, {})}
    if sanitize in LIBRARIES:
        variables["LD_PRELOAD"] = " ".join(_library(name) for name in LIBRARIES[sanitize])
    if sanitize == "thread":  # does not start where the system places addresses at random too widely
        command = ["setarch", "-R", *command]
    variables.update(environment or {})
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=timeout)

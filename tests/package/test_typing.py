"""A user's script is right to mypy and to pyright, and what is wrong in it is an error to both."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "tests/package/typing/user.py"
CHECKERS = {
    "mypy": ["--strict", "--follow-imports=silent", "--config-file=", "--cache-dir=.mypy_cache/user"],
    "pyright": ["--project", "tests/package/typing/pyrightconfig.json", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_users_script(checker):
    # requirements-dev.txt has both, and so has CI. On a GPU machine without network there are neither.
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed: pip install -r requirements-dev.txt")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], *([SCRIPT] if checker == "mypy" else [])]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_runs():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _runnable()], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def _runnable():
    """The script without the lines that are wrong."""
    lines = (ROOT / SCRIPT).read_text().splitlines()
    return "\n".join(line for line in lines if "type: ignore" not in line)

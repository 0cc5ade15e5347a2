"""The emulator's build, and that its test kernels are CUDA: nvcc compiles them, too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu.build import build

HERE = Path(__file__).parents[1] / "cuda_on_cpu"
KERNELS = HERE / "kernels"


def test_building_again_compiles_nothing(tmp_path):
    for name in ("speed.cu", "common.cuh"):
        shutil.copy(KERNELS / name, tmp_path)
    arguments = ([tmp_path / "speed.cu"], tmp_path / "speed.so")

    def made():
        path = build(*arguments)
        return {file: file.stat().st_mtime_ns for file in [path, *path.with_suffix(".objects").glob("*.o")]}

    first = made()
    assert made() == first
    (tmp_path / "common.cuh").touch()
    changed = {file.name.split("-")[0] for file, time in made().items() if first[file] != time}
    assert changed == {"speed.so", "speed"}


def test_plain_shared_variables_do_not_compile(tmp_path):
    (tmp_path / "a.cu").write_text("#include <cuda_runtime.h>\n__global__ void f() { __shared__ float x; x = 0; }\n")
    command = [sys.executable, HERE / "build.py", "--output", tmp_path / "a.so", tmp_path / "a.cu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "declare shared memory with FUSED_ML_SHARED" in done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the PATH")
@pytest.mark.parametrize("name", ["features", "bugs", "speed"])
def test_the_same_sources_compile_with_nvcc(name, tmp_path):
    command = ["nvcc", "-std=c++20", "-arch=sm_80", "-cubin", "-o", tmp_path / "out", KERNELS / f"{name}.cu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

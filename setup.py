"""Build of the one compiled library: PyTorch's stable ABI, no Python C-API, so one wheel serves every Python."""

import os
from pathlib import Path

import torch.utils.cpp_extension as cpp
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

TARGET = "-DTORCH_TARGET_VERSION=0x020a000000000000"  # torch 2.10, the oldest that the library runs on
FLAGS = [
    "-O3",
    "-std=c++20",
    "-fopenmp-simd",  # vector pragmas only: threads are torch's
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",  # vectors are passed between inlined functions only
    *os.environ.get("FUSED_ML_CXXFLAGS", "").split(),
]
TORCH_LIBRARIES = str(Path(cpp.__file__).parents[1] / "lib")


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>: the library is bound to the platform, not to a Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


cpu = Extension(
    "fused_ml._cpu",
    sorted(str(path) for folder in ("csrc", "csrc/cpu") for path in Path(folder).glob("*.cpp")),
    include_dirs=cpp.include_paths(),
    extra_compile_args={"cxx": [*FLAGS, TARGET]},
    extra_link_args=[
        "-L" + TORCH_LIBRARIES, "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu",
        *os.environ.get("FUSED_ML_LDFLAGS", "").split(),
    ],
    language="c++",
    py_limited_api=True,
)  # fmt: skip

if __name__ == "__main__":  # bench/raw/_build.py reads FLAGS
    setup(
        ext_modules=[cpu],
        cmdclass={
            "build_ext": cpp.BuildExtension.with_options(no_python_abi_suffix=True),
            "bdist_wheel": PlatformWheel,
        },
    )

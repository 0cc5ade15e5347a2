"""Options and fixtures shared by all tests."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

# Tests ask for more threads than there are CPUs: what waits must not keep the others from running. Read by the OpenMP
# library as torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import torch

import fused_ml

sys.path.append(str(Path(__file__).parents[1]))  # for `bench.raw`; last, so that an installed fused_ml comes first

# torch.compile keeps what it has made between processes, by the operators called and not by what our Functions do. Each
# run of the tests makes its own.
_compiled = tempfile.TemporaryDirectory(prefix="fused_ml_tests_", ignore_cleanup_errors=True)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _compiled.name

try:
    import hypothesis
except ImportError:  # a machine with a GPU and no network may lack it: operators/test_hypothesis.py is skipped
    pass
else:
    hypothesis.settings.register_profile(
        "fused_ml",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=60,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
    )
    hypothesis.settings.load_profile("fused_ml")

EMULATED = "cuda-emulated"  # CPU tensors, and the CUDA sources compiled for the CPU in place of its kernels


def pytest_addoption(parser):
    help = f"the device that the tables of cases run on: cpu, cuda or {EMULATED}[:address|thread]"
    parser.addoption("--device", default="cpu", help=help)
    parser.addoption("--exhaustive", action="store_true", help="every float32 through every formula at every level")


def pytest_configure(config):
    name, _, sanitize = config.getoption("--device").partition(":")
    if name == EMULATED:
        from cuda_on_cpu import library

        if problem := library.missing():
            pytest.exit(f"the CUDA sources were not tested: {problem}", returncode=0)
        library.load(sanitize or None)
    config.addinivalue_line("markers", "slow: takes several seconds; part of the default run")


def pytest_report_header(config):
    return (
        f"fused_ml: instruction set {fused_ml.cpu_isa()} of {', '.join(fused_ml.cpu_isas_supported())}; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; device {config.getoption('--device')}"
    )


@pytest.fixture(scope="session")
def device(request):
    name = request.config.getoption("--device")
    return torch.device("cpu" if name.startswith(EMULATED) else name)


@pytest.fixture(scope="session")
def emulated(request):
    """Whether CPU tensors run through the CUDA sources."""
    return request.config.getoption("--device").startswith(EMULATED)


@pytest.fixture(scope="session")
def on_cuda(emulated, device):
    """Whether the CUDA sources run: there a target out of range gives NaN, since nothing waits for the device."""
    return emulated or device.type == "cuda"


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(20240607)


@pytest.fixture
def threads():
    """Sets torch's thread count; the old one is put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

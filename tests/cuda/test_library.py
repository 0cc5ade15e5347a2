"""The CUDA library is loaded where torch has CUDA; where it is not, the CPU package works and can say why."""

import pytest
import torch

import fused_ml
from fused_ml import _library


@pytest.fixture
def torch_with_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_this_process_knows_where_it_stands():
    built = _library.CUDA_LIBRARY.exists()
    assert (fused_ml.cuda_toolkit() is not None) == built
    assert bool(fused_ml.cuda_architectures()) == built
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key("fused_ml::logsigmoid", "CUDA")
    assert has_kernel == (not fused_ml.cuda_problem())
    if torch.version.cuda is None:
        assert fused_ml.cuda_problem()


def test_a_build_without_cuda_says_how_to_get_it(monkeypatch, tmp_path, torch_with_cuda):
    monkeypatch.setattr(_library, "CUDA_LIBRARY", tmp_path / "_cuda.so")
    problem = _library._load_cuda()
    assert "has no CUDA kernels" in problem
    assert "FUSED_ML_CUDA=1 pip install ." in problem


def test_a_torch_without_cuda_does_not_load_it(monkeypatch, tmp_path):
    library = tmp_path / "_cuda.so"
    library.write_bytes(b"not looked at")
    monkeypatch.setattr(_library, "CUDA_LIBRARY", library)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert _library._load_cuda() == "this torch was built without CUDA"


def test_a_library_that_does_not_load_is_remembered(monkeypatch, tmp_path, torch_with_cuda):
    library = tmp_path / "_cuda.so"
    library.write_bytes(b"no library")
    monkeypatch.setattr(_library, "CUDA_LIBRARY", library)
    assert "could not be loaded" in _library._load_cuda()


def test_the_fallback_for_cuda_tensors_gives_the_reason(monkeypatch):
    monkeypatch.setattr(_library, "_cuda_problem", "this build of fused_ml has no CUDA kernels")
    assert _library.no_kernel_for("cuda") == "this build of fused_ml has no CUDA kernels"
    assert _library.no_kernel_for("meta") == "there is no kernel for meta tensors"
    monkeypatch.setattr(_library, "_cuda_problem", "")
    assert _library.no_kernel_for("cuda") == "there is no kernel for cuda tensors"

"""scale_, which multiplies a saved gradient by the upstream one without reading it on the host: CUDA alone."""

import pytest
import torch
from cases import FLOATS, name_of


@pytest.fixture(autouse=True)
def needs_cuda(on_cuda):
    if not on_cuda:
        pytest.skip("there is no such kernel for the CPU")


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("factor_dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("offset", [0, 1, 3])
@pytest.mark.parametrize("numel", [0, 1, 7, 100, 5000])
def test_values(numel, offset, factor_dtype, dtype, device):
    buffer = torch.randn(numel + offset + 5, device=device).to(dtype)
    expected, factor = buffer.clone(), torch.tensor(0.625, dtype=factor_dtype, device=device)
    expected[offset : offset + numel] *= factor
    torch.ops.fused_ml.scale_(buffer[offset : offset + numel], factor)
    assert torch.equal(buffer, expected)


def test_one_touches_nothing(device):
    x = torch.full((50,), -1, dtype=torch.int32, device=device).view(torch.float32)  # NaNs with a payload
    torch.ops.fused_ml.scale_(x, torch.ones((), device=device))
    assert (x.view(torch.int32) == -1).all()


def test_layouts(device):
    x = torch.randn(3, 4, 5, 6, device=device).to(memory_format=torch.channels_last)
    expected = x * 3
    torch.ops.fused_ml.scale_(x, torch.tensor(3.0, device=device))
    assert torch.equal(x, expected)
    for bad in (x[:, ::2], x[:1, :1].expand(2, 4, 5, 6)):
        with pytest.raises(RuntimeError, match="without gaps"):
            torch.ops.fused_ml.scale_(bad, torch.tensor(3.0, device=device))
    with pytest.raises(RuntimeError, match="one factor"):
        torch.ops.fused_ml.scale_(x, torch.ones(2, device=device))


def test_opcheck(device):
    x, factor = torch.randn(5, 4, device=device), torch.tensor(0.5, device=device)
    torch.library.opcheck(torch.ops.fused_ml.scale_.default, (x, factor))

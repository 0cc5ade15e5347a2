"""Outputs too large for any cache take a way of their own to memory: the same bits as in pieces that do fit."""

import pytest
import torch
from cases import name_of

import fused_ml.nn.functional as F

FLOATS = (torch.float32, torch.float64, torch.bfloat16)
MAPS = {  # of two samples, together above 32 MiB in every type and apart below it in float32 and bfloat16
    "whole tiles": (2, 35, 256 * 961),
    "a last tile of steps": (2, 35, 16 * 15377),
    "no whole lines": (2, 35, 246017),
}


def gradient(x, run):
    (grad,) = torch.autograd.grad(run(x), x)
    return grad


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("shape", MAPS.values(), ids=list(MAPS))
def test_maps(shape, dtype):
    x, target = torch.randn(shape, dtype=dtype), torch.randint(shape[1], (shape[0], shape[2]))
    target[:, ::7] = -100
    whole = gradient(x.requires_grad_(), lambda x: F.cross_entropy(x, target, reduction="sum"))
    for sample in range(shape[0]):
        for columns in torch.arange(shape[2]).tensor_split(4):
            begin, end = int(columns[0]), int(columns[-1]) + 1
            part, aim = x[sample, :, begin:end].detach()[None].contiguous(), target[sample, begin:end][None]
            expected = gradient(part.requires_grad_(), lambda x, aim=aim: F.cross_entropy(x, aim, reduction="sum"))
            assert torch.equal(whole[sample, :, begin:end][None], expected)


@pytest.mark.parametrize("columns", [246005, 246016], ids=["parts of lines", "lines"])
def test_in_place_between_other_data(columns):
    buffer = torch.randn(2, 20, 246016 + 64)
    x, beside = buffer[:, :, :columns], buffer[:, :, columns:].clone()
    target = torch.randint(20, (2, columns))
    expected = gradient(x.clone().requires_grad_(), lambda x: F.cross_entropy(x, target, reduction="sum"))
    torch.ops.fused_ml.cross_entropy_(x, target, 2, -100)
    assert torch.equal(x, expected)
    assert torch.equal(buffer[:, :, columns:], beside)


@pytest.mark.parametrize("shift", [0, 1], ids=["lines", "between lines"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=name_of)
def test_elements(dtype, shift):
    count = 9_000_011
    x = torch.randn(count + shift, dtype=dtype)[shift:].requires_grad_()
    y, g = torch.rand(count, dtype=dtype), torch.randn(count, dtype=dtype)
    losses = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    values = F.logsigmoid(x)
    results = (losses, values, *(torch.autograd.grad(out, x, g)[0] for out in (losses, values)))
    for begin in range(0, count, 2_000_000):
        part, aim, upstream = (v[begin : begin + 2_000_000].detach() for v in (x, y, g))
        part = part.clone().requires_grad_()
        losses = F.binary_cross_entropy_with_logits(part, aim, reduction="none")
        values = F.logsigmoid(part)
        expected = (losses, values, *(torch.autograd.grad(out, part, upstream)[0] for out in (losses, values)))
        for got, want in zip(results, expected, strict=True):
            assert torch.equal(got[begin : begin + 2_000_000], want)

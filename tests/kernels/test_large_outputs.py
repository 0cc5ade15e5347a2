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


def smooth(x, target, softcap=None):
    weight = torch.linspace(0.5, 2, x.shape[1], dtype=x.dtype)
    return F.cross_entropy(x, target, weight, reduction="sum", label_smoothing=0.1, softcap=softcap, z_loss=1e-3)


ROWS = {  # all of one row after another; what a row gives does not depend on the others
    "cross entropy": lambda x, target: gradient(x, lambda x: F.cross_entropy(x, target, reduction="sum")),
    "smooth": lambda x, target: gradient(x, lambda x: smooth(x, target)),
    "smooth, capped": lambda x, target: gradient(x, lambda x: smooth(x, target, 20.0)),
    "probabilities, capped": lambda x, _: gradient(
        x, lambda x: F.cross_entropy(x, x.detach().softmax(1), reduction="sum", softcap=20.0)
    ),
    "probabilities": lambda x, _: gradient(x, lambda x: F.cross_entropy(x, x.detach().softmax(1), reduction="sum")),
    "softmin": lambda x, _: F.softmin(x.detach(), 1),
    "log_softmax": lambda x, _: F.log_softmax(x.detach(), 1),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("classes", [2049, 4096, 5003, 60_001])
@pytest.mark.parametrize("run", ROWS.values(), ids=list(ROWS))
def test_rows(run, classes, dtype):
    rows = (17 << 19) // classes + 1  # 34 MiB of float32
    x, target = torch.randn(rows, classes, dtype=dtype), torch.randint(classes, (rows,))
    target[::5] = -100
    target[1], target[2] = 0, classes - 1
    x[3, 7] = float("nan")
    x[4, 1] = float("-inf")
    whole = run(x.requires_grad_(), target)
    for piece in torch.arange(rows).split(rows // 5):
        begin, end = int(piece[0]), int(piece[-1]) + 1
        expected = run(x[begin:end].detach().clone().requires_grad_(), target[begin:end])
        torch.testing.assert_close(whole[begin:end], expected, rtol=0, atol=0, equal_nan=True)


def test_rows_beside_other_data():
    """A row's output ends where the next one's begins, in the middle of a line: neither overwrites the other."""
    x = torch.randn(1701, 5003, requires_grad=True)
    target = torch.full((1701,), -100)
    target[::2] = 5002
    grad = gradient(x, lambda x: F.cross_entropy(x, target, reduction="sum"))
    assert not grad[1::2].any()
    assert bool((grad[::2] != 0).all())


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

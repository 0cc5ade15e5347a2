"""cross_entropy(inplace_backward=True): the gradient takes the logits' place, or nothing is written."""

import pytest
import torch
from cases import FLOATS, SMALL_LAYOUTS, drawer, make_target, name_of
from compare import same_bits

import fused_ml.nn.functional as F


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("layout", ["N,C", "N,C,H,W", "channels_last", "transposed"])
def test_inplace_backward_writes_the_gradient_over_the_logits(layout, reduction, dtype, device):
    values = SMALL_LAYOUTS[layout](drawer(dtype, device))
    target = make_target(values)
    gradients, losses = [], []
    for inplace in (False, True):
        leaf = values.detach().clone().requires_grad_()
        logits = leaf * 1
        loss = F.cross_entropy(logits, target, reduction=reduction, inplace_backward=inplace)
        gradients.append(torch.autograd.grad(loss, leaf)[0])
        losses.append(loss.detach())
    assert same_bits(*losses)
    assert same_bits(*gradients)
    assert same_bits(logits.detach(), gradients[0])


def test_inplace_backward_scales_by_the_upstream_gradient(device):
    leaf = torch.randn(4, 5, device=device, requires_grad=True)
    target = make_target(leaf)
    expected = torch.autograd.grad(F.cross_entropy(leaf, target) * 2.5, leaf)[0]
    got = torch.autograd.grad(F.cross_entropy(leaf * 1, target, inplace_backward=True) * 2.5, leaf)[0]
    torch.testing.assert_close(got, expected)


def test_inplace_backward_through_a_linear_layer(device):
    weight = torch.randn(6, 5, device=device, requires_grad=True)
    x = torch.randn(8, 5, device=device)
    target = torch.randint(6, (8,), device=device)
    expected = torch.autograd.grad(F.cross_entropy(x @ weight.t(), target), weight)[0]
    got = torch.autograd.grad(F.cross_entropy(x @ weight.t(), target, inplace_backward=True), weight)[0]
    torch.testing.assert_close(got, expected)


def test_inplace_backward_refuses_what_torch_refuses_to_change(device):
    x = torch.randn(4, 5, device=device)
    target = make_target(x)
    with pytest.raises(RuntimeError, match="leaf"):
        F.cross_entropy(x.clone().requires_grad_(), target, inplace_backward=True)
    leaf = x.clone().requires_grad_()
    logits = leaf * 1
    squares = logits**2  # its backward reads the logits
    loss = F.cross_entropy(logits, target, inplace_backward=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + squares.sum()).backward()


def test_inplace_backward_is_never_wrong_a_second_time(device):
    leaf = torch.randn(4, 5, device=device, requires_grad=True)
    target = make_target(leaf)
    loss = F.cross_entropy(leaf * 1, target, inplace_backward=True)
    expected = torch.autograd.grad(F.cross_entropy(leaf, target), leaf)[0]
    torch.autograd.grad(loss * 3, leaf, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0], expected)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaf)


def test_inplace_backward_has_no_second_derivative(device):
    leaf = torch.randn(4, 5, device=device, requires_grad=True)
    loss = F.cross_entropy(leaf * 1, make_target(leaf), inplace_backward=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, leaf, create_graph=True)


def test_inplace_backward_without_a_gradient_leaves_the_logits(device):
    x = torch.randn(4, 5, device=device)
    before = x.clone()
    F.cross_entropy(x, make_target(x), inplace_backward=True)
    assert torch.equal(x, before)


WHOLE_VIEWS = {
    "view": lambda x: x.view(-1, 7),
    "flatten": lambda x: x.flatten(0, 1),
    "reshape": lambda x: x.reshape(-1, 7),
    "transpose": lambda x: x.transpose(1, 2),
    "permute, flatten": lambda x: x.permute(1, 0, 2).unflatten(0, (2, 2)).flatten(0, 1).transpose(1, 2),
    "squeeze": lambda x: x.unsqueeze(0).squeeze(0).view(-1, 7),
    "detached and back": lambda x: x.view_as(x).view(-1, 7),
}
PARTS = {
    "rows": lambda x: x[:, 1:].reshape(-1, 7),
    "slice": lambda x: x[1],
    "every other": lambda x: x[:, ::2].transpose(1, 2),
    "select": lambda x: x[:, 0],
    "split": lambda x: x.split(2, 1)[0].transpose(1, 2),
    "unbind": lambda x: x.unbind(0)[1],
    "expanded": lambda x: x[:1].expand(3, 4, 7).transpose(1, 2),
    "as_strided, overlapping": lambda x: x.as_strided((12, 7), (3, 1)),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
@pytest.mark.parametrize("kind", [*WHOLE_VIEWS, *PARTS])
def test_inplace_backward_of_views(kind, dtype, device):
    """A view of all of a tensor is written over; of a part, where the rest has a gradient of 0, it cannot be."""
    take = {**WHOLE_VIEWS, **PARTS}[kind]
    values = drawer(dtype, device)(3, 4, 7)
    results = []
    for inplace in (False, True):
        leaf = values.detach().clone().requires_grad_()
        hidden = leaf * 1
        logits = take(hidden)
        loss = F.cross_entropy(logits, make_seeded_target(logits), inplace_backward=inplace)
        results.append((loss.detach(), *torch.autograd.grad(loss * 1.5, leaf)))
    assert same_bits(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)
    if kind in WHOLE_VIEWS:
        assert same_bits(hidden.detach(), results[1][1])


def make_seeded_target(logits):
    torch.manual_seed(3)
    return make_target(logits)


@pytest.mark.parametrize("kind", [*WHOLE_VIEWS])
def test_another_use_of_logits_that_were_written_over_raises(kind, device):
    for dtype in (torch.float32, torch.float16):
        leaf = drawer(dtype, device)(3, 4, 7).requires_grad_()
        hidden = leaf * 1
        logits = WHOLE_VIEWS[kind](hidden)
        loss = F.cross_entropy(logits, make_target(logits), inplace_backward=True)
        for use in (hidden, logits):
            with pytest.raises(RuntimeError, match="another use of the logits"):
                torch.autograd.grad(loss + use.sum(), leaf, retain_graph=True)


def test_inplace_backward_of_a_view_of_a_leaf_raises(device):
    leaf = torch.randn(3, 4, 7, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf"):
        F.cross_entropy(leaf.view(-1, 7), torch.zeros(12, dtype=torch.int64, device=device), inplace_backward=True)


def test_inplace_backward_of_logits_that_keep_their_gradient(device):
    """`retain_grad` asks for the gradient of what would be written over: both are there."""
    leaf = torch.randn(4, 7, device=device, requires_grad=True)
    hidden = leaf * 1
    hidden.retain_grad()
    F.cross_entropy(hidden, torch.zeros(4, dtype=torch.int64, device=device), inplace_backward=True).backward()
    assert torch.equal(hidden.grad, leaf.grad)

"""Every order that dimensions can have in memory, expanded ones among them, through every operator over classes."""

from itertools import permutations

import pytest
import torch

import fused_ml.nn.functional as F

TF = torch.nn.functional
SHAPE = (2, 3, 4, 5)
OPERATORS = {
    "class targets": lambda f, x, t: f.cross_entropy(x, t),
    "class targets, unreduced": lambda f, x, t: f.cross_entropy(x, t, reduction="none", label_smoothing=0.1),
    "probabilities": lambda f, x, t: f.cross_entropy(x, torch.softmax(x.detach() * 2, 1)),
    "nll_loss": lambda f, x, t: f.nll_loss(x, t),
    "log_softmax": lambda f, x, t: f.log_softmax(x, 1),
    "softmax": lambda f, x, t: f.softmax(x, 1),
    "logsigmoid": lambda f, x, t: f.logsigmoid(x),
    "bce": lambda f, x, t: f.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
}


def in_memory(order, expanded, device):
    """A tensor of SHAPE whose dimensions follow each other in memory in this order; `expanded` has stride 0."""
    sizes = [1 if d == expanded else SHAPE[d] for d in order]
    return torch.randn(sizes, device=device).permute([order.index(d) for d in range(4)]).expand(SHAPE)


@pytest.mark.parametrize("expanded", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_order(operator, expanded, device):
    call = OPERATORS[operator]
    for order in permutations(range(4)):
        x = in_memory(order, expanded, device)
        target = torch.randint(3, (2, 4, 5), device=device)
        results = []
        for f, dtype in ((F, torch.float32), (TF, torch.float64)):
            # torch's own NLL takes no other order than the usual one.
            leaf = (x if dtype is torch.float32 else x.to(dtype).contiguous()).detach().requires_grad_()
            out = call(f, leaf, target)
            (gradient,) = torch.autograd.grad(out, leaf, torch.linspace(1, 2, out.numel(), device=device,
                                                                        dtype=dtype).view(out.shape))  # fmt: skip
            results.append((out.detach().double(), gradient.double()))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, o=order: f"{o}: {text}")

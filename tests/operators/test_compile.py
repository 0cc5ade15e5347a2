"""torch.compile(fullgraph=True): forward and backward as in eager mode, and the fused operators inside."""

import pytest
import torch
from cases import name_of

import fused_ml.nn.functional as F

INDEX = torch.tensor([0, 4, -100, 1, 2, 2])
WEIGHT, ROWS, BINARY = torch.rand(5) + 0.1, torch.rand(6), torch.rand(6, 5)
CALLS = {
    "cross_entropy": lambda x: F.cross_entropy(x, INDEX, label_smoothing=0.1),
    "cross_entropy none": lambda x: F.cross_entropy(x, INDEX, WEIGHT.to(x.dtype), reduction="none"),
    "cross_entropy extras": lambda x: F.cross_entropy(
        x, INDEX, z_loss=0.1, softcap=3.0, sample_weight=ROWS, normalizer=5.0, out_dtype=torch.float32
    ),
    "cross_entropy probabilities": lambda x: F.cross_entropy(x, BINARY.to(x.dtype), reduction="sum"),
    "nll_loss": lambda x: F.nll_loss(x, INDEX, WEIGHT.to(x.dtype)),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "softmax": lambda x: F.softmax(x, 0),
    "softmin": lambda x: F.softmin(x, -1),
    "logsigmoid": lambda x: F.logsigmoid(x),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, BINARY.to(x.dtype), focal_gamma=2.0),
    "bce none": lambda x: F.binary_cross_entropy_with_logits(
        x, BINARY.to(x.dtype), pos_weight=WEIGHT.to(x.dtype), reduction="none"
    ),
}
INDUCTOR = ("cross_entropy", "log_softmax", "bce")  # the whole compiler; the others stop at the traced graph


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(function, compiled, x):
    """A weight before the loss and a factor after it, as in a model."""
    results = []
    for f in (function, compiled):
        leaf = x.detach().clone().requires_grad_()
        value = f(leaf)
        (gradient,) = torch.autograd.grad(value.float().square().sum(), leaf)
        results.append((value.detach(), gradient))
    # Where a factor lands before or after the gradient's rounding is the compiler's choice.
    close = {"rtol": 2e-2, "atol": 1e-3} if x.dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(*results, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("call", [*CALLS])
def test_compiled_equals_eager(call, dtype):
    def model(x):
        return CALLS[call](x * 1.5) * 0.5

    backend = "inductor" if call in INDUCTOR and dtype == torch.float32 else "aot_eager"
    check(model, torch.compile(model, fullgraph=True, backend=backend), torch.randn(6, 5).to(dtype))


def test_compiled_with_dynamic_shapes():
    def model(x, target):
        return F.cross_entropy(x, target)

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows, classes in ((6, 5), (9, 7), (33, 64)):
        target = torch.randint(classes, (rows,))
        check(lambda x: model(x, target), lambda x: compiled(x, target), torch.randn(rows, classes))  # noqa: B023


def test_compiled_modules():
    model = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.LogSoftmax(1))
    import fused_ml.nn as fnn

    class WithLoss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.loss = model, fnn.CrossEntropyLoss()

        def forward(self, x):
            return self.loss(self.body(x), INDEX)

    whole = WithLoss()
    x = torch.randn(6, 5)
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), whole(x))


@pytest.mark.parametrize("call", [*CALLS])
def test_the_fused_operators_are_in_the_graph(call):
    seen = []

    def look(graph, _):
        from torch._functorch.aot_autograd import make_boxed_func

        seen.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    from torch._dynamo.backends.common import aot_autograd

    compiled = torch.compile(CALLS[call], fullgraph=True, backend=aot_autograd(fw_compiler=look))
    compiled(torch.randn(6, 5))
    assert any(name.startswith("fused_ml.") for name in seen), seen

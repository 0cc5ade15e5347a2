"""TorchScript and ONNX: what is traced, scripted, exported and saved are torch's own operators, of the same results."""

import io
import subprocess
import sys

import pytest
import torch

import fused_ml.nn as fnn
import fused_ml.nn.functional as F

pytestmark = [
    pytest.mark.filterwarnings("ignore::fused_ml.FusedFallbackWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
]
X, INDEX = torch.linspace(-3, 3, 30).view(6, 5), torch.tensor([0, 4, 1, 1, 2, 3])
ACTIVATIONS = {
    "Softmax": lambda nn: nn.Softmax(1),
    "Softmin": lambda nn: nn.Softmin(1),
    "LogSoftmax": lambda nn: nn.LogSoftmax(1),
    "LogSigmoid": lambda nn: nn.LogSigmoid(),
}
LOSSES = {
    "CrossEntropyLoss": lambda nn: nn.CrossEntropyLoss(),
    "CrossEntropyLoss, options": lambda nn: nn.CrossEntropyLoss(
        torch.linspace(0.5, 2, 5), ignore_index=1, label_smoothing=0.1, reduction="sum"
    ),
    "NLLLoss": lambda nn: nn.NLLLoss(),
    "BCEWithLogitsLoss": lambda nn: nn.BCEWithLogitsLoss(pos_weight=torch.linspace(0.5, 2, 5)),
}
MODULES = {**ACTIVATIONS, **LOSSES}


def softmax(x: torch.Tensor) -> torch.Tensor:
    return F.softmax(x, 1) * 2.0


def softmin(x: torch.Tensor) -> torch.Tensor:
    return F.softmin(x, dim=1) * 2.0


def log_softmax(x: torch.Tensor) -> torch.Tensor:
    return F.log_softmax(x, dim=1, dtype=torch.float64) * 2.0


def logsigmoid(x: torch.Tensor) -> torch.Tensor:
    return F.logsigmoid(x) * 2.0


def cross_entropy(x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(x, x.argmax(1), label_smoothing=0.1)


def nll_loss(x: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(x, x.argmax(1), reduction="sum")


def bce(x: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(x, x.sigmoid())


class Model(torch.nn.Module):
    """A layer, and a fused module behind it."""

    def __init__(self, nn, make):
        super().__init__()
        self.body, self.end = torch.nn.Linear(5, 5), make(nn)
        with torch.no_grad():
            self.body.weight.copy_(torch.linspace(-1, 1, 25).view(5, 5))
            self.body.bias.zero_()


class Activated(Model):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x))


class Judged(Model):
    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x), target)


def model_and_inputs(name, nn=fnn):
    if name in ACTIVATIONS:
        return Activated(nn, MODULES[name]), (X,)
    return Judged(nn, MODULES[name]), (X, X.sigmoid() if "BCE" in name else INDEX)


def saved_and_loaded(module):
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer), buffer.getvalue()


@pytest.mark.parametrize("way", ["trace", "script", "trace, scripted"])
@pytest.mark.parametrize("name", [*MODULES])
def test_modules(name, way):
    model, inputs = model_and_inputs(name)
    theirs, _ = model_and_inputs(name, torch.nn)
    expected = theirs(*inputs)
    made = torch.jit.trace(model, inputs) if "trace" in way else torch.jit.script(model)
    if way == "trace, scripted":
        made = torch.jit.script(made)
    assert "PythonOp" not in str(made.inlined_graph)
    assert "fused_ml::" not in str(made.inlined_graph)
    loaded, _ = saved_and_loaded(made)
    for module in (made, loaded, model):
        torch.testing.assert_close(module(*inputs), expected)
    gradients = [torch.autograd.grad(m(*inputs).sum(), m.body.weight)[0] for m in (loaded, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", [*MODULES])
def test_a_module_by_itself(name):
    """Training goes on with the fused module; only what was scripted is torch's."""
    module = MODULES[name](fnn)
    inputs = (X,) if name in ACTIVATIONS else (X, X.sigmoid() if "BCE" in name else INDEX)
    scripted = torch.jit.script(module)
    torch.testing.assert_close(scripted(*inputs), module(*inputs))
    assert type(module).__module__.startswith("fused_ml")


@pytest.mark.parametrize(
    "function", [softmax, softmin, log_softmax, logsigmoid, cross_entropy, nll_loss, bce], ids=lambda f: f.__name__
)
def test_functions_that_call_them(function):
    scripted = torch.jit.script(function)
    torch.testing.assert_close(scripted(X), function(X))
    assert "fused_ml::" not in str(scripted.inlined_graph)


def test_options_of_our_own_are_refused_by_name():
    with pytest.raises(RuntimeError, match=r"z_loss=0\.1"):
        torch.jit.script(fnn.CrossEntropyLoss(z_loss=0.1))
    with pytest.raises(RuntimeError, match=r"focal_gamma=2\.0"):
        torch.jit.script(fnn.BCEWithLogitsLoss(focal_gamma=2.0))


def test_what_is_saved_loads_without_this_package(tmp_path):
    for name in MODULES:
        model, inputs = model_and_inputs(name)
        for way, made in (("traced", torch.jit.trace(model, inputs)), ("scripted", torch.jit.script(model))):
            torch.jit.save(made, str(tmp_path / f"{way} {name}.pt"))
    program = f"""
import sys, torch
from pathlib import Path
files = sorted(Path({str(tmp_path)!r}).glob("*.pt"))
assert len(files) == {2 * len(MODULES)}
for file in files:
    torch.jit.load(str(file))
assert not any(name.startswith("fused_ml") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", [*ACTIVATIONS])
def test_onnx(name, dynamo):
    onnx = pytest.importorskip("onnx", reason="torch's ONNX exporters need onnx and onnxscript (requirements-dev.txt)")
    model, inputs = model_and_inputs(name)
    buffer = io.BytesIO()
    torch.onnx.export(model.eval(), inputs, buffer, dynamo=dynamo, verbose=False)
    proto = onnx.load_from_string(buffer.getvalue())
    assert {node.domain for node in proto.graph.node} <= {"", "ai.onnx", "pkg.onnxscript.torch_lib"}

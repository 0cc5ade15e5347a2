"""Every instruction set that this CPU supports, forced in a process of its own and proven to have run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fused_ml

LEVELS = ("baseline", "avx2", "avx512")
TESTS = Path(__file__).parents[1]
ROOT = Path(fused_ml.__file__).parents[1]  # where the package under test was found
PROBE = """
import json, torch, fused_ml, fused_ml.nn.functional as F
torch.manual_seed(0)
x = (torch.randn(300, 70) * 4).requires_grad_()
target = torch.randint(70, (300,))
values = [
    F.cross_entropy(x, target), F.cross_entropy(x.t().contiguous().t(), target, label_smoothing=0.1),
    F.log_softmax(x, 0).sum(), F.softmax(x, 1).square().sum(), F.logsigmoid(x).sum(),
    F.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
]
print(json.dumps({
    "isa": fused_ml.cpu_isa(),
    "values": [v.item() for v in values],
    "gradients": [torch.autograd.grad(v, x)[0].double().square().sum().item() for v in values],
}))
"""


def run(arguments, level):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if level is None:
        environment.pop("FUSED_ML_ISA", None)
    else:
        environment["FUSED_ML_ISA"] = level
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True)


def probe(level):
    done = run(["-c", PROBE], level)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def expected():
    """The probe's numbers from torch in float64."""
    import torch

    torch.manual_seed(0)
    x = (torch.randn(300, 70) * 4).double().requires_grad_()
    target, f = torch.randint(70, (300,)), torch.nn.functional
    values = [
        f.cross_entropy(x, target),
        f.cross_entropy(x, target, label_smoothing=0.1),
        f.log_softmax(x, 0).sum(),
        f.softmax(x, 1).square().sum(),
        f.logsigmoid(x).sum(),
        f.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
    ]
    gradients = [torch.autograd.grad(v, x)[0].square().sum().item() for v in values]
    return [v.item() for v in values], gradients


def test_the_levels_are_told():
    assert fused_ml.cpu_isa() in fused_ml.cpu_isas_supported()
    assert set(fused_ml.cpu_isas_supported()) <= set(fused_ml.cpu_isas_compiled()) <= set(LEVELS)
    assert "baseline" in fused_ml.cpu_isas_supported()


def test_the_best_level_is_the_default():
    assert probe(None)["isa"] == fused_ml.cpu_isas_supported()[-1]


@pytest.mark.parametrize("level", LEVELS)
def test_forced_level(level, expected):
    """It runs and is as near to float64 as float32 allows; or the CPU lacks it, and the import says so."""
    if level in fused_ml.cpu_isas_supported():
        result = probe(level)
        assert result["isa"] == level
        assert result["values"] == pytest.approx(expected[0], rel=3e-6)
        assert result["gradients"] == pytest.approx(expected[1], rel=3e-6)
        return
    refused = run(["-c", "import fused_ml"], level)
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "FUSED_ML_ISA" in last
    assert level in last
    assert "baseline" in last  # what can be chosen instead


@pytest.mark.parametrize("wrong", ["sse", "AVX2", "0", "avx-2"])
def test_unknown_level(wrong):
    refused = run(["-c", "import fused_ml"], wrong)
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "FUSED_ML_ISA" in last


PYTEST = ("-m", "pytest", "-x", "-p", "no:cacheprovider", "-o", "addopts=")  # with its header
TABLES = {
    "operators/test_cross_entropy.py": "test_small_layouts or test_small_widths",
    "operators/test_softmax.py": "test_class_dimension and (1000 or channels or expanded or 17)",
    "operators/test_bce_with_logits.py": "test_layouts and none",
    "operators/test_numerics.py": "confident or infinity",
}


@pytest.mark.parametrize("level", fused_ml.cpu_isas_supported())
def test_tables_at_forced_level(level):
    """A part of the tables, in that process."""
    if level == fused_ml.cpu_isa():
        return  # this run is that test
    chosen = " or ".join(f"({Path(name).stem} and ({what}))" for name, what in TABLES.items())
    done = run([*PYTEST, *TABLES, "-k", chosen], level)
    assert f"instruction set {level} " in done.stdout
    assert done.returncode == 0, done.stdout[-3000:]

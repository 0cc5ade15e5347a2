"""The package's CUDA sources under the sanitizers, and the bytes that their kernels move: in processes apart."""

import json
from pathlib import Path

import pytest
from cuda_on_cpu import library
from cuda_on_cpu.apart import missing_tool, run_python

TESTS = Path(__file__).parents[1]
# Every kind of tile once; a block for each is enough for races, and what the sanitizers can take.
SHAPES = "[(40, 10), (7, 50), (5, 1000), (1, 1030), (1, 4100), (1, 17000), (1, 21, 130), (2, 21, 40), (1, 300, 33)]"
OPERATORS = f"""
import torch
from cuda_on_cpu import library
library.load(SANITIZE)
ops = torch.ops.fused_ml
for shape in {SHAPES}:
    x, target = torch.randn(shape), torch.zeros(shape[:1] + shape[2:], dtype=torch.int64)
    for half in (x, x.bfloat16()):
        ops.cross_entropy(half, target, 1, -100, True, True)
        ops.cross_entropy(half, torch.softmax(half, 1), 2, -100, True, grad_target=True, label_smoothing=0.1)
    y = ops.log_softmax(x, 1, torch.float32)
    ops.softmax_backward(x, y, 1, False, torch.float32)
    loss, total = ops.nll_loss(y, target, None, 1, -100)
    ops.nll_loss_backward(loss, y, target, None, -100, total)
    ops.scale_(y, loss)
    ops.binary_cross_entropy_with_logits(
        x, x.sigmoid(), None, None, None, None, 1, torch.float32, True, True, True, 0.0, -1.0, 0.0, float("nan"))
print("done")
"""
# Aligned, shifted and strided parameters; clipped; under a scaler, skipped and not.
OPTIMIZERS = """
import torch
from cuda_on_cpu import library
library.load(SANITIZE)
from fused_ml import optim
for name, options in (("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {"fused": True}), ("AdamW", {"amsgrad": True})):
    params = []
    for dtype in (torch.float32, torch.bfloat16):
        params += [torch.randn(shape).to(dtype) for shape in ((), (0,), (300,))]
        params += [torch.randn(41).to(dtype)[1:], torch.randn(5, 9).to(dtype)[:, ::2]]
    params = [p.requires_grad_() for p in params]
    optimizer = getattr(optim, name)(params, lr=0.1, max_grad_norm=1.0, **options)
    for found_inf in (0.0, 1.0, 0.0):
        for p in params:
            p.grad = torch.randn(p.shape).to(p.dtype)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(found_inf)
        optimizer.step()
print("done")
"""


@pytest.fixture(autouse=True, scope="module")
def needs_the_toolkit():
    if problem := library.missing():
        pytest.skip(problem)


def run(code, sanitize):
    if problem := missing_tool(sanitize):
        pytest.skip(problem)
    done = run_python(["-c", code.replace("SANITIZE", repr(sanitize))], sanitize, {"PYTHONPATH": str(TESTS)}, 600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


FULL_GRID = """
import torch
from cuda_on_cpu import library
library.load("address")
from fused_ml import optim
import fused_ml.nn.functional as F
p = torch.zeros(400_000, requires_grad=True)
p.grad = torch.ones(400_000)
optimizer = optim.SGD([p], lr=1.0, max_grad_norm=1e9)
optimizer.step()
assert (p == -1).all() and optimizer.grad_norm == p.grad.norm()
x = torch.randn(3000, 200, requires_grad=True)
loss = F.cross_entropy(x, torch.zeros(3000, dtype=torch.int64)) + F.binary_cross_entropy_with_logits(x, x.sigmoid())
loss.backward()
print("done")
"""


def test_more_work_than_the_device_holds_at_once():
    """On a device of one multiprocessor: every block takes several turns, and sums find room for all of them."""
    one = {"PYTHONPATH": str(TESTS), "CUDA_ON_CPU_ATTRIBUTES": "MultiProcessorCount=1"}
    if problem := missing_tool("address"):
        pytest.skip(problem)
    done = run_python(["-c", FULL_GRID], "address", one, 600)
    assert "done" in done.stdout, done.stdout[-2000:] + done.stderr[-6000:]


@pytest.mark.parametrize("sanitize", ["address", "thread"])
@pytest.mark.parametrize("code", [OPERATORS, OPTIMIZERS], ids=["operators", "optimizers"])
def test_sanitizers_find_nothing(code, sanitize):
    assert "done" in run(code, sanitize)


ORDERS = """
import hashlib, os, torch
from cuda_on_cpu import library
library.load()
from fused_ml import optim
for order in ("forward", "reverse", "shuffled:1", "shuffled:2"):
    os.environ["CUDA_ON_CPU_ORDER"] = order
    torch.manual_seed(0)
    params = [torch.randn(n, requires_grad=True) for n in (1, 300, 5000, 2)] + [torch.randn(9, 70).t().requires_grad_()]
    optimizer = optim.Adam(params, lr=0.1, max_grad_norm=1.0, fused=True)
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(p.shape)
        optimizer.step()
    states = [value for p in params for value in optimizer.state[p].values()]
    everything = torch.cat([t.detach().flatten() for t in (*params, *states, optimizer.grad_norm)])
    print(hashlib.sha256(everything.numpy().tobytes()).hexdigest())
"""


def test_any_order_of_threads_steps_to_the_same_bits():
    hashes = run(ORDERS, None).split()
    assert len(hashes) == 4
    assert len(set(hashes)) == 1


TRAFFIC = """
import json, torch
from cuda_on_cpu import library
from cuda_on_cpu.traffic import Trace
trace = Trace(library.load("trace"))
ops, sizes, found = torch.ops.fused_ml, SIZES, {}
for dtype in (torch.float32, torch.bfloat16):
    for shape in sizes:
        x = torch.randn(shape).to(dtype)
        target = torch.randint(shape[1], shape[:1] + shape[2:])
        trace.reset()
        trace.register("logits", x.data_ptr(), x.nbytes)
        _, gradient = ops.cross_entropy(x, target, 1, -100, True)
        # The gradient's memory is not known before: what is written that is not the logits.
        read, other = trace.traffic("logits"), trace.traffic("")
        found[f"{dtype} {shape}"] = [x.nbytes, read.read_bytes, read.reads, other.written_bytes, other.writes,
                                     read.written_bytes]
print(json.dumps(found))
"""
STEP_TRAFFIC = """
import json, torch
from cuda_on_cpu import library
from cuda_on_cpu.traffic import Trace
trace = Trace(library.load("trace"))
from fused_ml import optim
from fused_ml.optim import _plan
found = {}
for dtype in (torch.float32, torch.bfloat16):
    for name, options in (("SGD", {"momentum": 0.9}), ("Adam", {"fused": True}), ("Adam", {})):
        _plan.on_host = lambda number: not options  # the last one's step counts
        params = [torch.zeros(3000, dtype=dtype, requires_grad=True) for _ in range(100)]
        optimizer = getattr(optim, name)(params, lr=0.1, **options)
        for p in params:
            p.grad = torch.randn(p.shape).to(dtype)
        optimizer.step()
        optimizer.step()
        trace.reset()
        grads = sum(p.grad.nbytes for p in params)
        names = []
        for i, p in enumerate(params):
            tensors = [p.grad, p.detach(), *(s for s in optimizer.state[p].values() if s.dim())]
            for k, tensor in enumerate(tensors):
                names.append(f"{i} {k}")
                trace.register(names[-1], tensor.data_ptr(), tensor.nbytes)
        optimizer.step()
        counts = [trace.traffic(name) for name in names]
        found[f"{name} {options} {dtype}"] = [
            grads, len(tensors), sum(t.read_bytes for t in counts), sum(t.written_bytes for t in counts),
            sum(t.reads.get(16, 0) for t in counts), sum(t.writes.get(16, 0) for t in counts),
            trace.traffic("").written_bytes, len(trace.kernels)]
print(json.dumps(found))
"""
ONCE = [(256, 12), (64, 96), (16, 1000), (2, 1032), (134, 4104), (2, 16, 256), (2, 96, 64)]
IN_CHUNKS = [(2, 32768), (2, 800, 64)]


def traffic(shapes):
    return json.loads(run(TRAFFIC.replace("SIZES", repr(shapes)), "trace").splitlines()[-1])


def test_cross_entropy_reads_the_logits_once_and_writes_the_gradient_once():
    for case, (nbytes, read, reads, written, writes, over) in traffic(ONCE).items():
        assert read == nbytes, case
        assert {width for width, count in reads.items() if count} == {"16"}, case
        assert nbytes <= written <= 1.05 * nbytes + 4096, case  # and a few sums
        assert writes["16"] == nbytes // 16, case
        assert over == 0


def test_a_step_reads_and_writes_everything_once():
    found = json.loads(run(STEP_TRAFFIC, "trace").splitlines()[-1])
    for case, (nbytes, operands, read, written, reads, writes, other, launches) in found.items():
        assert (read, written) == (operands * nbytes, (operands - 1) * nbytes), case
        assert reads * 16 >= 0.99 * read, case  # but the ragged ends
        assert writes * 16 >= 0.99 * written, case
        assert other <= 20_000, case  # constants
        # Constants, update; the list of parameters is not sent again, but a step that the host counts is.
        assert launches == 2 + ("Adam {}" in case), case


def test_long_rows_are_read_twice():
    """The second time from the second-level cache."""
    for case, (nbytes, read, reads, written, writes, _) in traffic(IN_CHUNKS).items():
        assert read == 2 * nbytes, case
        assert {width for width, count in reads.items() if count} == {"16"}, case
        assert writes["16"] >= nbytes // 16, case
        assert written <= 1.05 * nbytes + 4096, case

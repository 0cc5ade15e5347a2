"""Train a step with the installed wheel and compare it with torch; count the CUDA kernels where torch has CUDA."""

import sysconfig

import torch

import fused_ml
import fused_ml.nn.functional as F
from fused_ml import nn, optim
from fused_ml.optim import _plan

torch.manual_seed(0)
ours, theirs = torch.nn.Linear(20, 10), torch.nn.Linear(20, 10)
theirs.load_state_dict(ours.state_dict())
x, y = torch.randn(32, 20), torch.randint(10, (32,))
for model, optimizer, loss in (
    (ours, optim.AdamW(ours.parameters()), nn.CrossEntropyLoss()),
    (theirs, torch.optim.AdamW(theirs.parameters()), torch.nn.CrossEntropyLoss()),
):
    for _ in range(5):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
assert _plan.gather or sysconfig.get_config_var("Py_GIL_DISABLED"), "fused_ml._gather was not found"
assert type(optim.AdamW(ours.parameters())) is not torch.optim.AdamW
torch.testing.assert_close(ours.weight, theirs.weight)
torch.testing.assert_close(F.log_softmax(x, 1), torch.log_softmax(x, 1))
print(f"smoke: torch {torch.__version__}, {torch.ops.fused_ml.cpu_isa()=}: 5 steps as torch's")

has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
on_cpu = [
    name for name in torch._C._dispatch_get_registrations_for_dispatch_key("CPU") if name.startswith("fused_ml::")
]
on_cuda = [name for name in on_cpu if has_kernel(name, "CUDA")]
assert len(on_cpu) > 10
if fused_ml.cuda_toolkit() is None:
    print(f"smoke: {fused_ml.cuda_problem()}")
elif torch.version.cuda is None:
    assert fused_ml.cuda_problem(), "a torch without CUDA loaded the CUDA kernels"
    assert not on_cuda
else:
    assert not fused_ml.cuda_problem(), fused_ml.cuda_problem()
    missing = {name.removeprefix("fused_ml::") for name in on_cpu if name not in on_cuda}
    print(f"smoke: {len(on_cuda)} of {len(on_cpu)} operators have a CUDA kernel")
    assert not missing, f"no CUDA kernel: {', '.join(sorted(missing))}"
    for name in ("multi_tensor_plan", "multi_tensor_bind", "multi_tensor_square_sum", "sgd_run", "adam_run"):
        assert hasattr(torch.ops.fused_ml_cuda, name), f"no plan operator {name} for CUDA"

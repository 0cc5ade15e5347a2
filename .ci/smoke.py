"""Train a step with the installed wheel and compare it with torch."""

import torch

import fused_ml.nn.functional as F
from fused_ml import nn, optim

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
assert type(optim.AdamW(ours.parameters())) is not torch.optim.AdamW
torch.testing.assert_close(ours.weight, theirs.weight)
torch.testing.assert_close(F.log_softmax(x, 1), torch.log_softmax(x, 1))
print(f"smoke: torch {torch.__version__}, {torch.ops.fused_ml.cpu_isa()=}: 5 steps as torch's")

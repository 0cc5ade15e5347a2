"""A user's script as a type checker sees it; test_typing.py runs mypy and pyright over it."""

import torch
from torch import Tensor
from typing_extensions import assert_type

import fused_ml
import fused_ml.nn as whole
import fused_ml.nn.functional as F
from fused_ml import nn, optim
from fused_ml.nn.functional import CrossEntropyStats, cross_entropy
from fused_ml.nn.init import zeros_
from fused_ml.nn.parameter import Parameter
from fused_ml.nn.utils import clip_grad_norm_
from fused_ml.nn.utils.rnn import pad_sequence
from fused_ml.optim import AdamW
from fused_ml.optim.lr_scheduler import StepLR
from fused_ml.optim.optimizer import Optimizer

x, target = torch.randn(4, 3), torch.randint(3, (4,))

# Functions: ours with what they take beside torch's, torch's as they are.
assert_type(cross_entropy(x, target, z_loss=1e-4, softcap=30.0), Tensor)
assert_type(F.cross_entropy(x, target, return_stats=True), tuple[Tensor, CrossEntropyStats])
loss, stats = F.cross_entropy(x, target, return_stats=True)
assert_type(stats.lse, Tensor)
assert_type(F.binary_cross_entropy_with_logits(x, x, focal_gamma=2.0), Tensor)
assert_type(F.softmax(x, 1), Tensor)
assert_type(F.log_softmax(x, dim=1, dtype=torch.float64), Tensor)
assert_type(F.nll_loss(x, target), Tensor)
assert_type(F.logsigmoid(x), Tensor)
assert_type(F.relu(x), Tensor)
assert_type(whole.functional.softmin(x, 1), Tensor)
F.cross_entropy(x, target, zloss=0.1)  # type: ignore[call-overload]  # pyright: ignore
F.no_such_function(x)  # type: ignore[attr-defined]  # pyright: ignore

# Modules.
model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
assert_type(nn.Linear(3, 2), torch.nn.Linear)
criterion = nn.CrossEntropyLoss(z_loss=0.1, return_stats=True)
assert_type(criterion.z_loss, float)
as_torchs: torch.nn.CrossEntropyLoss = criterion
assert_type(nn.modules.Softmax(1), whole.Softmax)
nn.BCEWithLogitsLoss(focal_alpha=0.25)
nn.CrossEntropyLoss(zloss=0.1)  # type: ignore[call-arg]  # pyright: ignore
zeros_(Parameter(x))
nn.init.ones_(x)
assert_type(pad_sequence([x, x]), Tensor)

# Optimizers.
optimizer = optim.AdamW(model.parameters(), lr=1e-3, max_grad_norm=1.0)
assert_type(optimizer, AdamW)
assert_type(optimizer.grad_norm, Tensor | None)
assert_type(optimizer.max_grad_norm, float | None)
assert_type(optimizer.skipped, bool)
optim.SGD(model.parameters(), lr=0.1, momentum=0.9, max_grad_norm=None)
optim.Adam([{"params": model.parameters(), "lr": 0.1}])
assert_type(optim.LBFGS(model.parameters()), torch.optim.LBFGS)
as_optimizer: Optimizer = optimizer
assert_type(StepLR(optimizer, 1), torch.optim.lr_scheduler.StepLR)
optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
clip_grad_norm_(model.parameters(), 1.0)

# The package.
with fused_ml.patch_torch(), fused_ml.explaining() as found:
    torch.nn.functional.softmax(x, 1)
assert_type(found.calls, list[fused_ml.Call])
assert_type(fused_ml.explain(F.softmax, x, 1).calls[0].fused, bool)
assert_type(fused_ml.fused_ops(), list[str])

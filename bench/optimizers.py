"""Steps of an optimizer, each contestant on parameters and gradients of its own."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bench.cases import Case

MAX_NORM = 1.0
UNDERFLOWED = 1e-39  # below the least normal float32 number, 1.2e-38
COMPARED_STEPS = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 1e-3, "momentum": 0.9},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3},
}


class OptimizerStep:
    """One step of an optimizer from `module`, after clip_grad_norm_ where `clip` asks for it."""

    def __init__(self, case: Case, module: ModuleType, clip: bool = False, **options: Any) -> None:
        torch.manual_seed(0)
        dtype = getattr(torch, case.dtype)
        self.clip = clip
        self.params: list[Tensor] = []
        for _ in range(case.shape[0]):
            param = torch.zeros(case.shape[1], dtype=dtype, requires_grad=True)  # so that updates show
            param.grad = torch.randn(case.shape[1]).to(dtype)
            self.params.append(param)
        self.optimizer = getattr(module, case.op)(self.params, **OPTIONS[case.op], **options)
        if case.variant == "denormal":
            self._underflow()

    def _underflow(self) -> None:
        """Bring the moments to where many steps without a gradient leave them."""
        for param in self.params:
            assert param.grad is not None
            param.grad.zero_()
        self.optimizer.step()
        for param in self.params:
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[param][moment].fill_(UNDERFLOWED)

    def prepare(self) -> None:
        """Nothing: the gradients stay."""

    def call(self) -> None:
        """One step."""
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.params, MAX_NORM)
        self.optimizer.step()

    def result(self) -> list[Tensor]:
        """The parameters after the first few steps."""
        for _ in range(COMPARED_STEPS):
            self.call()
        return [torch.cat([param.detach() for param in self.params])]


def contestants(case: Case) -> dict[str, OptimizerStep]:
    """Our optimizer and its peers, by name."""
    import fused_ml.optim

    clip = case.variant == "clip"
    ours: dict[str, Any] = {"max_grad_norm": MAX_NORM} if clip else {}
    steps = {
        "ours": OptimizerStep(case, fused_ml.optim, **ours),
        "eager": OptimizerStep(case, torch.optim, clip, foreach=True),
        "fused": OptimizerStep(case, torch.optim, clip, fused=True),
    }
    if "normal" in case.peers:
        steps["normal"] = OptimizerStep(replace(case, variant="fresh"), fused_ml.optim)
    return steps

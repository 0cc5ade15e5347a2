"""Steps of an optimizer, each contestant on parameters and gradients of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench.cases import OPTIMIZERS, Case
from bench.timing import Step

MAX_NORM = 1.0
UNDERFLOWED = 1e-39  # below the least normal float32 number, 1.2e-38
EMA_DECAY = 0.999
NEVER = 2**30  # steps after which a GradScaler would grow its scale
COMPARED_STEPS = 3

Make = Callable[[list[Tensor]], Optimizer]


def parameters(case: Case) -> list[Tensor]:
    """Parameters of 0, so that updates show, with the row's gradients."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    params = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in case.params]
    for param in params:
        param.grad = torch.randn(param.shape).to(dtype)
    return params


class OptimizerStep(Step):
    """A step of the optimizer that `make` makes.

    `clip`: after clip_grad_norm_, which the gradients keep to from the first step on; else clipping is the
    optimizer's own affair. An ``amp`` row's GradScaler multiplies by 1, which leaves the gradients as they are and
    costs what any other factor does.
    """

    def __init__(self, case: Case, make: Make, clip: bool = False) -> None:
        self.clip = clip
        self.params = parameters(case)
        self.optimizer = make(self.params)
        self.scaler: torch.amp.GradScaler | None = None
        self.averages: list[Tensor] = []
        if case.variant == "amp":
            self.scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=NEVER)
            self.scaler.scale(torch.ones(()))  # makes the scale
        elif case.variant == "ema":
            self.averages = [param.detach().clone() for param in self.params]
            self.average = get_ema_multi_avg_fn(EMA_DECAY)
        elif case.variant == "denormal":
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

    def call(self) -> None:
        """One step, and what the row does around it."""
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.params, MAX_NORM)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.averages:
            self.average(self.averages, self.params, 0)

    def result(self) -> list[Tensor]:
        """The parameters, and their averages, after the first few steps."""
        for _ in range(COMPARED_STEPS):
            self.call()
        lists = (self.params, self.averages) if self.averages else (self.params,)
        return [torch.cat([tensor.detach().flatten() for tensor in tensors]) for tensors in lists]


def ours(case: Case) -> Step:
    """Our optimizer."""
    import fused_ml.optim

    clipping = {"max_grad_norm": MAX_NORM} if case.variant == "clip" else {}
    kind = getattr(fused_ml.optim, case.op)
    return OptimizerStep(case, lambda params: kind(params, **OPTIMIZERS[case.op], **clipping))


def torchs(case: Case, **options: Any) -> Step:
    """torch's optimizer, with further options."""
    kind = getattr(torch.optim, case.op)
    return OptimizerStep(
        case, lambda params: kind(params, **OPTIMIZERS[case.op], **options), clip=case.variant == "clip"
    )

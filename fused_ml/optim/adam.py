"""Adam: a step along the running mean of the gradient over the root of its running square."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam

from fused_ml._namespaces import complete
from fused_ml.optim._base import TORCH_STEP, FusedStep
from fused_ml.optim._family import Family

__all__ = ["Adam", "adam"]


class Adam(FusedStep, torch.optim.Adam):
    r"""torch.optim.Adam with all parameters stepped in one pass over memory.

    .. math::
        g &\leftarrow g + \lambda p, \quad
        m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \\
        p &\leftarrow p - \frac{\gamma}{1 - \beta_1^t} \, \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    All arguments, their order, defaults, checks and the keys of the state (`step`, `exp_avg`,
    `exp_avg_sq`, with `amsgrad` `max_exp_avg_sq`) are those of :class:`torch.optim.Adam`: a
    `state_dict` goes either way, mid-training.

    Args:
        params (iterable): parameters to optimize or dicts defining parameter groups, of any shapes and
            strides; float32, float64, bfloat16 or float16. 16-bit parameters are computed in float32 and
            rounded once; their states have their dtype, or are float32 if they were loaded so.
        max_grad_norm (float, optional): as if ``torch.nn.utils.clip_grad_norm_`` ran over the gradients of
            all groups before the step, but in the same kernels and without writing the gradients.
            `grad_norm` holds the norm after the step; of DTensors it is that over all processes. With
            `fused=True`, `skipped` says whether a step under a GradScaler was left out. Default: None, no
            clipping.

    Raises:
        ValueError: a hyper-parameter that torch refuses, or a `max_grad_norm` that is negative or NaN.
        RuntimeError: sparse gradients, a state of another shape than its parameter, or a parameter
            that overlaps itself; nothing is changed.

    Complex parameters, other dtypes, devices and tensor subclasses are stepped by torch, with a
    :class:`fused_ml.FusedFallbackWarning`; so is, silently, `differentiable=True`. Compiled,
    a step on the CPU is one operator a group; with a tensor as `lr`, gaps in a tensor, a parameter given twice or a
    GradScaler it is torch's.

    Source: Kingma and Ba, `Adam: A Method for Stochastic Optimization <https://arxiv.org/abs/1412.6980>`_.

    Example::

        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = fused_ml.optim.Adam(model.parameters(), lr=1e-3, max_grad_norm=1.0)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.grad_norm.shape
        torch.Size([])
    """

    _torch_optimizer: ClassVar[type[Optimizer]] = torch.optim.Adam
    _family = Family(
        "adam",
        ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay", "maximize"),
        {"exp_avg": True, "exp_avg_sq": True, "max_exp_avg_sq": "amsgrad"},
    )

    def _kind(self, group: dict[str, Any]) -> int:
        # foreach with a tensor lr is an error of torch's own step.
        if group["foreach"] and isinstance(group["lr"], Tensor) and not group["capturable"]:
            return TORCH_STEP
        return super()._kind(group)


complete(__name__)

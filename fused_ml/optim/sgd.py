"""Stochastic gradient descent with momentum, dampening, Nesterov's look-ahead and L2 decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from fused_ml._namespaces import complete
from fused_ml.optim._base import FusedStep
from fused_ml.optim._family import Family
from fused_ml.optim._plan import ParameterState

__all__ = ["SGD", "sgd"]


class SGD(FusedStep, torch.optim.SGD):
    r"""torch.optim.SGD with all parameters stepped in one pass over memory.

    .. math::
        g \leftarrow g + \lambda p, \quad
        b \leftarrow \mu b + (1 - \tau) g, \quad
        p \leftarrow p - \gamma \, (\text{nesterov} \mathbin{?} g + \mu b : b)

    with :math:`b = g` at the first step, and :math:`p \leftarrow p - \gamma g` without momentum. All
    arguments, their order, defaults, checks and the state's key `momentum_buffer` are those of
    :class:`torch.optim.SGD`: a `state_dict` goes either way, mid-training.

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
        RuntimeError: a state of another shape than its parameter, or a parameter
            that overlaps itself; nothing is changed.

    Sparse gradients, complex parameters, other dtypes, devices and tensor subclasses are stepped by
    torch, with a :class:`fused_ml.FusedFallbackWarning`; so is, silently, `differentiable=True`.
    Compiled, a step on the CPU is one operator a group; with a tensor as `lr`, gaps in a tensor, a parameter given
    twice or a GradScaler it is torch's.

    Source: Sutskever, Martens, Dahl and Hinton, `On the importance of initialization and momentum in
    deep learning <https://proceedings.mlr.press/v28/sutskever13.html>`_, in torch's form.

    Example::

        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = fused_ml.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    _torch_optimizer = torch.optim.SGD
    _family = Family(
        "sgd",
        ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
        {"momentum_buffer": "momentum"},
        counts=False,
    )

    # A buffer is made at a parameter's first step, which the formula has to know.

    def _states(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> ParameterState | None:
        if not group["momentum"]:
            return ParameterState([], None, {})
        buffer = state.get("momentum_buffer")
        if buffer is None:
            fresh = self._new_state(group, param, ["momentum_buffer"])
            return ParameterState([*fresh.values()], None, fresh, first=True)
        return ParameterState([buffer], None, {})

    def _update_lists(self, group: dict[str, Any], factor: Tensor | None) -> None:
        params, grads, (buffers,) = self._torchs_lists(group)
        options = self._family.numbers(group)
        if not group["momentum"]:
            torch.ops.fused_ml.sgd_(params, grads, [], [], 0, options, False, factor)
            return
        for first in (True, False):
            chosen = [i for i, buffer in enumerate(buffers) if (buffer is None) == first]
            if chosen:
                made = [torch.zeros_like(params[i]) if first else buffers[i] for i in chosen]
                torch.ops.fused_ml.sgd_(
                    [params[i] for i in chosen], [grads[i] for i in chosen], made, [], 1, options, first, factor
                )
                for i, buffer in zip(chosen, made, strict=True):
                    self.state[params[i]]["momentum_buffer"] = buffer

    def _decline_sparse(self, param: Tensor, group: dict[str, Any]) -> None:
        self._warn("there is no kernel for sparse gradients")  # which torch's SGD takes


complete(__name__)

"""Clipping by the global norm, within a step: what every fused optimizer has beside torch's options."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fused_ml.optim._shards import made_by_zero, refuse_norm_of_a_share


def _checked_norm(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not float(value) >= 0.0:
        raise ValueError(f"Invalid max_grad_norm value: {value}; expected None or a number >= 0")
    return float(value)


def refuse_norm_of_a_group(groups: Iterable[Any], own: float | None) -> None:
    """Raise if a group asks for another norm than `own`, the optimizer's, which some wrappers hand over twice."""
    if any(isinstance(group, dict) and group.get("max_grad_norm", own) != own for group in groups):
        raise ValueError(
            "max_grad_norm: expected it beside the parameters, for it is the norm of all groups together; got it in a "
            "parameter group. Pass it to the constructor, or set the optimizer's attribute."
        )


class Clipping(Optimizer):
    """An optimizer with `max_grad_norm`, and what its last step tells: `grad_norm`, `skipped`."""

    _made_by_zero = False

    def __init__(self, *args: Any, max_grad_norm: float | None = None, **kwargs: Any) -> None:
        self._begin()
        self._max_grad_norm = _checked_norm(max_grad_norm)
        super().__init__(*args, **kwargs)
        self._made_by_zero = made_by_zero()
        self._check_norm()

    def _begin(self) -> None:
        # What the last step tells. An attribute that compiled code sets on an optimizer is lost; an item is not.
        self._told: dict[str, Any] = {"grad_norm": None, "skipped": False}

    @property
    def max_grad_norm(self) -> float | None:
        """Largest global gradient norm that a step takes as it is; None: no clipping."""
        return self._max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value: float | None) -> None:
        self._max_grad_norm = _checked_norm(value)
        self._check_norm()

    def _check_norm(self) -> None:
        """Raise if a norm is asked for, and would be that of one process's share of the gradients."""
        if self._max_grad_norm is not None:
            refuse_norm_of_a_share((p for group in self.param_groups for p in group["params"]), self._made_by_zero)

    @property
    def grad_norm(self) -> Tensor | None:
        """The norm of the unscaled gradients before clipping, of the last step; None without `max_grad_norm`."""
        return self._told["grad_norm"]

    @grad_norm.setter
    def grad_norm(self, norm: Tensor | None) -> None:
        self._told["grad_norm"] = norm

    @property
    def skipped(self) -> bool:
        """Whether the last step was left out; on a GPU, asking waits for it."""
        self._skipped = bool(self._skipped)
        return self._skipped

    @property
    def _skipped(self) -> bool | Tensor:
        return self._told["skipped"]

    @_skipped.setter
    def _skipped(self, value: bool | Tensor) -> None:
        self._told["skipped"] = value

    # In steps that are torch's.

    def _accept_norm(self, norm: Tensor) -> bool:
        """Note the norm; False if the step must be skipped: a norm that is not finite, under a GradScaler."""
        self.grad_norm = norm
        self._skipped = getattr(self, "found_inf", None) is not None and not math.isfinite(norm)
        return not self._skipped

    def _clip_coefficient(self, norm: Tensor) -> Tensor:
        """As torch.nn.utils.clip_grad_norm_; NaN stays NaN."""
        assert self._max_grad_norm is not None
        return torch.clamp(self._max_grad_norm / (norm + 1e-6), max=1.0)

    # Of the optimizer as an object: `max_grad_norm` is its own, and in no checkpoint.

    def __repr__(self) -> str:
        text = super().__repr__()
        return text if self._max_grad_norm is None else f"{text[:-1]}max_grad_norm: {self._max_grad_norm}\n)"

    def __getstate__(self) -> dict[str, Any]:
        zero = {"_made_by_zero": True} if self._made_by_zero else {}
        return {**super().__getstate__(), "_max_grad_norm": self._max_grad_norm, **zero}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin()
        super().__setstate__(state)
        self.__dict__.setdefault("_max_grad_norm", None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; `max_grad_norm` is no option of a group."""
        refuse_norm_of_a_group([param_group], self._max_grad_norm)
        super().add_param_group(param_group)

"""The warning for valid calls that no fused kernel covers: torch's own implementation answers them."""

from __future__ import annotations

import warnings

import torch

from fused_ml._library import cuda_problem


class FusedFallbackWarning(UserWarning):
    """A valid call went to torch's own implementation because no fused kernel covers it."""


_warned: set[tuple[str, str]] = set()


def warn_fallback(name: str, reason: str) -> None:
    """Say once for each (name, reason) that torch's implementation runs in place of the fused one."""
    if torch.compiler.is_compiling() or (name, reason) in _warned:
        return
    _warned.add((name, reason))
    warnings.warn(f"fused_ml: {name} runs torch's own implementation: {reason}", FusedFallbackWarning, stacklevel=4)


def no_kernel_for(device_type: str) -> str:
    """Why no kernel reads tensors of this device."""
    return (cuda_problem() if device_type == "cuda" else "") or f"there is no kernel for {device_type} tensors"

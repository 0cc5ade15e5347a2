"""PyTorch's losses, activations and optimizers, fused: torch's names, torch's contract, one pass over memory.

>>> import fused_ml.nn.functional as F
>>> from fused_ml import nn, optim
"""

from fused_ml._library import (  # isort: skip  (loads the libraries)
    cpu_isa,
    cpu_isas_compiled,
    cpu_isas_supported,
    cuda_architectures,
    cuda_problem,
    cuda_toolkit,
    empty_cache,
)
from fused_ml import _fake, nn, optim  # noqa: F401  (_fake registers itself)
from fused_ml._explain import Call, Explanation, FusedFallbackWarning, explain, explaining
from fused_ml._patch import disable, enable, fused_ops, patch_torch
from fused_ml._version import __version__

__all__ = [
    "Call",
    "Explanation",
    "FusedFallbackWarning",
    "__version__",
    "cpu_isa",
    "cpu_isas_compiled",
    "cpu_isas_supported",
    "cuda_architectures",
    "cuda_problem",
    "cuda_toolkit",
    "disable",
    "empty_cache",
    "enable",
    "explain",
    "explaining",
    "fused_ops",
    "nn",
    "optim",
    "patch_torch",
]

"""What may stand between a call and the memory of its tensors: transforms, and modes that trace."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

_transforms = torch._C._functorch.peek_interpreter_stack
_mode, _KEYS = torch._C._get_dispatch_mode, torch._C._TorchDispatchModeKey
dispatch_modes = torch._C._len_torch_dispatch_stack


def not_transformed() -> bool:
    """Whether neither a function transform (torch.func) nor forward-mode differentiation is under way."""
    return _transforms() is None and forward_ad._current_level < 0


def traced_by_mode() -> bool:
    """Whether a dispatch mode stands in for the tensors' memory (make_fx, fake tensors), and does not just look on."""
    return dispatch_modes() > 0 and any(_mode(key) is not None for key in (_KEYS.PROXY, _KEYS.FAKE, _KEYS.FUNCTIONAL))


def traced() -> bool:
    """Whether torch's operations are transformed, recorded, or run without elements: a step of ours would be missed."""
    return traced_by_mode() or not not_transformed()

"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.optim import Optimizer

from fused_ml._namespaces import complete
from fused_ml.optim.adam import Adam

__all__ = ["AdamW"]


class AdamW(Adam, torch.optim.AdamW):
    r"""torch.optim.AdamW with all parameters stepped in one pass over memory.

    .. math::
        p \leftarrow (1 - \gamma \lambda) p, \quad \text{then as } \mathrm{Adam} \text{ without decay.}

    Shapes, dtypes, errors and `max_grad_norm` are those of :class:`fused_ml.optim.Adam`; all other
    arguments and the keys of the state are those of :class:`torch.optim.AdamW`.

    Source: Loshchilov and Hutter, `Decoupled Weight Decay Regularization
    <https://arxiv.org/abs/1711.05101>`_.

    Example::

        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = fused_ml.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    _torch_optimizer: ClassVar[type[Optimizer]] = torch.optim.AdamW


complete(__name__)

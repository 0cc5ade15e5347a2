"""RMSprop: the gradient over the root of its running square."""

from __future__ import annotations

import torch
from torch.optim.rmsprop import rmsprop

from fused_ml._namespaces import complete
from fused_ml.optim._base import FusedStep
from fused_ml.optim._family import Family

__all__ = ["RMSprop", "rmsprop"]


class RMSprop(FusedStep, torch.optim.RMSprop):
    r"""torch.optim.RMSprop with all parameters stepped in one pass over memory.

    .. math::
        v \leftarrow \alpha v + (1 - \alpha) g^2, \quad
        b \leftarrow \mu b + \frac{g}{\sqrt{v - a^2} + \epsilon}, \quad p \leftarrow p - \gamma b

    with :math:`g` the gradient and L2 decay, and :math:`a` its running mean if `centered`, else 0. Shapes, dtypes,
    errors and `max_grad_norm` are those of :class:`fused_ml.optim.Adam`; all other arguments and the keys of the
    state (`step`, `square_avg`, with momentum `momentum_buffer`, centered `grad_avg`) those of torch's class.

    Source: Hinton, `Neural Networks for Machine Learning, lecture 6e
    <https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf>`_, 2012.

    Example::

        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = fused_ml.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9, centered=True)
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
    """

    _torch_optimizer = torch.optim.RMSprop
    _family = Family(
        "rmsprop",
        ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize"),
        {"square_avg": True, "momentum_buffer": "momentum", "grad_avg": "centered"},
    )


complete(__name__)

"""What the tests of patch_torch share: which kernels a call runs, optimizers as people write them, and a small step."""

import torch
from optimizers import EXAMPLES


def fused_operators(function, *arguments):
    """The names of this package's kernels that a call runs."""
    with torch.autograd.profiler.profile() as profile:
        function(*arguments)
    names = {event.name.split("::")[1] for event in profile.function_events if event.name.startswith("fused_ml::")}
    return {name for name in names if not name.startswith("multi_tensor_")}  # what plans a step


def parameter():
    p = torch.linspace(-1, 1, 6, requires_grad=True)
    p.grad = torch.arange(6.0) / 8
    return p


def step(optimizer):
    """A step with gradients of its own; what it leaves."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.arange(6.0) / 8
    optimizer.step()
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


class OldAdam(torch.optim.Adam):
    def __init__(self, params, **options):
        torch.optim.Adam.__init__(self, params, **options)

    def step(self, closure=None):
        return torch.optim.Adam.step(self, closure)


class OwnStep(torch.optim.AdamW):
    steps = 0

    def step(self, closure=None):
        self.steps += 1
        return super().step(closure)


class Inherits(torch.optim.SGD):
    pass


class OwnGroups(torch.optim.Adam):
    """Steps by gradients of its own choice, which only torch's step hears of."""

    def _init_group(self, group, params, grads, *states):
        result = super()._init_group(group, params, grads, *states)
        grads[:] = [grad.sign() for grad in grads]
        return result


class OwnGroupsUncompiled(OwnGroups):
    """torch puts a function of its own around the override."""

    _init_group = torch._disable_dynamo(OwnGroups._init_group)


def own_groups_of_an_instance(params, **options):
    optimizer = torch.optim.Adam(params, **options)
    torchs = optimizer._init_group

    def own(group, params, grads, *states):
        result = torchs(group, params, grads, *states)
        grads[:] = [grad.sign() for grad in grads]
        return result

    optimizer._init_group = own
    return optimizer


TORCHS = [getattr(torch.optim, name) for name in EXAMPLES]
MADE = [*TORCHS, OldAdam, OwnStep, Inherits]

"""The frame that sharded_cases.py fills: a model, trained on each process and alone, and the table of cases."""

import contextlib
from itertools import product

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

CLIP = 0.05
OPTIMIZERS = {
    "SGD": {"lr": 0.1},
    "SGD nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam amsgrad": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
}
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def table(**axes):
    """A case for each combination of the axes' values."""

    def add(function):
        for values in product(*axes.values()):
            name = f"{function.__name__} {', '.join(map(str, values))}"
            CASES[name] = lambda function=function, values=values: function(*values)
        return function

    return add


def model(dtype=torch.float64):
    """7 rows on two processes: one gets 4; one row: one gets none."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1)).to(dtype)


def batch(step):
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


def make(module, name, params, **extra):
    return getattr(module, name.split()[0])(params, **OPTIMIZERS[name], **extra)


def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def everything(optimizer):
    """Parameters and states, whole, in order."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    values = [whole(p) for p in params]
    for p in params:
        values += [whole(v) for _, v in sorted(optimizer.state[p].items()) if torch.is_tensor(v)]
    return values


def train(net, optimizer, share, clip=None, steps=4, before_step=None):
    """Steps on each process's share of the batch; the norms, and the loss's mean is over all of it."""
    norms = []
    for step in range(steps):
        optimizer.zero_grad()
        x = batch(step)
        x = x.chunk(dist.get_world_size())[dist.get_rank()] if share else x
        net(x.to(next(net.parameters()).dtype)).square().mean().backward()
        if clip is not None:
            norms.append(whole(torch.nn.utils.clip_grad_norm_(net.parameters(), clip)))
        if before_step:
            before_step()
        optimizer.step()
        if getattr(optimizer, "grad_norm", None) is not None:
            norms.append(optimizer.grad_norm.clone())
    return norms


def alone(name, clip=None, steps=4, net=None):
    """The same training in one process, by torch."""
    net = net or model()
    optimizer = make(torch.optim, name, net.parameters(), foreach=False)
    norms = train(net, optimizer, False, clip, steps)
    return everything(optimizer), norms


@contextlib.contextmanager
def collectives():
    """Counts the all-reduces."""
    calls, original = [], dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    try:
        yield calls
    finally:
        dist.all_reduce = original


def sharded(net, **options):
    for layer in (net[0], net[2]):
        fully_shard(layer, **options)
    return fully_shard(net, **options)


def check(optimizer, norms, name, clip, steps=4):
    assert optimizer._plans, "the step was torch's"
    expected, expected_norms = alone(name, clip, steps)
    return {"values": (everything(optimizer), expected), "norms": (norms, expected_norms)}

"""Parameters that lie on several processes: the local tensors of DTensors, and norms over all shards."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

_ZERO = "torch.distributed.optim.zero_redundancy_optimizer"


class Shards(NamedTuple):
    """Where the pieces of a tensor lie that must be added up: along these dimensions of a DeviceMesh."""

    mesh: Any
    dims: tuple[int, ...]


def is_dtensor(tensor: Any) -> bool:
    """Whether `tensor` is a DTensor, and no subclass; there is none before their module is imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return type(tensor) is getattr(module, "DTensor", None)


def local(tensor: Tensor) -> Tensor:
    """The tensor that holds this process's elements: of a DTensor its local one, when it has arrived."""
    if not is_dtensor(tensor):
        return tensor
    mine = tensor._local_tensor  # type: ignore[attr-defined]
    return mine.wait() if type(mine).__name__ == "AsyncCollectiveTensor" else mine


def placed(tensor: Tensor) -> Any:
    """How a DTensor is placed, to compare; None: the tensor is none."""
    return (tensor.device_mesh, tensor.placements) if is_dtensor(tensor) else None  # type: ignore[attr-defined]


def partial(tensor: Tensor) -> bool:
    """Whether the elements are sums that the processes have not yet added up."""
    return is_dtensor(tensor) and any(p.is_partial() for p in tensor.placements)  # type: ignore[attr-defined]


def shards_of(tensor: Tensor) -> Shards | None:
    """What a sum over the local elements lacks; None: nothing, every process has all of them."""
    where = placed(tensor)
    if where is None:
        return None
    mesh, placements = where
    dims = tuple(d for d, p in enumerate(placements) if not p.is_replicate() and mesh.size(d) > 1)
    return Shards(mesh, dims) if dims else None


def all_shards(params: Iterable[Tensor]) -> dict[Shards, torch.device]:
    """Every kind of shards among `params`, and where they lie, in the order in which all processes meet them.

    That of all parameters, whether or not they have a gradient here: each process has to take part in every sum.
    """
    kinds: dict[Shards, torch.device] = {}
    for p in params:
        if (shards := shards_of(p)) is not None:
            kinds.setdefault(shards, p.device)
    return kinds


def sum_over_shards(sums: dict[Shards | None, Tensor], kinds: dict[Shards, torch.device]) -> Tensor:
    """The sum over all processes of 0-d float64 sums over their local elements.

    One all-reduce for each dimension of a mesh that something is sharded along.
    """
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    totals = {kind: sums.get(kind, zero).to(device) for kind, device in kinds.items()}
    for mesh in dict.fromkeys(kind.mesh for kind in kinds):
        for dim in range(mesh.ndim):
            here = [kind for kind in kinds if kind.mesh == mesh and dim in kind.dims]
            if here:
                vector = torch.stack([totals[kind] for kind in here])
                dist.all_reduce(vector, group=mesh.get_group(dim))
                totals.update(zip(here, vector.unbind(), strict=True))
    result, *others = [*([sums[None]] if None in sums else []), *totals.values()]
    for other in others:
        result = result + other.to(result.device)
    return result


def made_by_zero() -> bool:
    """Whether a ZeroRedundancyOptimizer is making the optimizer that is being constructed."""
    zero = getattr(sys.modules.get(_ZERO), "ZeroRedundancyOptimizer", None)
    code = getattr(getattr(zero, "_init_local_optimizer", None), "__code__", None)
    frame = sys._getframe(1) if code else None
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def refuse_norm_of_a_share(params: Iterable[Tensor], zero: bool) -> None:
    """Raise if the gradients of `params` are one process's share, as plain tensors that do not say of what.

    zero: the optimizer is a ZeroRedundancyOptimizer's own.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() == 1:
        return
    if zero:
        raise RuntimeError(
            "max_grad_norm: a ZeroRedundancyOptimizer gives this optimizer one process's share of the parameters, and "
            "it would clip by the norm of that share. Leave max_grad_norm None, and call "
            "torch.nn.utils.clip_grad_norm_ with all parameters of the model before the step: every process has all "
            "gradients."
        )
    if any(getattr(p, "_fsdp_flattened", False) for p in params):
        raise RuntimeError(
            "max_grad_norm: FullyShardedDataParallel leaves this process a shard of each gradient, and the optimizer "
            "would clip by the norm of its shards. Leave max_grad_norm None, and call the wrapped module's "
            "clip_grad_norm_ before the step; or shard by torch.distributed.fsdp.fully_shard, over whose processes "
            "max_grad_norm takes the norm."
        )

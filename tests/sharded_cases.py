"""What optimizers/test_sharded.py runs in two processes: each case returns what is to be equal, by name, or raises."""

import copy
import tempfile
import traceback
import warnings

import pytest
import torch
import torch.distributed as dist
from sharded import (
    CASES,
    CLIP,
    OPTIMIZERS,
    alone,
    batch,
    case,
    check,
    collectives,
    everything,
    make,
    model,
    sharded,
    table,
    train,
    whole,
)
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import fused_ml
import fused_ml.optim


@table(name=OPTIMIZERS, clip=(None, CLIP, 1e9), flags=({}, {"foreach": True}, {"fused": True}))
def fsdp2(name, clip, flags):
    net = sharded(model())
    optimizer = make(fused_ml.optim, name, net.parameters(), max_grad_norm=clip, **flags)
    kept = []

    def look():
        kept.append([(p.grad, p.grad._local_tensor.data_ptr(), whole(p.grad)) for p in net.parameters()])

    with collectives() as calls:
        norms = train(net, optimizer, True, before_step=look)
    assert len(calls) == (4 if clip else 0), len(calls)
    for p, (grad, address, value) in zip(net.parameters(), kept[-1], strict=True):
        assert p.grad is grad
        assert grad._local_tensor.data_ptr() == address
        assert torch.equal(whole(grad), value)
    return check(optimizer, norms, name, clip)


@table(dtype=(torch.float32, torch.bfloat16))
def fsdp2_dtype(dtype):
    nets = [sharded(model(dtype)), sharded(model(dtype))]
    ours = make(fused_ml.optim, "AdamW", nets[0].parameters(), max_grad_norm=1e9)
    theirs = make(torch.optim, "AdamW", nets[1].parameters(), foreach=False)
    train(nets[0], ours, True)
    train(nets[1], theirs, True)
    assert ours._plans
    return {"values": ([v.float() for v in everything(ours)], [v.float() for v in everything(theirs)]), "rtol": 0.05}


@table(shape=((2, 1), (1, 2)))
def hsdp(shape):
    """Replicated over the first dimension, sharded over the second: the norm is summed over the second alone."""
    net = sharded(model(), mesh=init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")))
    optimizer = make(fused_ml.optim, "AdamW", net.parameters(), max_grad_norm=CLIP)
    norms = train(net, optimizer, True)
    return check(optimizer, norms, "AdamW", CLIP)


def parallel(net, mesh):
    return parallelize_module(net, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def even():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double()


@table(name=OPTIMIZERS, clip=(None, CLIP))
def tensor_parallel(name, clip):
    net = parallel(even(), init_device_mesh("cpu", (2,)))
    assert {str(p.placements) for p in net.parameters()} >= {"(Shard(dim=0),)", "(Shard(dim=1),)", "(Replicate(),)"}
    optimizer = make(fused_ml.optim, name, net.parameters(), max_grad_norm=clip)
    norms = train(net, optimizer, False)
    assert optimizer._plans
    expected, expected_norms = alone(name, clip, net=even())
    return {"values": (everything(optimizer), expected), "norms": (norms, expected_norms)}


@table(shape=((2, 1), (1, 2)))
def tensor_parallel_and_fsdp2(shape):
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "model"))
    net = parallel(even(), mesh["model"])
    fully_shard(net, mesh=mesh["data"])
    optimizer = make(fused_ml.optim, "AdamW", net.parameters(), max_grad_norm=CLIP)
    norms = train(net, optimizer, shape[0] == 2)
    assert optimizer._plans
    expected, expected_norms = alone("AdamW", CLIP, net=even())
    return {"values": (everything(optimizer), expected), "norms": (norms, expected_norms)}


@table(name=OPTIMIZERS)
def plain_parameters_beside(name):
    """Two meshes, a replicated DTensor and a plain parameter, each with gradients given by hand."""
    first, second = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    torch.manual_seed(0)
    full = [torch.randn(shape, dtype=torch.float64) for shape in ((5, 3), (4,), (3, 3), (1, 2), (7,))]
    places = [(first, [Shard(0)]), None, (first, [Replicate()]), (second, [Replicate(), Shard(1)]), (first, [Shard(0)])]

    def place(value, where):
        return value.clone() if where is None else distribute_tensor(value.clone(), *where)

    params = [place(value, where).requires_grad_() for value, where in zip(full, places, strict=True)]
    twins = [value.clone().requires_grad_() for value in full]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03}]
    optimizer = make(fused_ml.optim, name, groups, max_grad_norm=CLIP)
    reference = make(torch.optim, name, [{"params": twins[:2]}, {"params": twins[2:], "lr": 0.03}])
    norms, expected = [], []
    for absent in ((), (4,), (0, 3), (0, 1, 2, 3, 4), ()):
        for i, (p, q, where) in enumerate(zip(params, twins, places, strict=True)):
            q.grad = None if i in absent else torch.randn_like(q)
            p.grad = None if i in absent else place(q.grad, where)
        expected.append(torch.nn.utils.clip_grad_norm_(twins, CLIP).double())
        reference.step()
        optimizer.step()
        norms.append(optimizer.grad_norm.clone())
    return {"values": (everything(optimizer), everything(reference)), "norms": (norms, expected)}


@case
def gradient_on_one_process_alone():
    """The other one takes part in the sum, and hangs nobody."""
    mesh = init_device_mesh("cpu", (2,))
    p = distribute_tensor(torch.ones(4), mesh, [Shard(0)]).requires_grad_()
    optimizer = fused_ml.optim.SGD([p], lr=1.0, max_grad_norm=1.0)
    if dist.get_rank() == 0:
        p.grad = distribute_tensor(torch.full((4,), 3.0), mesh, [Shard(0)], src_data_rank=None)
    optimizer.step()
    return {"norms": ([optimizer.grad_norm.double()], [torch.tensor(18.0).double().sqrt()])}


@case
def replaced_local_tensors_are_noticed():
    """A parameter's or a state's elements may move without the DTensor being another object."""
    mesh = init_device_mesh("cpu", (2,))
    results = []
    for module in (fused_ml.optim, torch.optim):
        p = distribute_tensor(torch.arange(6.0).double(), mesh, [Shard(0)]).requires_grad_()
        optimizer = module.Adam([p], lr=0.1)
        for step in range(4):
            p.grad = distribute_tensor(torch.arange(6.0).double() + step, mesh, [Shard(0)])
            optimizer.step()
            if step == 1:
                p._local_tensor = p._local_tensor.clone()
            if step == 2:
                moved = optimizer.state[p]["exp_avg"]
                moved._local_tensor = moved._local_tensor.clone()
        results.append(everything(optimizer))
    return {"values": tuple(results)}


@table(clip=(None, CLIP))
def gradients_placed_otherwise(clip):
    """Partial sums, which torch's own step adds up."""
    mesh = init_device_mesh("cpu", (2,))
    p = distribute_tensor(torch.ones(4, dtype=torch.float64), mesh, [Replicate()]).requires_grad_()
    q = torch.ones(4, dtype=torch.float64, requires_grad=True)
    optimizer = fused_ml.optim.SGD([p], lr=1.0, max_grad_norm=clip, foreach=False)
    p.grad = DTensor.from_local(torch.full((4,), 1.0 + dist.get_rank()).double(), mesh, [Partial()])
    q.grad = torch.full((4,), 3.0, dtype=torch.float64)
    if clip:
        torch.nn.utils.clip_grad_norm_([q], clip)
    torch.optim.SGD([q], lr=1.0).step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step()
    assert not optimizer._plans
    return {"values": ([whole(p)], [q.detach()])}


@table(name=OPTIMIZERS)
def states_are_torchs(name):
    """As torch's step makes them for DTensors; from here to torch's optimizer, and back."""
    net, twin = sharded(model()), sharded(model())
    ours = make(fused_ml.optim, name, net.parameters(), max_grad_norm=CLIP)
    theirs = make(torch.optim, name, twin.parameters(), foreach=False)
    train(net, ours, True, steps=2)
    train(twin, theirs, True, CLIP, steps=2)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        mine, expected = ours.state[p], {k: v for k, v in theirs.state[q].items() if v is not None}
        assert list(mine) == list(expected)
        for key in mine:
            assert type(mine[key]) is type(expected[key]), key
            assert getattr(mine[key], "placements", None) == getattr(expected[key], "placements", None)
    other, back = make(torch.optim, name, net.parameters(), foreach=False), make(fused_ml.optim, name, net.parameters())
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    back.load_state_dict(copy.deepcopy(other.state_dict()))
    back.max_grad_norm = CLIP
    train(net, back, True, steps=2)
    train(twin, theirs, True, CLIP, steps=2)
    return {"values": (everything(back), everything(theirs))}


@table(name=OPTIMIZERS)
def distributed_checkpoint(name):
    """Saved by torch.distributed.checkpoint, loaded into a new model and optimizer: the training goes on."""
    net = sharded(model())
    optimizer = make(fused_ml.optim, name, net.parameters(), max_grad_norm=CLIP)
    train(net, optimizer, True, steps=2)
    path = [tempfile.mkdtemp()]
    dist.broadcast_object_list(path)
    saved = {"net": net.state_dict(), "optimizer": get_optimizer_state_dict(net, optimizer)}
    save(saved, checkpoint_id=path[0])
    other = sharded(model())
    fresh = make(fused_ml.optim, name, other.parameters(), max_grad_norm=CLIP)
    into = {"net": other.state_dict(), "optimizer": get_optimizer_state_dict(other, fresh)}
    load(into, checkpoint_id=path[0])
    other.load_state_dict(into["net"])
    set_optimizer_state_dict(other, fresh, into["optimizer"])
    assert fresh.max_grad_norm == CLIP
    train(net, optimizer, True, steps=2)
    train(other, fresh, True, steps=2)
    return {"values": (everything(fresh), everything(optimizer))}


@table(fused=(None, True), clip=(None, CLIP))
def scaler(fused, clip):
    """Gradients of every process overflow at one step; else the training is the plain one."""
    results = []
    for module in (fused_ml.optim, torch.optim):
        net = sharded(model(torch.float32))
        extra = {"max_grad_norm": clip} if module is fused_ml.optim else {}
        optimizer = make(module, "AdamW", net.parameters(), fused=fused, **extra)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        scales = []
        for step in range(4):
            optimizer.zero_grad()
            factor = torch.inf if step == 1 else 1.0
            x = batch(step).float().chunk(2)[dist.get_rank()]
            scaler.scale(net(x).square().mean() * factor).backward()
            if module is torch.optim and clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
            scales.append(torch.tensor(scaler.get_scale()))
        results.append([*everything(optimizer), *scales])
    return {"values": tuple(results), "rtol": 1e-4}


@case
def versions_are_bumped():
    net = sharded(model())
    optimizer = make(fused_ml.optim, "AdamW", net.parameters())
    train(net, optimizer, True, steps=1)
    before = [p._version for p in net.parameters()]
    train(net, optimizer, True, steps=1)
    assert all(p._version > v for p, v in zip(net.parameters(), before, strict=True))
    return {}


@case
def data_parallel():
    net = model()
    optimizer = make(fused_ml.optim, "AdamW", net.parameters(), max_grad_norm=CLIP)
    norms = train(DistributedDataParallel(net), optimizer, True)
    return check(optimizer, norms, "AdamW", CLIP)


def refused(words, function):
    with pytest.raises(RuntimeError, match=words):
        function()


@table(name=OPTIMIZERS)
def zero(name):
    cls, options = getattr(fused_ml.optim, name.split()[0]), OPTIMIZERS[name]
    words = "a ZeroRedundancyOptimizer gives this optimizer one process's share"
    for factory in (cls, lambda *args, **kwargs: cls(*args, **kwargs)):
        arguments = {"optimizer_class": factory, "max_grad_norm": 1.0, **options}
        refused(words, lambda arguments=arguments: ZeroRedundancyOptimizer(model().parameters(), **arguments))
    net = model()
    optimizer = ZeroRedundancyOptimizer(net.parameters(), cls, **options)
    assert type(optimizer.optim) is cls
    for each in (optimizer.optim, copy.deepcopy(optimizer.optim)):
        refused(words, lambda each=each: setattr(each, "max_grad_norm", 1.0))
    optimizer.optim.max_grad_norm = None
    norms = train(DistributedDataParallel(net), optimizer, True, CLIP)  # as the message says
    expected, expected_norms = alone(name, CLIP)
    count = len(list(net.parameters()))
    return {"values": ([p.detach() for p in net.parameters()], expected[:count]), "norms": (norms, expected_norms)}


@table(orig=(False, True), name=OPTIMIZERS)
def fsdp1(orig, name):
    net = FullyShardedDataParallel(model(torch.float32), use_orig_params=orig, device_id=torch.device("cpu"))
    words = "FullyShardedDataParallel leaves this process a shard"
    refused(words, lambda: make(fused_ml.optim, name, net.parameters(), max_grad_norm=1.0))
    optimizer = make(fused_ml.optim, name, net.parameters())
    refused(words, lambda: setattr(optimizer, "max_grad_norm", 1.0))
    optimizer.max_grad_norm = None
    train(net, optimizer, True, before_step=lambda: net.clip_grad_norm_(CLIP))  # as the message says
    expected, _ = alone(name, CLIP, net=model(torch.float32))
    with FullyShardedDataParallel.summon_full_params(net):
        values = torch.cat([p.detach().flatten() for p in net.parameters()])
    return {"values": ([values], [torch.cat([v.flatten() for v in expected[:4]])]), "rtol": 1e-5}


@case
def one_process_has_everything():
    """Where there is one process its share is all of it."""
    size = dist.get_world_size
    dist.get_world_size = lambda group=None: 1
    try:
        optimizer = fused_ml.optim.SGD(model().parameters(), lr=0.1)
        optimizer._made_by_zero = True
        optimizer.max_grad_norm = 1.0
    finally:
        dist.get_world_size = size
    return {}


def work(rank, file, results):
    """One process: every case, in order."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    warnings.simplefilter("error", fused_ml.FusedFallbackWarning)
    outcomes = {}
    for name, function in CASES.items():
        try:
            outcomes[name] = function()
        except BaseException:
            outcomes[name] = traceback.format_exc()
        both = [None, None]
        dist.all_gather_object(both, isinstance(outcomes[name], str))
        if any(both) and not all(both):
            break  # the other may be in another collective from here on
    torch.save(outcomes, f"{results}/{rank}")
    dist.barrier()
    dist.destroy_process_group()

"""Optimizers on a GPU, what only it shows: nothing waits, graphs, streams, several devices, more than 2^31 elements."""

import pytest
import torch
from optimizers import OPTIONS, Pair, assert_state_close, draw, grad_scaler, numbers, random_params

import fused_ml.optim

CASES = ["sgd", "sgd all", "adam all", "adamw decay"]
SHAPES = [(), (0,), (1000,), (33, 65), (70_001,)]


@pytest.fixture(autouse=True)
def needs_a_gpu(device):
    if device.type != "cuda":
        pytest.skip("runs on a GPU alone: pytest --device=cuda")
    with device:
        yield


def make(case, params, **extra):
    name, options = OPTIONS[case]
    return getattr(fused_ml.optim, name)(params, **numbers(options), **extra)


def parameters(device="cuda"):
    params = [p.to(device).requires_grad_() for p in random_params(torch.float32, SHAPES)]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


def counted(case):
    """The options that keep step counts on the device, where the optimizer counts."""
    return {} if case.startswith("sgd") else {"capturable": True}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("case", CASES)
def test_the_host_never_waits(case, fused, clip):
    optimizer = make(case, parameters(), fused=fused, max_grad_norm=clip)
    optimizer.step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_the_host_never_waits_for_a_scaler(case, clip):
    params = parameters()
    optimizer = make(case, params, fused=True, max_grad_norm=clip)
    scaler = grad_scaler(init_scale=8.0)
    scaler.scale(torch.zeros(()))
    for silent in (False, True):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if silent else "default")
        try:
            scaler.step(optimizer)
            scaler.update()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not optimizer.skipped


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_graphs_replay_with_other_gradients_and_rates(case, clip):
    """A replay is a step; eager steps between replays, with gradients elsewhere, leave the graph as it was."""
    name, options = OPTIONS[case]
    lr = torch.tensor(0.125)
    params = parameters()
    twins = [p.detach().clone().requires_grad_() for p in params]
    extra = {**numbers(options), "max_grad_norm": clip}
    optimizer = getattr(fused_ml.optim, name)(params, **{**extra, **counted(case), "lr": lr})
    twin = getattr(fused_ml.optim, name)(twins, **{**extra, **counted(case), "lr": lr})

    def follow():
        for p, q in zip(params, twins, strict=True):
            q.grad = p.grad.clone()
        twin.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            optimizer.step()
            follow()
    torch.cuda.current_stream().wait_stream(stream)
    captured = [p.grad for p in params]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for round in range(3):
        lr.fill_(0.0625 * (round + 1))
        for grad in captured:
            grad.copy_(torch.randn_like(grad))
        graph.replay()
        follow()
        for p in params:  # an eager step from other memory
            p.grad = torch.randn_like(p)
        optimizer.step()
        follow()
        for p, grad in zip(params, captured, strict=True):
            p.grad = grad
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)
    assert_state_close(optimizer, twin, 1)


def test_capture_without_capturable_is_torchs_error():
    optimizer = make("adam", parameters())
    optimizer.step()
    with pytest.raises(RuntimeError, match="capturable is False"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()


@pytest.mark.parametrize("case", CASES)
def test_side_streams(case):
    params, twins = parameters(), []
    for p in params:
        twins.append(p.detach().clone().requires_grad_())
        twins[-1].grad = p.grad.clone()
    ours, twin = make(case, params, max_grad_norm=0.5), make(case, twins, max_grad_norm=0.5)
    stream = torch.cuda.Stream()
    for i in range(4):  # to and fro
        with torch.cuda.stream(stream if i % 2 else torch.cuda.current_stream()):
            stream.wait_stream(torch.cuda.default_stream())
            if i % 2:
                torch.cuda._sleep(10_000_000)
            ours.step()
        torch.cuda.current_stream().wait_stream(stream)
        twin.step()
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_on_every_run(case):
    start, grads, results = random_params(torch.float32, [(300_001,), (77,)]), [], []
    for p in start:
        grads.append(torch.randn_like(p))
    for _ in range(3):
        params = [p.clone().requires_grad_() for p in start]
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        optimizer = make(case, params, max_grad_norm=0.5)
        optimizer.step()
        optimizer.step()
        results.append([*params, optimizer.grad_norm])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("where", ["cuda:1", "cpu"])
@pytest.mark.parametrize("case", CASES)
def test_parameters_on_two_devices(case, where):
    if where == "cuda:1" and torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    pair = Pair(case, [*random_params(torch.float32, SHAPES), torch.randn(50, device=where)], max_grad_norm=1e9)
    for _ in range(3):
        for ours, reference in zip(pair.ours, pair.torch, strict=True):
            ours.grad = draw(ours.shape, pair.generator).to(ours.device)
            reference.grad = ours.grad.double()
        pair.optimizer.step()
        pair.reference.step()
    pair.check()
    expected = torch.stack([p.grad.double().norm().cpu() for p in pair.ours]).norm()
    torch.testing.assert_close(pair.optimizer.grad_norm.cpu().double(), expected, rtol=1e-6, atol=0)


def test_another_device_than_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    params, here = parameters("cuda:1"), []
    for p in params:
        here.append(p.detach().to("cuda:0").requires_grad_())
        here[-1].grad = p.grad.to("cuda:0")
    for parameters_there in (params, here):
        make("adam all", parameters_there, max_grad_norm=0.5).step()
    for p, q in zip(params, here, strict=True):
        torch.testing.assert_close(p.cpu(), q.cpu())


def test_moved_to_the_gpu_after_the_optimizer_was_made():
    p = torch.randn(100, device="cpu").requires_grad_()
    optimizer = fused_ml.optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = torch.ones(100, device="cpu")
    optimizer.step()
    p.grad = None
    p.data = p.data.cuda()
    optimizer.state[p]["momentum_buffer"] = optimizer.state[p]["momentum_buffer"].cuda()
    before = p.detach().clone()
    p.grad = torch.ones(100)
    optimizer.step()
    torch.testing.assert_close(p.detach(), before - 0.1 * 1.9)


def test_more_than_2_31_elements():
    count = 2**31 + 300
    free, _ = torch.cuda.mem_get_info()
    if free < 3 * 2 * count + 4e9:
        pytest.skip(f"needs more memory than {free / 1e9:.0f} GB")
    p = torch.empty(count, dtype=torch.bfloat16).normal_().requires_grad_()
    p.grad = torch.empty_like(p).normal_()
    start, grad = p.detach()[-1000:].clone(), p.grad[-1000:].clone()
    optimizer = fused_ml.optim.SGD([p], lr=0.5, max_grad_norm=1e9)
    optimizer.step()
    last = start.requires_grad_()
    last.grad = grad
    fused_ml.optim.SGD([last], lr=0.5).step()
    assert torch.equal(p.detach()[-1000:], last.detach())
    assert optimizer.grad_norm.item() == pytest.approx(count**0.5, rel=1e-3)

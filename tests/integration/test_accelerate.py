"""Accelerate around our optimizer in the place of torch's: it sees skipped steps, and its schedule waits for them."""

import pytest
import torch

import fused_ml.optim

accelerate = pytest.importorskip("accelerate", reason="the extra test-integration is not installed")
from accelerate.optimizer import AcceleratedOptimizer  # noqa: E402
from accelerate.scheduler import AcceleratedScheduler  # noqa: E402

OPTIMIZERS = {"SGD": {"lr": 0.5, "momentum": 0.9}, "Adam": {"lr": 0.5}, "AdamW": {"lr": 0.5}}
BAD = (False, True, True, False, True, False)


@pytest.fixture(autouse=True)
def accelerator():
    yield accelerate.Accelerator(cpu=True)
    accelerate.state.AcceleratorState._reset_state(True)


def train(module, name, **options):
    """Steps, some of whose gradients overflow; what Accelerate and its schedule made of each."""
    p = torch.linspace(-1, 1, 30).requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)  # Accelerate has none of its own for the CPU
    bare = getattr(module, name)([p], **OPTIMIZERS[name], **options)
    optimizer = AcceleratedOptimizer(bare, scaler=scaler)
    schedule = AcceleratedScheduler(torch.optim.lr_scheduler.StepLR(bare, 1, 0.5), optimizer)
    seen = []
    for bad in BAD:
        optimizer.zero_grad()
        scaler.scale((p * p).sum() * (torch.inf if bad else 1.0)).backward()
        optimizer.step()
        schedule.step()
        seen.append((optimizer.step_was_skipped, schedule.get_last_lr()[0], scaler.get_scale()))
    return p.detach(), seen


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_skipped_steps_are_seen_as_with_torchs_optimizer(name, options):
    ours, seen = train(fused_ml.optim, name, **options)
    theirs, expected = train(torch.optim, name, **options)
    assert seen == expected
    torch.testing.assert_close(ours, theirs)
    if not options.get("fused"):  # Accelerate sees nothing of a step that skips by itself, torch's or ours
        assert [skipped for skipped, _, _ in seen] == list(BAD)
        assert [lr for _, lr, _ in seen] == [0.25, 0.25, 0.25, 0.125, 0.125, 0.0625]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_usual_loop(name, accelerator):
    """prepare, accumulate, clip_grad_norm_: the same parameters and states."""
    results = []
    for module in (fused_ml.optim, torch.optim):
        torch.manual_seed(5)
        model = torch.nn.Linear(6, 3)
        bare = getattr(module, name)(model.parameters(), **OPTIMIZERS[name])
        data = torch.utils.data.TensorDataset(torch.randn(32, 6), torch.randn(32, 3))
        model, optimizer, loader, schedule = accelerator.prepare(
            model, bare, torch.utils.data.DataLoader(data, batch_size=4), torch.optim.lr_scheduler.StepLR(bare, 2, 0.5)
        )
        for x, y in loader:
            with accelerator.accumulate(model):
                accelerator.backward(torch.nn.functional.mse_loss(model(x), y))
                accelerator.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        states = optimizer.state_dict()["state"]
        results.append([*model.parameters(), *(v for s in states.values() for v in s.values() if torch.is_tensor(v))])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)

"""What trainers do to torch's optimizers, under patch_torch: hooks, closures, schedulers, loss scaling, compilers."""

import pytest
import torch
from optimizers import assert_state_close, said, takes
from patching import MADE, TORCHS, Inherits, OwnGroups, fused_operators, parameter, step

import fused_ml

OPTIMIZERS = fused_ml.optim.FUSED


@pytest.mark.parametrize("cls", MADE)
def test_hooks_run_once(cls):
    with fused_ml.patch_torch():
        optimizer = cls([parameter()], lr=0.1)
        assert cls.step.hooked
        calls = []
        optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
        optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        with torch.autograd.profiler.profile() as profile:
            step(optimizer)
    assert calls == ["pre", "post"] or (calls == ["pre", "pre", "post", "post"] and "step" in vars(cls))
    expected, reference = [], cls([parameter()], lr=0.1)
    reference.register_step_pre_hook(lambda *_: expected.append("pre"))
    reference.register_step_post_hook(lambda *_: expected.append("post"))
    with torch.autograd.profiler.profile() as theirs:
        step(reference)
    assert calls == expected
    named = f"Optimizer.step#{cls.__name__}.step"
    counts = [sum(event.name == named for event in events.function_events) for events in (profile, theirs)]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("cls", MADE)
def test_closure_runs_once_with_grad_and_its_loss_is_returned(cls):
    p, seen = parameter(), []
    optimizer = cls([p], lr=0.1)

    def closure():
        seen.append(torch.is_grad_enabled())
        p.grad = torch.ones_like(p)
        return 7

    with fused_ml.patch_torch():
        assert optimizer.step(closure) == 7
        assert optimizer.step(closure=closure) == 7
        optimizer.state.clear()
        p.grad, p.data = None, p.data.to(torch.complex64)  # no kernel, and torch's step must not run it again
        fused_ml._explain._warned.clear()
        with pytest.warns(fused_ml.FusedFallbackWarning):
            assert optimizer.step(closure) == 7
    assert seen == [True] * 3


@pytest.mark.parametrize("made", ["before", "within"])
@pytest.mark.parametrize("cls", [*TORCHS, Inherits])
@pytest.mark.filterwarnings("error")
def test_schedulers(made, cls):
    """A scheduler keeps the `step` that it finds: made before, it steps by the kernels within, and by torch after."""

    def both():
        optimizer = cls([parameter()], lr=0.1)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    reference, reference_scheduler = both()
    optimizer, scheduler = both()
    if made == "within":
        with fused_ml.patch_torch():
            optimizer, scheduler = both()
    for patched in (True, False, True):
        if patched:
            with fused_ml.patch_torch():
                assert fused_operators(step, optimizer)
        else:
            assert not fused_operators(step, optimizer)
        scheduler.step()
        step(reference)
        reference_scheduler.step()
    assert optimizer.param_groups[0]["lr"] == reference.param_groups[0]["lr"] == 0.0125
    assert_state_close(optimizer, reference, 3)


@pytest.mark.parametrize(
    ("name", "fused"), [(n, f) for n in OPTIMIZERS for f in (None, True) if takes(n, said(fused=f))]
)
def test_grad_scaler_as_with_torchs_class(name, fused):
    """A finite step, one with an infinity, and another: parameters, states, gradients and scale as torch's."""

    def train():
        optimizer = getattr(torch.optim, name)([parameter()], lr=0.1, **said(fused=fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
        p, ran = optimizer.param_groups[0]["params"][0], []
        assert getattr(optimizer, "_step_supports_amp_scaling", False) is bool(fused)
        seen = []
        for value in (1.0, float("inf"), 2.0):
            p.grad = None
            scaler.scale((p * value).sum()).backward()
            ran.append(fused_operators(scaler.step, optimizer))
            scaler.update()
            seen.append((p.detach().clone(), p.grad.clone(), scaler.get_scale()))
        return optimizer, seen, ran

    reference, expected, _ = train()
    with fused_ml.patch_torch():
        optimizer, seen, ran = train()
    operator = {getattr(fused_ml.optim, name)._family.run}
    assert ran == ([set()] * 3 if fused else [operator, set(), operator])
    torch.testing.assert_close(seen, expected)
    assert_state_close(optimizer, reference, 3)
    assert vars(optimizer).keys() == vars(reference).keys()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_step_is_torchs_own(name, backend):
    torch._dynamo.reset()  # it gives up on code that it has met too often
    optimizer, reference = (getattr(torch.optim, name)([parameter()], lr=0.1) for _ in range(2))
    with fused_ml.patch_torch():
        compiled = torch.compile(optimizer.step, backend=backend)
        assert not fused_operators(compiled)
        compiled()
    compiled()
    for _ in range(3):
        torch.compile(reference.step, backend=backend)()
    assert torch.equal(*(o.param_groups[0]["params"][0] for o in (optimizer, reference)))
    with fused_ml.patch_torch():
        assert fused_operators(optimizer.step)  # compiled code is not in the way of what is not


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_training_step(name):
    def train():
        torch._dynamo.reset()
        torch.manual_seed(0)
        model, criterion = torch.nn.Linear(5, 5), torch.nn.CrossEntropyLoss()
        x, target = torch.linspace(-2, 2, 20).view(4, 5), torch.tensor([0, 4, 2, 1])
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)

        @torch.compile(backend="aot_eager")
        def train_step():
            optimizer.zero_grad()
            criterion(model(x), target).backward()
            optimizer.step()

        for _ in range(3):
            train_step()
        return model.weight

    expected = train()
    with fused_ml.patch_torch():
        torch.testing.assert_close(train(), expected)


def test_own_groups_after_torch_compile_looked_at_the_classes():
    """torch.compile puts another function of torch's in the place of `_init_group` of torch's classes."""
    torch._dynamo.reset()
    torch.compile(step, backend="eager")(torch.optim.AdamW([parameter()]))
    with fused_ml.patch_torch():
        for cls in TORCHS:
            assert fused_operators(step, cls([parameter()]))
        assert not fused_operators(step, OwnGroups([parameter()]))

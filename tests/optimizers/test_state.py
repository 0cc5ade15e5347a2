"""State of the optimizers: state_dicts from torch and to torch, copies, dtypes."""

import copy
import io
import pickle

import pytest
import torch
from optimizers import (
    OPTIONS,
    STATEFUL,
    Pair,
    assert_state_close,
    assert_unchanged,
    numbers,
    random_params,
    said,
    snapshot,
    with_fused,
)

import fused_ml
import fused_ml.optim


def make(case, params, module=fused_ml.optim, **extra):
    name, options = OPTIONS[case]
    return getattr(module, name)(params, **numbers(options), **extra)


def loaded(state_dict, how):
    """A state_dict by way of memory or of a file."""
    if how == "copy":
        return copy.deepcopy(state_dict)
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


# State goes from torch and to torch, mid-training.


@pytest.mark.parametrize("how", ["copy", "file"])
@pytest.mark.parametrize(("case", "fused"), with_fused(OPTIONS))
def test_checkpoint_from_torch_and_back(case, fused, how):
    pair = Pair(case, random_params(torch.float32, [(), (0,), (5, 7), (300,)]))
    reference = make(case, [p.clone().detach().requires_grad_() for p in pair.ours], torch.optim, foreach=False)
    theirs = reference.param_groups[0]["params"]

    def gradients():
        for p, q in zip(pair.ours, theirs, strict=True):
            p.grad = pair.gradient(p)
            q.grad = p.grad.clone()

    def both():
        for _ in range(2):
            gradients()
            ours.step()
            reference.step()

    ours = make(case, pair.ours, **said(fused=fused))
    both()
    middle = make(case, pair.ours, torch.optim, foreach=False)
    middle.load_state_dict(loaded(ours.state_dict(), how))
    ours = middle
    both()
    back = make(case, pair.ours, **said(fused=fused))
    back.load_state_dict(loaded(ours.state_dict(), how))
    ours = back
    both()
    assert_state_close(ours, reference, 10)


@pytest.mark.parametrize("case", STATEFUL)
def test_state_dict_is_torchs(case):
    pair = Pair(case, random_params(torch.float32), reference_dtype=torch.float32).step(2)
    ours, reference = pair.optimizer.state_dict(), pair.reference.state_dict()
    assert ours.keys() == reference.keys()
    assert [g.keys() for g in ours["param_groups"]] == [g.keys() for g in reference["param_groups"]]
    assert ours["state"].keys() == reference["state"].keys()
    for mine, theirs in zip(ours["state"].values(), reference["state"].values(), strict=True):
        assert list(mine) == list(theirs)
        for key in mine:
            assert (mine[key].dtype, mine[key].shape, mine[key].stride()) == (
                theirs[key].dtype,
                theirs[key].shape,
                theirs[key].stride(),
            )


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("fused", [None, True])
def test_dtype_of_the_step_count_is_torchs(fused, default):
    torch.set_default_dtype(default)
    try:
        steps = []
        for module in (fused_ml.optim, torch.optim):
            p = torch.ones(3, requires_grad=True)
            optimizer = module.Adam([p], fused=fused)
            for _ in range(2):
                p.grad = torch.ones(3)
                optimizer.step()
            steps.append(optimizer.state[p]["step"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert steps[0].dtype == steps[1].dtype
    assert steps[0] == steps[1] == 2


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("case", STATEFUL)
def test_copies_go_on_by_themselves(case, copier):
    pair = Pair(case, random_params(torch.float32), max_grad_norm=1e6).step(2)
    twin = copier(pair.optimizer)
    before = snapshot(pair.optimizer)
    assert twin.max_grad_norm == 1e6
    params = twin.param_groups[0]["params"]
    pair.set_gradients()
    for p, q in zip(params, pair.ours, strict=True):
        p.grad = q.grad.clone()
    twin.step()
    assert_unchanged(pair.optimizer, before)
    pair.reference.step()
    assert_state_close(twin, pair.reference, 5)


def test_float32_state_of_16_bit_parameters_survives_loading():
    params = [torch.ones(3, dtype=torch.float16, requires_grad=True)]
    optimizer = fused_ml.optim.Adam(params)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["exp_avg_sq"] = torch.full((3,), 1e6)
    saved["state"][0]["exp_avg"] = torch.full((3,), 1.0 + 2**-20)
    optimizer.load_state_dict(copy.deepcopy(saved))
    assert optimizer.state[params[0]]["exp_avg_sq"].tolist() == [1e6] * 3
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.float32
    optimizer.step()
    assert 0.9e6 < optimizer.state[params[0]]["exp_avg_sq"][0] < 1e6


class TestMaxGradNorm:
    """It is the constructor's, and in no checkpoint: neither one of torch's nor one of another clipping changes it."""

    @pytest.mark.parametrize("name", fused_ml.optim.FUSED)
    def test_is_what_the_constructor_was_given(self, name):
        p = torch.ones(3, requires_grad=True)

        def make(**options):
            return getattr(fused_ml.optim, name)([p], lr=0.1, **options)

        other, none = make(max_grad_norm=5.0), make()
        for saved in (make(max_grad_norm=0.1), make(), getattr(torch.optim, name)([p], lr=0.1)):
            assert saved.state_dict().keys() == {"state", "param_groups"}
            assert "max_grad_norm" not in saved.state_dict()["param_groups"][0]
            other.load_state_dict(saved.state_dict())
            none.load_state_dict(saved.state_dict())
            assert (other.max_grad_norm, none.max_grad_norm) == (5.0, None)
            getattr(torch.optim, name)([p], lr=0.1).load_state_dict(other.state_dict())

    @pytest.mark.parametrize("name", fused_ml.optim.FUSED)
    def test_is_no_option_of_a_group(self, name):
        p, q = (torch.ones(3, requires_grad=True) for _ in range(2))
        make = getattr(fused_ml.optim, name)
        with pytest.raises(ValueError, match="norm of all groups together"):
            make([{"params": [p], "max_grad_norm": 1.0}], lr=0.1)
        optimizer = make([p], lr=0.1, max_grad_norm=1.0)
        with pytest.raises(ValueError, match="norm of all groups together"):
            optimizer.add_param_group({"params": [q], "max_grad_norm": 2.0})
        saved = optimizer.state_dict()
        saved["param_groups"][0].update(lr=0.5, max_grad_norm=2.0)
        with pytest.raises(ValueError, match="norm of all groups together"):
            optimizer.load_state_dict(saved)
        assert len(optimizer.param_groups) == 1
        assert (optimizer.param_groups[0]["lr"], optimizer.max_grad_norm) == (0.1, 1.0)

    @pytest.mark.parametrize("name", fused_ml.optim.FUSED)
    def test_is_not_in_distributed_checkpoints_either(self, name):
        dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")
        model = torch.nn.Linear(3, 2)

        def make(norm):
            return getattr(fused_ml.optim, name)(model.parameters(), lr=0.1, max_grad_norm=norm)

        saved, other = make(0.1), make(5.0)
        model(torch.ones(1, 3)).sum().backward()
        saved.step()
        dcp.set_optimizer_state_dict(model, other, dcp.get_optimizer_state_dict(model, saved))
        assert other.max_grad_norm == 5.0
        other.step()

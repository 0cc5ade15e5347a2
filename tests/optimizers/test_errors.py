"""Bad input changes nothing, and what has no kernel is torch's step."""

import warnings

import pytest
import torch
from optimizers import (
    EXAMPLES,
    STATEFUL,
    Pair,
    assert_unchanged,
    snapshot,
)

import fused_ml
import fused_ml.optim

# Bad input: torch's exception, and nothing is changed.


@pytest.mark.parametrize("value", [-1.0, float("nan"), "one", True])
@pytest.mark.parametrize("name", EXAMPLES)
def test_bad_max_grad_norm(name, value):
    p = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError):
        getattr(fused_ml.optim, name)([p], max_grad_norm=value)
    optimizer = getattr(fused_ml.optim, name)([p])
    with pytest.raises(ValueError):
        optimizer.max_grad_norm = value


def wrong_shape(o, p):
    for value in o.state[p].values():
        if value.dim():
            value.data = torch.ones(2)


def overlapping(o, p):
    p.data = torch.ones(1).expand(3)


def missing(o, p):
    o.state[p].pop("exp_avg_sq", None)


def sparse(o, p):
    p.grad = torch.ones(3).to_sparse()


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (wrong_shape, RuntimeError, "expected the gradient and the states"),
        (overlapping, RuntimeError, "more than one element of the written-to tensor"),
        (sparse, RuntimeError, "does not support sparse gradients"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
@pytest.mark.parametrize("case", STATEFUL)
def test_bad_tensors_change_nothing(case, damage, error, words):
    if case.startswith("sgd") and damage is sparse:
        pytest.skip("SGD takes sparse gradients")
    pair = Pair(case, [torch.randn(3) for _ in range(3)]).step(2)
    pair.set_gradients()
    damage(pair.optimizer, pair.ours[1])
    before = snapshot(pair.optimizer)
    with pytest.raises(error, match=words):
        pair.optimizer.step()
    assert_unchanged(pair.optimizer, before)


def test_missing_state_is_torchs_error():
    pair = Pair("adam", [torch.randn(3)]).step()
    missing(pair.optimizer, pair.ours[0])
    with pytest.raises(KeyError, match="exp_avg_sq"):
        pair.optimizer.step()


# What the kernels cannot do is torch's, said once.


class Subclass(torch.Tensor):
    pass


FALLBACKS = [
    ("Adam", {}, torch.ones(3, dtype=torch.complex64), torch.ones(3, dtype=torch.complex64)),
    ("SGD", {"lr": 0.1}, torch.ones(3), torch.ones(3).to_sparse()),
    ("AdamW", {}, torch.nn.Parameter(torch.ones(3)).as_subclass(Subclass), torch.ones(3)),
]


@pytest.mark.parametrize(("name", "options", "p", "grad"), FALLBACKS)
def test_fallback_is_torchs_step_and_warns_once(name, options, p, grad, monkeypatch):
    monkeypatch.setattr("fused_ml._explain._warned", set())
    results = []
    for module in (fused_ml.optim, torch.optim):
        q = p.detach().clone().requires_grad_()
        optimizer = getattr(module, name)([q], **options)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(3):
                q.grad = grad.clone()
                optimizer.step()
        results.append(q.detach())
        ours = [w for w in seen if issubclass(w.category, fused_ml.FusedFallbackWarning)]
        assert len(ours) == (module is fused_ml.optim)
    assert torch.equal(*results)


def test_differentiable_is_torchs_path():
    results = []
    for module in (fused_ml.optim, torch.optim):
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        p = x * 1
        lr = torch.tensor(0.1, requires_grad=True)
        optimizer = module.SGD([torch.ones(2, requires_grad=True)], lr=lr, differentiable=True)
        optimizer.param_groups[0]["params"] = [p]
        p.grad = x * 3
        optimizer.step()
        p.sum().backward()
        results += [x.grad, lr.grad]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])
    assert results[1] is not None


def test_duplicate_parameters_are_torchs():
    results = []
    for module in (fused_ml.optim, torch.optim):
        p = torch.ones(3, requires_grad=True)
        with pytest.warns(UserWarning, match="duplicate"):
            optimizer = module.Adam([p, p], foreach=False)
        for _ in range(2):
            p.grad = torch.ones(3)
            optimizer.step()
        results.append(p.detach())
    assert torch.equal(*results)

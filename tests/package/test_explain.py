"""Which calls the kernels answer and which torch: listed, with reason and line, and warned about at the user's."""

import inspect
import warnings
from pathlib import Path

import pytest
import torch
from calls import INDEX, numbers, rows
from torch.fx.experimental.proxy_tensor import make_fx

import fused_ml
import fused_ml.nn.functional as F
from fused_ml import _explain, nn, optim

X = numbers(0, 6, 5, dtype=torch.float32)
NAMES = [f"nn.functional.{name}" for name in F.FUSED]


class Watching(torch.Tensor):
    """Sees what is done with it."""


def leaf():
    return X.clone().requires_grad_()


def found_in(call, name):
    """The calls of `name` alone, and all of them."""
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fused_ml.explain(call)
    return [seen for seen in found.calls if seen.name == name], found


@pytest.mark.parametrize("row", rows, ids=str)
class TestFunctions:
    def test_by_a_kernel(self, row):
        name = f"nn.functional.{row.name}"
        for x in (X, leaf()):
            seen, _ = found_in(lambda x=x: row.call(F, x), name)
            assert {(call.fused, call.reason, call.compiled) for call in seen} == {(True, "", False)}

    @pytest.mark.parametrize(
        ("reason", "mode"),
        {
            "input is a Watching": lambda f: f(X.as_subclass(Watching)),
            "transform": lambda f: torch.func.grad(lambda x: f(x).sum())(X),
            "jit.trace": lambda f: torch.jit.trace(f, X, check_trace=False),
            "mode": lambda f: make_fx(f)(X),
        }.items(),
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_by_torch(self, row, reason, mode):
        seen, _ = found_in(lambda: mode(lambda x: row.call(F, x)), f"nn.functional.{row.name}")
        assert seen
        assert all(not call.fused and reason in call.reason for call in seen)

    def test_compiled(self, row):
        seen, _ = found_in(
            lambda: torch.compile(lambda x: row.call(F, x), backend="eager")(X), f"nn.functional.{row.name}"
        )
        assert [(call.fused, call.compiled) for call in seen] == [(True, True)]
        assert all(Path(call.where).name.startswith(("calls.py:", "rows.py:")) for call in seen)  # the row's line

    def test_a_compiled_transform_is_torchs(self, row):
        def compiled():
            return torch.compile(torch.func.grad(lambda x: row.call(F, x).sum()), backend="eager")(X)

        seen, _ = found_in(compiled, f"nn.functional.{row.name}")
        assert [(call.fused, call.compiled) for call in seen] == [(False, True)]

    def test_exported(self, row):
        class Model(torch.nn.Module):
            def forward(self, x):
                return row.call(F, x)

        seen, _ = found_in(lambda: torch.export.export(Model(), (X,)), f"nn.functional.{row.name}")
        assert seen
        assert not any(call.fused for call in seen)

    def test_a_differentiated_gradient_is_torchs(self, row):
        def twice():
            x = leaf()
            torch.autograd.grad(row.call(F, x).sum(), x, create_graph=True)

        seen, found = found_in(twice, f"nn.functional.{row.name} (backward)")
        assert [call.reason for call in seen] == ["the gradient is differentiated (create_graph=True)"]
        assert any(call.fused for call in found.calls)


def test_every_function_is_in_the_table():
    assert {f"nn.functional.{row.name}" for row in rows} >= set(NAMES)


class TestOptimizers:
    @pytest.mark.parametrize("name", optim.FUSED)
    @pytest.mark.parametrize("patched", [False, True])
    def test_by_a_kernel(self, name, patched):
        def run():
            p = leaf()
            with fused_ml.patch_torch() if patched else warnings.catch_warnings():
                stepping = getattr(torch.optim if patched else optim, name)([p], lr=0.1)
                p.sum().backward()
                stepping.step()

        seen, _ = found_in(run, f"optim.{name}")
        assert [call.fused for call in seen] == [True]

    @pytest.mark.parametrize("name", optim.FUSED)
    @pytest.mark.parametrize(
        ("reason", "dtype", "options"),
        [
            ("no kernel for torch.complex64", torch.complex64, {}),
            ("options", torch.float32, {"differentiable": True}),
        ],
    )
    def test_by_torch(self, name, reason, dtype, options):
        def run():
            p = torch.ones(3, dtype=dtype, requires_grad=True)
            stepping = getattr(optim, name)([p if not options else p.clone()], lr=0.1, **options)
            stepping.param_groups[0]["params"][0].grad = torch.ones(3, dtype=dtype)
            stepping.step()

        seen, _ = found_in(run, f"optim.{name}")
        assert [(call.fused, reason in call.reason) for call in seen] == [(False, True)]

    @pytest.mark.parametrize("name", optim.FUSED)
    @pytest.mark.parametrize(("lr", "reason"), [(0.1, ""), (torch.tensor(0.1), "torch.compile compiles torch's step")])
    def test_compiled(self, name, lr, reason):
        p = leaf()
        stepping = getattr(optim, name)([p], lr=lr)
        p.sum().backward()
        seen, _ = found_in(torch.compile(stepping.step, backend="eager"), f"optim.{name}")
        assert [(call.reason, call.compiled) for call in seen] == [(reason, True)]


class TestExplanation:
    def test_lists_the_line_the_count_and_the_result(self):
        with fused_ml.explaining() as found:
            for _ in range(3):
                F.softmax(X, 1)  # here
        (call,) = found.calls
        lines, first = inspect.getsourcelines(type(self).test_lists_the_line_the_count_and_the_result)
        here = first + next(i for i, line in enumerate(lines) if line.endswith("# here\n"))
        assert (call.where, found.counts[call]) == (f"{__file__}:{here}", 3)
        assert fused_ml.explain(F.softmax, X, dim=1).result.shape == X.shape

    def test_is_a_table(self):
        text = str(fused_ml.explain(nn.CrossEntropyLoss(), X, INDEX))
        header, row = text.splitlines()
        assert header.split() == ["call", "times", "by", "at", "why"]
        assert row.split()[:3] == ["nn.functional.cross_entropy", "1", "kernel"]
        assert str(fused_ml.explain(lambda: None)) == "no call of a fused name was met"

    def test_ends_with_its_block_and_nests(self):
        with fused_ml.explaining() as outer:
            F.softmax(X, 1)
            with fused_ml.explaining() as inner:
                F.log_softmax(X, 1)
        F.softmin(X, 1)
        assert [call.name.rpartition(".")[2] for call in outer.calls] == ["softmax", "log_softmax"]
        assert [call.name.rpartition(".")[2] for call in inner.calls] == ["log_softmax"]
        with pytest.raises(ValueError, match="again"), fused_ml.explaining():
            raise ValueError("again")
        assert not _explain.listening

    def test_what_was_compiled_before_is_traced_anew_once(self):
        torch.compiler.reset()
        compiled = torch.compile(lambda x: F.softmax(x, 1), backend="eager")
        compiled(X)
        assert [call.compiled for call in fused_ml.explain(compiled, X).calls] == [True]

    def test_changes_no_number(self):
        plain = F.cross_entropy(X, INDEX)
        assert torch.equal(fused_ml.explain(F.cross_entropy, X, INDEX).result, plain)


WATCHED = X.as_subclass(Watching)
DEEP = {  # ways to a call: the functions between the user's line and the warning vary
    "function": lambda: F.log_softmax(WATCHED, 1),
    "module": lambda: nn.LogSoftmax(1)(WATCHED),
    "nested modules": lambda: torch.nn.Sequential(torch.nn.Sequential(nn.LogSoftmax(1)))(WATCHED),
    "module with hooks": lambda: hooked(WATCHED),
    "options of its own": lambda: F.cross_entropy(WATCHED, INDEX, z_loss=0.1),
    "bce": lambda: nn.BCEWithLogitsLoss()(WATCHED, X),
}


def hooked(x):
    module = nn.LogSoftmax(1)
    module.register_forward_pre_hook(lambda *_: None)
    return module(x)


class TestWarning:
    @pytest.mark.parametrize("way", DEEP)
    def test_is_at_the_users_line_whatever_lies_between(self, way, monkeypatch):
        monkeypatch.setattr(_explain, "_warned", set())
        with pytest.warns(fused_ml.FusedFallbackWarning) as caught:
            DEEP[way]()
        assert [w.filename for w in caught if w.category is fused_ml.FusedFallbackWarning] == [__file__]

    def test_of_a_step_is_at_the_users_line(self, monkeypatch):
        monkeypatch.setattr(_explain, "_warned", set())
        p = torch.ones(3, dtype=torch.complex64, requires_grad=True)
        stepping = optim.AdamW([p])
        p.grad = torch.ones_like(p)
        schedule = optim.lr_scheduler.StepLR(stepping, 1)  # which wraps the step
        with pytest.warns(fused_ml.FusedFallbackWarning, match="complex64") as caught:
            stepping.step()
        schedule.step()
        assert [w.filename for w in caught] == [__file__]

    def test_comes_once_for_each_name_and_reason(self, monkeypatch):
        monkeypatch.setattr(_explain, "_warned", set())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                F.softmax(WATCHED, 1)
                F.softmin(WATCHED, 1)
                torch.func.vmap(lambda x: F.softmax(x, 0))(X)
        assert len([w for w in caught if w.category is fused_ml.FusedFallbackWarning]) == 3

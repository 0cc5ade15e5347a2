"""The optimizers' compiled side: threads, instruction sets, denormals, operators, torch's test tables."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import _torch_internal  # noqa: F401  (a stub of what torch's tables import)
import pytest
import torch
from optimizers import BRIEF, DTYPES, EXAMPLES, OPTIONS, STATEFUL, Pair, close, numbers, random_params, takes
from torch.testing._internal.common_optimizers import optim_db

import fused_ml
import fused_ml.optim

BIG = [(70_000,), (3,), (128, 513), (100_001,)]
TABLES = [info for info in optim_db if info.optim_cls.__name__ in EXAMPLES]


def bits(tensors):
    return [t.detach().flatten().view(torch.uint8).clone() for t in tensors]


# Threads.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", BRIEF)
def test_same_bits_for_any_number_of_threads(case, dtype):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            pair = Pair(case, random_params(dtype, BIG), max_grad_norm=3.0)
            for _ in range(2):
                pair.set_gradients("transposed")
                pair.optimizer.step()
            results.append([*bits(pair.ours), *bits([pair.optimizer.grad_norm])])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, results[0], result))


# Instruction sets.

FORCED = """
import sys, torch, fused_ml
sys.path.insert(0, sys.argv[2])
from optimizers import BRIEF, DTYPES, LAYOUTS, SHAPES, Pair, random_params
assert fused_ml.cpu_isa() == sys.argv[1]
for case in [*BRIEF, "sgd momentum", "adam"]:
    for dtype in DTYPES:
        for layout in (None, "transposed"):
            shapes = [s for s in SHAPES if layout is None or len(s) > 1] + [(37, 259)]
            Pair(case, random_params(dtype, shapes), max_grad_norm=1e9).step(3, layout).check()
print("ran on", fused_ml.cpu_isa())
"""


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_forced_instruction_set(level):
    if level not in fused_ml.cpu_isas_supported():
        pytest.skip(f"this CPU has no {level}")
    here = str(Path(__file__).parents[1])
    paths = os.pathsep.join([os.path.dirname(os.path.dirname(fused_ml.__file__)), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", FORCED, level, here],
        env={**os.environ, "FUSED_ML_ISA": level, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"ran on {level}", done.stderr


# Denormals.


@pytest.mark.parametrize("case", STATEFUL)
def test_underflowed_moments_become_zero(case):
    pair = Pair(case, [torch.randn(70_000)]).step()
    state = pair.optimizer.state[pair.ours[0]]
    for key in set(state) - {"step"}:
        state[key].fill_(1e-39)
    pair.ours[0].grad = torch.zeros(70_000)
    pair.optimizer.param_groups[0]["weight_decay"] = 0
    pair.optimizer.step()
    for key in set(state) - {"step", "max_exp_avg_sq"}:  # the maximum is chosen, not computed
        assert (state[key] == 0).all()


def test_flush_to_zero_is_restored():
    tiny = torch.full((100_000,), 1e-39)
    Pair("adam", [torch.randn(100_000)], max_grad_norm=1.0).step()
    assert (tiny * 0.5 != 0).all()  # in every thread of the pool


def test_denormal_halves_are_numbers():
    p = torch.full((100,), 2.0**-24, dtype=torch.float16, requires_grad=True)
    p.grad = torch.full((100,), -(2.0**-24), dtype=torch.float16)
    fused_ml.optim.SGD([p], lr=1.0).step()
    assert (p == 2.0**-23).all()


# Operators.


def list_arguments(case):
    """Of a family's operator over lists, for the next step of the case; and the parameters after it."""
    pair = Pair(case, random_params(torch.float32)).step(2)
    twin = Pair(case, random_params(torch.float32)).step(2)
    pair.set_gradients()
    pair.optimizer.step()
    family, (group,) = twin.optimizer._family, twin.optimizer.param_groups
    params, kept = [p.detach() for p in twin.ours], [twin.optimizer.state[p] for p in twin.ours]
    mask = family.states_of(group)
    states = [state[name] for state in kept for name in family.names(mask)]
    steps = [state["step"] for state in kept] if family.counts else []
    operator = getattr(torch.ops.fused_ml, family.run_lists)
    return operator, (params, [q.grad for q in pair.ours], states, steps, mask, family.numbers(group)), pair.ours


@pytest.mark.parametrize("case", BRIEF)
def test_opcheck(case):
    operator, arguments, _ = list_arguments(case)
    torch.library.opcheck(operator.default, (*arguments, False, torch.tensor(0.5)))


@pytest.mark.parametrize("case", BRIEF)
def test_list_operator_is_the_eager_step(case):
    operator, arguments, expected = list_arguments(case)
    operator(*arguments)
    assert all(map(torch.equal, bits(arguments[0]), bits(expected)))


@pytest.mark.parametrize("case", BRIEF)
def test_list_operator_compiles(case):
    operator, arguments, expected = list_arguments(case)
    before = [step.item() for step in arguments[3]]
    torch.compile(lambda *a: operator(*a), backend="aot_eager", fullgraph=True)(*arguments)
    assert all(map(torch.equal, bits(arguments[0]), bits(expected)))
    assert [step.item() for step in arguments[3]] == [count + 1 for count in before]


@pytest.mark.parametrize("case", ["sgd all", "adamw decay"])
def test_compiled_step_is_torchs(case):
    pair = Pair(case, [torch.randn(5, 5)])
    pair.set_gradients()
    torch.compile(pair.optimizer.step, backend="eager")()
    pair.reference.step()
    pair.step().check()


def lists_of_adam():
    params = random_params(torch.float32, [(3, 5), (), (0,), (300,)])
    states = [torch.zeros_like(p) for p in params for _ in range(2)]
    steps = [torch.zeros(()) for _ in params]
    return [params, [torch.ones_like(p) for p in params], states, steps, 3, [0.1, 0.9, 0.99, 1e-8, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a[0].append(torch.ones(3)), "states: expected 2 for each of 5"),
        (lambda a: a[1].append(torch.ones(3)), "4 parameters; got 4 and 5 gradients"),
        (lambda a: a[1].__setitem__(0, torch.ones(4)), "cannot be stepped"),
        (lambda a: a[1].__setitem__(0, torch.ones(3, 5, dtype=torch.float64)), "cannot be stepped"),
        (lambda a: a[2].pop(), "states: expected 2 for each of 4"),
        (lambda a: a[3].pop(), "steps: one for each parameter"),
        (lambda a: a[3].clear(), "adam: expected a step count"),
        (lambda a: a[3].__setitem__(0, torch.zeros((), dtype=torch.int64)), "cannot be stepped"),
        (lambda a: a.__setitem__(4, 5), "adam has no update of parameters with the states 5"),
        (lambda a: a.__setitem__(4, -3), "by bit: expected at most 3|states: expected"),
        (lambda a: a[5].pop(), "expected 7 options"),
    ],
)
def test_list_operator_refuses_bad_lists_and_changes_nothing(change, words):
    arguments = lists_of_adam()
    change(arguments)
    before = [t.clone() for group in arguments[:4] for t in group]
    with pytest.raises(RuntimeError, match=words):
        torch.ops.fused_ml.adam_(*arguments)
    assert all(map(torch.equal, before, [t for group in arguments[:4] for t in group]))


def test_list_operator_refuses_a_factor_that_is_no_number():
    param, factor = torch.ones(3), torch.ones(2)
    with pytest.raises(RuntimeError, match="gradient_factor: expected one number on the CPU"):
        torch.ops.fused_ml.sgd_([param], [torch.ones(3)], [], [], 0, [0.1, 0.0, 0.0, 0.0, 0.0, 0.0], False, factor)
    assert torch.equal(param, torch.ones(3))


def test_unknown_plan_is_refused():
    with pytest.raises(RuntimeError, match="no multi_tensor plan -1"):
        torch.ops.fused_ml.adam_run(-1, [])


# torch's own tables.


def table_inputs(info):
    return [
        pytest.param(info, i.kwargs, id=f"{info.optim_cls.__name__} {i.desc}") for i in info.optim_inputs_func("cpu")
    ]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("info", "options"), [case for info in TABLES for case in table_inputs(info)])
def test_torchs_sample_inputs(info, options, dtype):
    name = info.optim_cls.__name__
    params = [p.requires_grad_() for p in random_params(dtype)]
    wide = [p.detach().double().requires_grad_() for p in params]
    ours = getattr(fused_ml.optim, name)(params, **options)
    reference = info.optim_cls(wide, **{**numbers(options), "foreach": False})
    for _ in range(4):
        for p, q in zip(params, wide, strict=True):
            p.grad = torch.randn(p.shape).to(dtype)
            q.grad = p.grad.double()
        ours.step()
        reference.step()
    for p, q in zip(params, wide, strict=True):
        close(p, q, 4)


def table_errors(info):
    errors = info.optim_error_inputs_func("cpu", torch.float32)
    return [pytest.param(info, e, id=f"{info.optim_cls.__name__} {e.optimizer_error_input.desc}") for e in errors]


@pytest.mark.parametrize(("info", "error"), [case for info in TABLES for case in table_errors(info)])
def test_torchs_error_inputs(info, error):
    given = error.optimizer_error_input
    params = given.params if given.params is not None else [torch.ones(2, requires_grad=True)]
    ours = getattr(fused_ml.optim, info.optim_cls.__name__)
    if issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            ours(params, **given.kwargs)
    else:
        with warnings.catch_warnings(), pytest.raises(error.error_type, match=error.error_regex):
            ours(params, **given.kwargs)


@pytest.mark.parametrize("options", [{"fused": True, "foreach": True}, {"fused": True, "differentiable": True}])
@pytest.mark.parametrize("name", [name for name in EXAMPLES if takes(name, {"fused": True})])
def test_options_that_exclude_one_another(name, options):
    with pytest.raises(RuntimeError, match="`fused`"):
        getattr(fused_ml.optim, name)([torch.ones(2, requires_grad=True)], **options)


@pytest.mark.parametrize("case", OPTIONS)
def test_foreach_and_fused_are_accepted(case):
    results = []
    name, options = OPTIONS[case]
    flags = ({}, {"foreach": False}, {"foreach": True}, {"fused": True}, {"fused": False})
    for extra in (each for each in flags if takes(name, each)):
        p = torch.linspace(-1, 1, 50).requires_grad_()
        optimizer = getattr(fused_ml.optim, name)([p], **numbers(options), **extra)
        p.grad = torch.linspace(1, 2, 50)
        optimizer.step()
        results.append(p.detach())
    assert all(torch.equal(results[0], result) for result in results)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if takes(name, {"capturable": True})])
def test_capturable_on_the_cpu_is_torchs_error(name):
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    with pytest.raises(AssertionError, match="capturable"):
        getattr(fused_ml.optim, name)([p], capturable=True).step()

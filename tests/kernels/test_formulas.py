"""Each formula of formulas/numeric.h by itself, at every instruction set: its largest error, in ulps.

float32 against float64, over bit patterns: `raw.sweep` runs through them in C++. exp, log and log1p meet every float32
there is (with --exhaustive all formulas do, at every level), the rest one in STRIDE, and all around every power of two
and every threshold. float64 against NumPy's long double, over numbers of every exponent.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import fused_ml

raw = pytest.importorskip(
    "bench.raw", reason="the raw module needs the sources and pybind11", exc_type=ModuleNotFoundError
)

LEVELS = ("baseline", "avx2", "avx512")
BEST = fused_ml.cpu_isas_supported()[-1]
STRIDE = 61  # a prime, so that all low bits are met
THREADS = 2
INF = float("inf")
EVERY = ((0, 1 << 32),)


def pattern(x):
    return int(np.float32(x).view(np.uint32))


def between(low, high):
    """The patterns of [low, high], low <= 0 <= high; in the order in which patterns grow, away from 0."""
    return (0, pattern(high) + 1), (1 << 31, pattern(-abs(float(low))) + 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal_cdf(x):
    """By its series near 0, and by Mills' ratio as a continued fraction."""
    t = np.abs(x)
    near = np.minimum(t, 3)
    term, total = near.copy(), near.copy()
    for n in range(1, 80):
        term = term * near * near / (2 * n + 1)
        total = total + term
    far = np.maximum(t, 3)
    mills = far
    for n in range(400, 0, -1):
        mills = far + n / mills
    bell = np.exp(-t * t / 2) / np.sqrt(2 * np.longdouble("3.14159265358979323846264338327950288"))
    tail = np.where(t < 3, 0.5 - bell * total, bell / mills)
    return np.where(x < 0, tail, 1 - tail)


class Formula(NamedTuple):
    name: str
    reference: Callable  # of long doubles
    ulps: tuple[float, float]  # limits, float32 and float64: what was measured, and 3 % for other compilers
    thresholds: tuple[float, ...]  # where the code takes another way
    patterns: tuple = EVERY  # float32: where the formula is defined
    domain: tuple[float, float] = (-INF, INF)  # float64: likewise
    flushed: bool = False  # a result below the smallest normal number may be 0


EXP_LOW, EXP_HIGH = -87.3365402, 88.7228394
FORMULAS = (
    Formula("exp", np.exp, (1.04, 1.02), (EXP_LOW, EXP_HIGH, -708.396418532264, 709.782712893384), flushed=True),
    Formula("log", np.log, (0.87, 0.85), (0.70710678, 1.41421356, 1.17549435e-38, 2.0**127.5)),
    Formula("log1p", np.log1p, (1.44, 1.43), (-1, -0.29289322, 0.41421356, 1, 2.0**127.5)),
    Formula("expm1", np.expm1, (1.6, 1.96), (-40, -0.34657359, 0.34657359), between(-INF, 44.36), (-INF, 354)),
    Formula("tanh", np.tanh, (2.75, 2.46), (-20, 20, 0.17328680)),
    Formula("sigmoid", sigmoid, (2.48, 2.34), (EXP_LOW, -EXP_LOW, -708.396418532264), flushed=True),
    Formula("exp_nonpositive", np.exp, (1.04, 1.02), (EXP_LOW,), ((1 << 31, 1 << 32),), (-INF, 0), flushed=True),
    Formula("normal_cdf", normal_cdf, (4.15, 3.5), (-14, 14, 0, -13.2, 5.5), domain=(-39, 39), flushed=True),
    Formula("log1p_of_fraction", np.log1p, (1.44, 1.43), (0.41421356, 1), between(0, 1), (0, 1)),
)
BY_NAME = {formula.name: formula for formula in FORMULAS}


@pytest.fixture(params=LEVELS)
def isa(request):
    """A level that this CPU has; the module and the library both say that they were compiled for it."""
    if request.param not in fused_ml.cpu_isas_supported():
        pytest.skip(f"this CPU has no {request.param}")
    assert raw.compiled_for(request.param) == (request.param, request.param)
    return request.param


@pytest.fixture(params=FORMULAS, ids=lambda formula: formula.name)
def formula(request):
    return request.param


def assert_accurate(formula, isa, patterns, stride=1):
    """Over float32s by their patterns."""
    options = {"stride": stride, "flushed": formula.flushed, "threads": THREADS, "isa": isa}
    ulps, bits = max(raw.sweep(formula.name, first=first, last=last, **options) for first, last in patterns)
    where = np.uint32(bits).view(np.float32)
    assert ulps <= formula.ulps[0], f"{formula.name} at {isa}: {ulps:.4g} ulp at {where!r} ({bits:#010x})"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "log", "log1p"])
def test_every_float32(name):
    assert_accurate(BY_NAME[name], BEST, BY_NAME[name].patterns)


def test_float32(formula, isa, request):
    stride = 1 if request.config.getoption("--exhaustive") else STRIDE
    assert_accurate(formula, isa, formula.patterns, stride)


def test_float32_at_the_edges(formula, isa):
    """Zeros, infinities, NaNs, denormals, the first and last numbers of every binade, the thresholds."""
    for first, last in formula.patterns:
        edges = [first, last, *(exponent << 23 for exponent in range(513)), *map(pattern, formula.thresholds)]
        near = [(max(first, edge - 40), min(last, edge + 41)) for edge in edges]
        assert_accurate(formula, isa, [(start, stop) for start, stop in near if start < stop])


def float64s(formula):
    """Of every exponent and sign, random and at the ends; more where results vary and around the thresholds."""
    generator = np.random.default_rng(7)
    binades = np.arange(4096, dtype=np.uint64)[:, None] << 52
    inner = binades + generator.integers(0, 1 << 52, (4096, 64), dtype=np.uint64)
    ends = binades + np.arange(-3, 4).astype(np.uint64)
    around = [np.linspace(x * (1 - 1e-3), x * (1 + 1e-3), 20_001) for x in formula.thresholds]
    uniform = [generator.uniform(-width, width, 200_000) for width in (746, 3, 0.01)]
    x = np.concatenate([inner.ravel().view(np.float64), ends.ravel().view(np.float64), *around, *uniform])
    low, high = formula.domain
    return x[~((x < low) | (x > high))]  # NaNs stay


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="long double is no wider than double here")
def test_float64(formula, isa):
    x = float64s(formula)
    got = getattr(raw, formula.name)(x, isa=isa)
    with np.errstate(all="ignore"):
        expected = formula.reference(x.astype(np.longdouble))
        rounded = expected.astype(np.float64)
        ulp = np.ldexp(np.longdouble(1), np.maximum(np.frexp(expected)[1] - 1, -1022) - 52)
        error = np.abs(got - expected) / ulp
    fine = np.isnan(got) & np.isnan(expected) | np.isinf(got) & (got == rounded)
    if formula.flushed:
        fine |= (got == 0) & (np.abs(expected) < np.finfo(np.float64).tiny)
    error = np.where(fine, 0, np.nan_to_num(error, nan=INF, posinf=INF))
    worst = int(error.argmax())
    assert error[worst] <= formula.ulps[1], f"{formula.name} at {isa}: {error[worst]:.4g} ulp at {x[worst]!r}"


def test_exact_values(isa):
    for dtype in (np.float32, np.float64):
        zeros = np.array([0.0, -0.0], dtype)
        np.testing.assert_array_equal(raw.exp(zeros, isa=isa), 1)
        np.testing.assert_array_equal(raw.sigmoid(zeros, isa=isa), 0.5)
        np.testing.assert_array_equal(np.signbit(raw.tanh(zeros, isa=isa)), [False, True])
        np.testing.assert_array_equal(raw.tanh(np.array([40, -INF], dtype), isa=isa), [1, -1])
        np.testing.assert_array_equal(raw.log(np.array([1, 0, -0.0, INF], dtype), isa=isa), [0, -INF, -INF, INF])
        np.testing.assert_array_equal(raw.log1p(np.array([0, -1, INF], dtype), isa=isa), [0, -INF, INF])


PEAKS = (0, 3, -7.3, 1e-3, 5e-40, 43.7, 87.9, -150.2, 200, 207.99, 208.1, -208.1, 1499, 1501, 1e4, -1e5, 1e30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("peak", PEAKS, ids=str)
def test_exp_below(peak, dtype, isa):
    """term(x) / term(m) is exp(x - m) as if x - m were exact; two terms share what factor they have."""
    generator = np.random.default_rng(3)
    low = {np.float32: -87.33, np.float64: -708.3}[dtype]
    m = dtype(peak)
    spread = (generator.uniform(low, 0, 300_000), *(-generator.exponential(size, 30_000) for size in (1, 1e-3)))
    x = np.concatenate([m + below for below in spread]).astype(dtype)
    exponent = x.astype(np.longdouble) - np.longdouble(m)
    x, exponent = x[(exponent <= 0) & (exponent > low)], exponent[(exponent <= 0) & (exponent > low)]
    value, rest = raw.exp_below(x, float(m), isa=isa)
    term = value.astype(np.longdouble) + rest
    error = np.abs(term[:-1] / term[-1] / np.exp(exponent) - 1) / np.finfo(dtype).eps
    assert error.max() <= 1.0, f"{error.max():.4g} eps at {x[error.argmax()]!r}"
    # The value alone errs by 0.23 eps as a rule, with its rest by 0.1; far down the rest is a denormal number.
    assert np.sqrt((error[exponent > low / 2] ** 2).mean()) <= 0.12


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_exp_below_far_from_the_peak(dtype, isa):
    lowest = np.finfo(dtype).min
    for peak in (*PEAKS, -INF):
        value, rest = raw.exp_below(np.array([-INF, lowest, np.nan], dtype), peak, isa=isa)
        np.testing.assert_array_equal(value[:3], [0, 0, np.nan])
        np.testing.assert_array_equal(rest[:2], 0)


def test_instruction_sets_differ(request):
    """What is named AVX2 and AVX-512 has FMA, the baseline of x86-64 has not: other last bits prove what ran."""
    if BEST == "baseline":
        pytest.skip("one instruction set only")
    x = np.linspace(-10, 10, 100_001, dtype=np.float32)
    baseline, best = raw.exp(x, isa="baseline"), raw.exp(x, isa=BEST)
    np.testing.assert_allclose(best, baseline, rtol=1e-6)
    assert (best != baseline).any()

"""Errors in units of the last place, and the assertions made of them."""

import torch

MANTISSA = {torch.float64: 52, torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}
LEAST_EXPONENT = {torch.float64: -1022, torch.float32: -126, torch.bfloat16: -126, torch.float16: -14}


def ulp_of(reference, dtype):
    """The distance between neighbouring numbers of `dtype` at each element of a float64 `reference`."""
    _, exponent = torch.frexp(reference.double().abs())
    exponent = (exponent - 1).clamp(min=LEAST_EXPONENT[dtype]) - MANTISSA[dtype]
    return torch.ldexp(torch.ones_like(reference, dtype=torch.float64), exponent)


def ulps(actual, reference):
    """|actual - reference| in ulps of actual's dtype: 0 where both are the same infinity or NaN."""
    reference = reference.double().cpu()
    got = actual.detach().double().cpu()
    same = (got == reference) | (got.isnan() & reference.isnan()) | (reference.to(actual.dtype).double() == got)
    error = (got - reference).abs() / ulp_of(reference.nan_to_num(0.0, 0.0, 0.0), actual.dtype)
    return torch.where(same, 0.0, error.nan_to_num(torch.inf))


def assert_within_ulps(actual, reference, limit, what=""):
    error = ulps(actual, reference)
    if error.numel() == 0 or error.max() <= limit:
        return
    worst = int(error.argmax())
    raise AssertionError(
        f"{what}: {error.flatten()[worst]:.3g} ulp of {actual.dtype} (limit {limit}) at element {worst} of "
        f"{tuple(actual.shape)}: got {actual.detach().flatten()[worst].item()!r}, "
        f"expected {reference.flatten()[worst].item()!r}"
    )


def assert_near(actual, reference, magnitude, roundings=1, what="", slack=None):
    """`actual` is `reference` computed in float32 (float64), then rounded `roundings` times to its dtype.

    `magnitude` is the size of the terms that were added up to make each element, >= |reference|: what cancels
    is lost to any computation in the same precision. `slack` is an absolute error that is allowed besides.
    """
    assert actual.shape == reference.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(reference.shape)}"
    reference, magnitude = reference.double().cpu(), magnitude.double().cpu()
    working = torch.float64 if actual.dtype == torch.float64 else torch.float32
    relative = (16 if working == torch.float32 else 100) * torch.finfo(working).eps
    allowed = relative * magnitude.abs() + 2 * torch.finfo(working).tiny
    if actual.dtype.itemsize == 2:
        allowed = allowed + (1.0 if roundings == 1 else 2.0) * ulp_of(reference.nan_to_num(0.0, 0.0, 0.0), actual.dtype)
    allowed = allowed if slack is None else allowed + slack
    got = actual.detach().double().cpu()
    rounded = reference.to(actual.dtype).double()
    fine = (got == rounded) | (got.isnan() & reference.isnan()) | ((got - reference).abs() <= allowed)
    if fine.all():
        return
    worst = int(torch.where(fine, 0.0, ((got - reference).abs() / allowed).nan_to_num(torch.inf)).argmax())
    raise AssertionError(
        f"{what}: {int((~fine).sum())} of {fine.numel()} elements of {tuple(actual.shape)} {actual.dtype} "
        f"are off, worst at {worst}: got {got.flatten()[worst].item()!r}, "
        f"expected {reference.flatten()[worst].item()!r}, "
        f"allowed error {allowed.expand(got.shape).flatten()[worst].item():.3g}"
    )


def assert_no_worse_than_torch(actual, torchs, reference, what="", dtype=None):
    """The largest error is at most twice torch's own (Tri Dao's rule), or a few ulp of the largest.

    `dtype`: what the numbers were rounded to on the way, if not the result's.
    """
    dtype = dtype or actual.dtype
    reference = reference.double().cpu()
    finite = reference.isfinite()
    if dtype == torch.float64 or not finite.any():  # the reference itself is no better than float64
        return
    ours = (actual.detach().double().cpu() - reference)[finite].abs().max()
    theirs = (torchs.detach().double().cpu() - reference)[finite].abs().max()
    floor = (2 if dtype.itemsize == 2 else 4) * ulp_of(reference[finite].abs().max(), dtype)
    assert theirs.isnan() or ours <= 2 * theirs + floor, f"{what}: error {ours:.3g}, torch's {theirs:.3g}"


def assert_same_form(actual, torchs, what=""):
    """Same shape, dtype, strides, device and need of a gradient."""
    for attribute in ("shape", "dtype", "device", "requires_grad", "is_leaf"):
        ours, theirs = getattr(actual, attribute), getattr(torchs, attribute)
        assert ours == theirs, f"{what}: {attribute} is {ours}, torch's is {theirs}"
    assert actual.stride() == torchs.stride(), f"{what}: strides {actual.stride()}, torch's {torchs.stride()}"


def same_bits(a, b):
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
    return a.shape == b.shape and torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))


def outcome(function, *arguments):
    """What a call returns, or the exception it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


def assert_same_outcome(ours, theirs):
    """The same exception with the same words; where torch gives a result, the same result."""
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), f"got {ours!r}, torch raises {theirs!r}"
        assert str(ours).splitlines()[0] == str(theirs).splitlines()[0]
    else:
        assert isinstance(ours, torch.Tensor), f"got {ours!r}, torch gives {theirs!r}"
        torch.testing.assert_close(ours, theirs, equal_nan=True)

"""Peak memory of one call, from the profiler's record of allocations."""

from __future__ import annotations

import torch

import fused_ml
from bench.timing import Step


def peak_bytes(step: Step) -> int | None:
    """The most bytes that one call holds at once beyond those live before it.

    Only what goes through PyTorch's allocator is seen. None where the profiler keeps no such record.
    """
    step.prepare()
    fused_ml.empty_cache()  # what would be used again counts too
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        step.call()
    try:
        events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
    except AttributeError:
        return None
    live = peak = 0
    for event in events:
        live += event.nbytes()
        peak = max(peak, live)
    return peak

"""How long a call should take on GPUs that are not here: a model, from bytes, launches and occupancy alone."""

from __future__ import annotations

from dataclasses import dataclass

from .sass import Kernel
from .traffic import Traffic

LATENCY = 700e-9  # seconds that a load from device memory takes under load
LAUNCH = 2e-6  # seconds that a kernel adds to those before it
COPY_SHARE = 0.92  # of the peak bandwidth, that a copy reaches


@dataclass(frozen=True)
class Gpu:
    name: str
    architecture: str
    multiprocessors: int
    bandwidth: float  # peak, bytes a second
    threads: int = 2048  # of a multiprocessor, at most
    registers: int = 65536
    shared: int = 228 << 10  # bytes of a multiprocessor


GPUS = (
    Gpu("A100", "80", 108, 2.04e12, shared=164 << 10),
    Gpu("H100", "90", 132, 3.35e12),
    Gpu("H200", "90", 132, 4.8e12),
    Gpu("B200", "100", 148, 8.0e12),
)


def occupancy(kernel: Kernel, threads: int, dynamic_shared: int, gpu: Gpu) -> float:
    """Share of a multiprocessor's threads that are resident. Threads get registers by eights."""
    registers = (kernel.registers + 7) // 8 * 8 * threads
    shared = kernel.shared + dynamic_shared + 1024  # the system keeps 1 KiB of each block's
    blocks = min(gpu.threads // threads, gpu.registers // registers, gpu.shared // shared, 32)
    return blocks * threads / gpu.threads


def share_of_copy(traffic: Traffic, scale: float, resident: float, gpu: Gpu) -> float:
    """Of a copy of the least bytes, for a tensor `scale` times as large; the second sweep is free (cached)."""
    bandwidth = gpu.bandwidth * COPY_SHARE
    in_flight = resident * gpu.threads * 16 * traffic.operands * gpu.multiprocessors
    reached = min(bandwidth, in_flight / LATENCY)
    least = (traffic.least_read + traffic.least_written) * scale
    moved = least * traffic.excess
    return (least / bandwidth + LAUNCH) / (moved / reached + LAUNCH * traffic.launches)

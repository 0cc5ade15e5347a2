"""What the numbers were taken on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path
from typing import Any

import torch

# Beginnings of the names of variables that change times: threads, allocators, the instruction set.
CHANGE_TIMES = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "FUSED_ML_", "ATEN_CPU")


def cpu_model() -> str:
    """The processor's name, with its family and model where the name alone may stand for several generations."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = {"family": facts.get("cpu family"), "model": facts.get("model")}
    generation = ", ".join(f"{name} {number}" for name, number in numbers.items() if number)
    return facts.get("model name", platform.machine()) + (f" ({generation})" if generation else "")


def others_seconds() -> float:
    """Processor seconds that everything but this process has used; 0 where the system does not say."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:2])


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_bytes() -> int:
    """Bytes of all second- and higher-level caches together; 0 where the system does not say."""
    sizes: dict[tuple[str, str], int] = {}
    for index in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index*"):
        try:
            level, shared, size = ((index / name).read_text().strip() for name in ("level", "shared_cpu_list", "size"))
        except OSError:
            continue
        if level != "1" and size.endswith("K"):
            sizes[level, shared] = int(size[:-1]) << 10
    return sum(sizes.values())


def available_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def describe() -> dict[str, Any]:
    """Processor, versions, date, and what the environment says that changes times."""
    import fused_ml

    return {
        "cpu": cpu_model(),
        "cpus": processors(),
        "cache_bytes": cache_bytes(),
        "torch": torch.__version__,
        "fused_ml": fused_ml.__version__,
        "isa": fused_ml.cpu_isa(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(CHANGE_TIMES)},
    }

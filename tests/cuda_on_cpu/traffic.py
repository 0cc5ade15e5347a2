"""Reads the byte counts of a library that was built with `sanitize="trace"`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

WIDTHS = (1, 2, 4, 8, 16)


class _Traffic(ctypes.Structure):
    _fields_ = [
        ("read_bytes", ctypes.c_uint64),
        ("written_bytes", ctypes.c_uint64),
        ("distinct_read_bytes", ctypes.c_uint64),
        ("distinct_written_bytes", ctypes.c_uint64),
        ("reads", ctypes.c_uint64 * 5),
        ("writes", ctypes.c_uint64 * 5),
    ]


@dataclass(frozen=True)
class Traffic:
    """Kernels' accesses of one range. `reads` and `writes` map a width in bytes to the number of accesses.

    Distinct bytes are counted once per launch; they are 0 for memory that is not registered.
    """

    read_bytes: int
    written_bytes: int
    distinct_read_bytes: int
    distinct_written_bytes: int
    reads: dict[int, int]
    writes: dict[int, int]


class Trace:
    """The byte counter of a trace library: `reset`, `register` the ranges, launch, then ask for `traffic`."""

    def __init__(self, library: str | Path | ctypes.CDLL):
        self._library = library if isinstance(library, ctypes.CDLL) else ctypes.CDLL(str(library))
        self._library.cuda_on_cpu_trace_kernel.restype = ctypes.c_char_p

    def reset(self) -> None:
        """Forgets all ranges and launches."""
        self._library.cuda_on_cpu_trace_reset()

    def register(self, name: str, address: int, size: int) -> None:
        """Counts what launches from now on do in `size` bytes from `address` under this name."""
        self._library.cuda_on_cpu_trace_register(name.encode(), ctypes.c_void_p(address), ctypes.c_size_t(size))

    @property
    def kernels(self) -> list[str]:
        """The kernel of every launch since the reset, in order."""
        count = self._library.cuda_on_cpu_trace_launches()
        return [self._library.cuda_on_cpu_trace_kernel(i).decode() for i in range(count)]

    def traffic(self, name: str, launch: int = -1) -> Traffic:
        """One launch's traffic in a range, or that of all launches. The name "" is all unregistered memory."""
        raw = _Traffic()
        if self._library.cuda_on_cpu_trace_traffic(launch, name.encode(), ctypes.byref(raw)) != 0:
            raise KeyError(f"no launch {launch} or no range {name!r}")

        def by_width(counts):
            return {width: count for width, count in zip(WIDTHS, counts, strict=True) if count}

        totals = (raw.read_bytes, raw.written_bytes, raw.distinct_read_bytes, raw.distinct_written_bytes)
        return Traffic(*totals, by_width(raw.reads), by_width(raw.writes))

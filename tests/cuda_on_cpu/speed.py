"""`python -m cuda_on_cpu.speed` in tests/: what the emulator's own work costs, in nanoseconds."""

import ctypes
import tempfile
import time
from pathlib import Path

from .build import HERE, build

REPEATS = 5
TIMES = 100


def shortest(call) -> float:
    """The shortest of a few runs, in seconds."""
    durations = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        if call() != 0:
            raise RuntimeError("the launch failed")
        durations.append(time.perf_counter() - start)
    return min(durations)


def main() -> None:
    """Prints one line per block size."""
    with tempfile.TemporaryDirectory() as directory:
        library = ctypes.CDLL(str(build([HERE / "kernels/speed.cu"], Path(directory) / "speed.so")))
        out = ctypes.byref(ctypes.c_int())
        for threads in (32, 256, 1024):
            start = shortest(lambda n=threads: library.run_start_threads(200, n, out)) / (200 * threads)
            shuffle = shortest(lambda n=threads: library.run_shuffle_often(4, n, out, TIMES)) / (4 * threads * TIMES)
            barrier = shortest(lambda n=threads: library.run_synchronise_often(4, n, out, TIMES)) / (
                4 * threads * TIMES
            )
            figures = (
                f"{name} {1e9 * cost:.1f} ns"
                for name, cost in (("start", start), ("shuffle", shuffle), ("barrier", barrier))
            )
            print(f"blocks of {threads}, per thread: {', '.join(figures)}")


if __name__ == "__main__":
    main()

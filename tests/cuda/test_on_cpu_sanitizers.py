"""The emulator's sanitizer builds catch deliberate bugs, and its byte counter counts every access."""

import ctypes
import re
from pathlib import Path

import pytest
import torch
from cuda_on_cpu.apart import missing_tool, run_python
from cuda_on_cpu.build import build
from cuda_on_cpu.traffic import Trace

KERNELS = Path(__file__).parents[1] / "cuda_on_cpu" / "kernels"
BUILT = Path(__file__).parents[2] / "build" / "cuda_on_cpu"
BUGS = re.findall(r"^  k(\w+),$", (KERNELS / "bugs.cu").read_text(), re.MULTILINE)


def run_bug(bug, sanitize, order="forward", before=0):
    """The process that ran the bug after that many good launches, and the lines of bugs.cu that its report names."""
    if missing := missing_tool(sanitize):
        pytest.skip(missing)
    path = build([KERNELS / "bugs.cu"], BUILT / f"bugs-{sanitize}.so", sanitize=sanitize)
    runs = [BUGS.index("None")] * before + [BUGS.index(bug)]
    code = f"import ctypes; [ctypes.CDLL({str(path)!r}).run_bug(bug, (ctypes.c_float * 64)()) for bug in {runs}]"
    done = run_python(["-c", code], sanitize, {"CUDA_ON_CPU_ORDER": order})
    source = (KERNELS / "bugs.cu").read_text().splitlines()
    lines = re.findall(r"bugs\.cu:(\d+)", done.stderr)
    return done, [source[int(line) - 1] for line in lines]


@pytest.mark.parametrize("sanitize", ["address", "thread"])
@pytest.mark.parametrize("order", ["forward", "shuffled:5"])
def test_no_report_without_a_bug(sanitize, order):
    done, _ = run_bug("None", sanitize, order)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("bug", "report", "code"),
    [
        ("SharedOverrun", "index 64 out of bounds", "values[i + 1] = 0.0f"),
        ("DynamicOverrun", "AddressSanitizer", "copies[i + 1] = 0.0f"),
        ("GlobalOverrun", "heap-buffer-overflow", "out[bug == kGlobalOverrun"),
        ("MisalignedLoad", "misaligned address", "reinterpret_cast<const float4*>(from)"),
        ("EarlyReturn", "exited before it", "__syncthreads();"),
        ("WrongMask", "mask 0xffffffff here", "__shfl_xor_sync(mask"),
    ],
)
def test_address_sanitizer(bug, report, code):
    done, lines = run_bug(bug, "address")
    assert done.returncode != 0
    assert report in done.stderr
    assert code in lines[0]


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize(
    ("bug", "code"),
    [
        ("MissingBarrier", "values[(i + 32) % 64]"),
        ("MissingWarpBarrier", "values[31 - i]"),
        ("PlainSum", "*out += 1.0f"),
        ("MissingFence", "*out += partial[b]"),
    ],
)
def test_thread_sanitizer(bug, code, before):
    """Its notions of threads are used again by the next launch."""
    done, lines = run_bug(bug, "thread", before=before)
    assert done.returncode == 66
    assert "ThreadSanitizer: data race" in done.stderr
    assert any(code in line for line in lines)


@pytest.fixture
def traced():
    library = ctypes.CDLL(str(build([KERNELS / "features.cu"], BUILT / "features-trace.so", sanitize="trace")))
    trace = Trace(library)
    trace.reset()

    def watch(**tensors):
        for name, tensor in tensors.items():
            trace.register(name, tensor.data_ptr(), tensor.nbytes)
        return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors.values()]

    return library, trace, watch


def test_vectors_are_counted_whole(traced):
    library, trace, watch = traced
    x, y = (torch.ones(320, dtype=torch.float16) for _ in range(2))
    assert library.run_half_vectors(0, *watch(x=x, y=y), 40) == 0
    assert trace.kernels == ["void half_vectors<__half, __half2>(uint4 const*, uint4*, int)"]
    read, updated, other = trace.traffic("x"), trace.traffic("y", launch=0), trace.traffic("")
    assert (read.read_bytes, read.distinct_read_bytes, read.written_bytes) == (640, 640, 0)
    assert (read.reads, read.writes) == ({16: 40}, {})
    assert (updated.reads, updated.writes, updated.distinct_written_bytes) == ({16: 40}, {16: 40}, 640)
    assert other.read_bytes == other.written_bytes == 0


def test_shared_memory_is_not_counted_and_atomics_are(traced):
    library, trace, watch = traced
    values, partial, out = torch.ones(1000), torch.zeros(4), torch.zeros(1)
    done = torch.zeros(1, dtype=torch.int32)
    pointers = watch(values=values, partial=partial, done=done)
    assert library.run_sum(4, 64, pointers[0], 1000, *pointers[1:], ctypes.c_void_p(out.data_ptr())) == 0
    assert out == 1000
    assert trace.traffic("values").reads == {4: 1000}
    assert trace.traffic("partial").writes == trace.traffic("partial").reads == {4: 4}
    counter = trace.traffic("done")
    assert (counter.reads, counter.writes, counter.distinct_read_bytes) == ({4: 4}, {4: 4}, 4)
    assert trace.traffic("").writes == {4: 1}  # `out`, which is not registered


def test_repeated_reads_show(traced):
    library, trace, watch = traced
    values, out = torch.zeros(32), torch.zeros(4, 32)
    pointers = watch(values=values, out=out)
    for _ in range(2):
        assert library.run_shuffles(32, *pointers, 1, 32) == 0
    once, both = trace.traffic("values", launch=1), trace.traffic("values")
    assert (once.read_bytes, once.distinct_read_bytes) == (512, 128)
    assert (both.read_bytes, both.distinct_read_bytes) == (1024, 256)
    with pytest.raises(KeyError):
        trace.traffic("unknown")
    trace.reset()
    assert trace.kernels == []

"""The emulator that runs CUDA sources on the CPU: results, orders, limits and refusals of its plain build."""

import ctypes
import re
import threading
from pathlib import Path

import pytest
import torch
from cuda_on_cpu.apart import run_python
from cuda_on_cpu.build import build

HERE = Path(__file__).parents[1] / "cuda_on_cpu"
KERNELS = HERE / "kernels"
BUILT = Path(__file__).parents[2] / "build" / "cuda_on_cpu"
ORDERS = ["forward", "reverse", "shuffled:1", "shuffled:2"]
BUGS = re.findall(r"^  k(\w+),$", (KERNELS / "bugs.cu").read_text(), re.MULTILINE)
SUCCESS, INVALID_VALUE, INVALID_CONFIGURATION = 0, 1, 9


def load(name, **options):
    suffix = "-".join([name, *map(str, options.values())])
    return ctypes.CDLL(str(build([KERNELS / f"{name}.cu"], BUILT / f"{suffix}.so", **options)))


@pytest.fixture(scope="module")
def features():
    return load("features")


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch):
    monkeypatch.setenv("CUDA_ON_CPU_ORDER", request.param)


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def run_sum(library, values, blocks, threads):
    partial, out = torch.full((blocks,), torch.nan), torch.full((1,), torch.nan)
    done = torch.zeros(1, dtype=torch.int32)
    arguments = (pointer(values), len(values), pointer(partial), pointer(done), pointer(out))
    assert library.run_sum(blocks, threads, *arguments) == SUCCESS
    return out


@pytest.mark.parametrize("threads", [32, 96])
@pytest.mark.parametrize("width", [4, 16, 32])
@pytest.mark.parametrize("by", [0, 1, 5, 17])
def test_shuffles(features, order, by, width, threads):
    values = torch.randn(threads)
    out = torch.empty(4, threads)
    assert features.run_shuffles(threads, pointer(values), pointer(out), by, width) == SUCCESS
    lane = torch.arange(threads)
    begin = lane // width * width
    end = begin + width
    up, down = lane - by, lane + by
    across = lane // 32 * 32 + (lane % 32 ^ by)
    sources = [
        begin + by % width,
        torch.where(up >= begin, up, lane),
        torch.where(down < end, down, lane),
        torch.where(across < end, across, lane),
    ]
    assert torch.equal(out, values[torch.stack(sources)])


def test_votes_of_half_warps(features, order):
    values = torch.randint(-7, 8, (32,), dtype=torch.int32)
    out = torch.empty(4, 32, dtype=torch.int32)
    assert features.run_votes(pointer(values), pointer(out)) == SUCCESS
    for half in (slice(0, 16), slice(16, 32)):
        bits = torch.arange(32)[half]
        mine = values[half]
        assert (out[0, half].long() & 0xFFFFFFFF == ((mine > 0) << bits).sum()).all()
        assert (out[1, half] == (mine > 5).any()).all()
        assert (out[2, half] == (mine > -5).all()).all()
        same = ((mine[:, None] == mine[None]) << bits).sum(1)
        assert torch.equal(out[3, half].long() & 0xFFFFFFFF, same)


def test_warp_reductions(features, order):
    values = torch.randint(-99, 99, (32,), dtype=torch.int32)
    out = torch.empty(6, 32, dtype=torch.int32)
    assert features.run_warp_reductions(pointer(values), pointer(out)) == SUCCESS
    every, some, odd = -1, 0, 0
    for value in values.tolist():
        every, some, odd = every & value, some | value, odd ^ value
    unsigned = int(values.max()) if (values >= 0).all() else int(values[values < 0].max())
    expected = [int(values.sum()), int(values.min()), int(values.max()), unsigned, every + odd, some]
    assert out.tolist() == [[number] * 32 for number in expected]


@pytest.mark.parametrize("threads", [1, 33, 1024])
def test_block_votes(features, order, threads):
    values = torch.randint(-7, 8, (threads,), dtype=torch.int32)
    out = torch.empty(3, threads, dtype=torch.int32)
    assert features.run_block_votes(threads, pointer(values), pointer(out)) == SUCCESS
    expected = [int((values > 0).sum()), int((values > 5).any()), int((values > -5).all())]
    assert out.tolist() == [[number] * threads for number in expected]


def test_every_order_gives_the_same_bits(features, monkeypatch):
    values = torch.randn(10000)
    results = set()
    for order in [*ORDERS, *(f"shuffled:{seed}" for seed in range(3, 10))]:
        monkeypatch.setenv("CUDA_ON_CPU_ORDER", order)
        results.add(run_sum(features, values, 7, 128).item())
    assert len(results) == 1
    assert results.pop() == pytest.approx(values.double().sum().item(), abs=1e-3)


def test_an_unknown_order_is_refused():
    done = call("bugs", "run_bug(0, (ctypes.c_float * 64)())", environment={"CUDA_ON_CPU_ORDER": "sideways"})
    assert "CUDA_ON_CPU_ORDER is 'sideways'" in done.stderr
    assert done.returncode < 0


def test_fallback_switch():
    assert run_sum(load("features", flags=["-DCUDA_ON_CPU_UCONTEXT"]), torch.ones(500), 3, 64) == 500


def test_launches_from_several_threads(features):
    failures = []

    def work(seed):
        values = torch.full((3000,), float(seed))
        for _ in range(20):
            if run_sum(features, values, 4, 64) != 3000 * seed:
                failures.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_dynamic_shared_memory_and_its_limit(features, order):
    values = torch.randn(20000)
    out = torch.zeros_like(values)

    def run(count, limit):
        return features.run_reverse_row(pointer(values), pointer(out), count, limit)

    assert run(12289, 48 << 10) == INVALID_VALUE
    assert features.peek_error() == features.last_error() == INVALID_VALUE
    assert features.last_error() == SUCCESS
    assert run(12288, 0) == SUCCESS
    assert torch.equal(out[:12288], values[:12288].flip(0))
    assert run(20000, 227 << 10) == SUCCESS
    assert torch.equal(out, values.flip(0))
    assert run(20000, (227 << 10) + 1) == -1


def test_fresh_shared_memory_is_nan(features, order):
    out = torch.zeros(6)
    assert features.run_fresh_memory(3, pointer(out)) == SUCCESS
    assert out.isnan().all()


def test_atomics(features, order):
    floats, total = torch.zeros(2), torch.zeros(1, dtype=torch.float64)
    ints, wide = torch.zeros(4, dtype=torch.int32), torch.zeros(1, dtype=torch.int64)
    assert features.run_atomics(3, 40, *map(pointer, (floats, total, ints, wide))) == SUCCESS
    assert floats.tolist() == [120, 3]
    assert total.tolist() == [60]
    assert ints.tolist() == [120, 119, -119, 7]
    assert wide.tolist() == [120 << 33]


def positions(library, grid, threads, out):
    return library.run_positions((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*threads), pointer(out))


def test_three_dimensions_and_arguments(features, order):
    out = torch.zeros(4 * 3 * 2 * 5 * 3 * 2, dtype=torch.int32)
    assert positions(features, (4, 3, 2), (5, 3, 2), out) == SUCCESS
    assert torch.equal(out, torch.arange(len(out), dtype=torch.int32) * 2 + 6)


@pytest.mark.parametrize(
    ("grid", "threads"),
    [
        ((1, 1, 1), (1025, 1, 1)),
        ((1, 1, 1), (32, 33, 1)),
        ((1, 1, 1), (1, 1, 65)),
        ((1, 1, 1), (0, 1, 1)),
        ((0, 1, 1), (1, 1, 1)),
        ((1, 65536, 1), (1, 1, 1)),
        ((1, 1, 65536), (1, 1, 1)),
        ((1 << 31, 1, 1), (1, 1, 1)),
    ],
)
def test_limits_of_blocks_and_grids(features, grid, threads):
    assert positions(features, grid, threads, torch.zeros(1)) == INVALID_CONFIGURATION
    features.error_name.restype = ctypes.c_char_p
    assert features.error_name(features.last_error()) == b"cudaErrorInvalidConfiguration"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_in_vectors(features, dtype):
    x, y = torch.randn(320).to(dtype), torch.randn(320).to(dtype)
    first = (2 * x.float() + y.float()).to(dtype)
    expected = (first.double() * first.double() + first.double()).to(dtype)
    assert features.run_half_vectors(int(dtype == torch.bfloat16), pointer(x), pointer(y), 40) == SUCCESS
    assert torch.equal(y, expected)


def test_scalar_functions(features):
    x = 1.7
    out = torch.zeros(12)
    assert features.run_scalars(ctypes.c_float(x), 12, pointer(out)) == SUCCESS
    t = torch.tensor(x)
    exact = [t.exp(), t.exp2(), 1 / t, t.rsqrt(), t * t + 1, 1 / t, t, 2, t, 28 + 200 + 30000, 32, 12]
    torch.testing.assert_close(out, torch.tensor(exact))


def test_device_attributes(features, monkeypatch):
    assert features.multiprocessors() == 132
    assert [features.blocks_per_multiprocessor(256, size) for size in (0, 48 << 10, 227 << 10)] == [8, 4, 1]
    monkeypatch.setenv("CUDA_ON_CPU_ATTRIBUTES", "ComputeCapabilityMajor=8,MultiProcessorCount=108")
    assert features.multiprocessors() == 108


def call(kernels, expression, environment=None):
    """Evaluates `library.<expression>` in a process apart, where an abort ends nothing else."""
    path = build([KERNELS / f"{kernels}.cu"], BUILT / f"{kernels}.so")
    return run_python(["-c", f"import ctypes; ctypes.CDLL({str(path)!r}).{expression}"], environment=environment)


def test_launch_attributes(features):
    assert features.launch_in_cluster(1, pointer(torch.zeros(2, dtype=torch.int32))) == SUCCESS
    done = call("features", "launch_in_cluster(2, None)")
    assert "clusters of more than one block are not modelled" in done.stderr
    assert done.returncode < 0


# The message, and the code of the line that it names.
REFUSED = {
    "WrongMask": ("mask 0xffffffff here, 0x0000ffff in lane 3", "__shfl_xor_sync(mask"),
    "LaneNotInMask": ("lacks the calling lane 31", "__shfl_xor_sync(mask"),
    "LaneExited": ("names lane 31 that has exited", "__shfl_xor_sync(mask"),
    "WarpAtTwoPlaces": ("divergent warp operation: lane 0 is at the one in", "__shfl_xor_sync(mask"),
    "EarlyReturn": ("32 of the block's threads exited before it", "__syncthreads();"),
    "TwoBarriers": ("divergent barrier: thread 0 of the block is at", "__syncthreads();"),
    "MisalignedLoad": ("misaligned address", "reinterpret_cast<const float4*>(from)"),
    "MisalignedIntrinsic": ("misaligned address: an access of 16 bytes", "__ldg("),
    "MisalignedShared": ("misaligned address", "reinterpret_cast<const float4*>(row)"),
    "TooMuchShared": ("49156 bytes of static shared memory; the limit is 49152", "more"),
    "ActiveMask": ("__activemask depends on", "__activemask()"),
    "FalseAssumption": ("__builtin_assume(bug == kNone) is false", "__builtin_assume"),
}


@pytest.mark.parametrize("bug", REFUSED)
def test_refused(bug):
    done = call("bugs", f"run_bug({BUGS.index(bug)}, (ctypes.c_float * 64)())")
    message, code = REFUSED[bug]
    assert done.returncode < 0
    assert message in done.stderr
    assert "block (0, 0, 0) of (1, 1, 1), thread (" in done.stderr
    line = int(re.search(r"at \S*bugs\.cu:(\d+)", done.stderr[done.stderr.index("\n  at") :]).group(1))
    assert code in (KERNELS / "bugs.cu").read_text().splitlines()[line - 1]


def run_bug(library, bug):
    results = (ctypes.c_float * 64)()
    assert library.run_bug(BUGS.index(bug), results) == SUCCESS
    return torch.tensor(results)


def test_a_missing_barrier_shows_in_the_results(order):
    bugs = load("bugs")
    clean = run_bug(bugs, "None")
    assert torch.equal(clean, torch.arange(64.0) + (torch.arange(64.0) + 32) % 64)
    assert not torch.equal(run_bug(bugs, "MissingBarrier"), clean)
    assert run_bug(bugs, "MissingWarpBarrier")[:32].isnan().any()

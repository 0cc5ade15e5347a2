"""Memory of large results is used again, only once nobody holds it, and can be had back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest
import torch

import fused_ml
import fused_ml.nn.functional as F

MiB = 1 << 20
pytestmark = pytest.mark.skipif(torch.__version__ < "2.11", reason="torch 2.10 takes no memory with a deleter")


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    fused_ml.empty_cache()
    yield
    fused_ml.empty_cache()


def result(mebibytes: float, seed: int = 0) -> torch.Tensor:
    x = torch.randn(int(mebibytes * MiB) // 4000, 1000, generator=torch.Generator().manual_seed(seed))
    return F.softmax(x, 1)


def test_a_freed_result_is_used_again():
    first = result(8)
    address = first.data_ptr()
    del first
    assert result(8).data_ptr() == address


def test_a_result_that_is_held_keeps_its_memory():
    results = [result(8, seed) for seed in range(6)]
    assert len({r.data_ptr() for r in results}) == 6
    array, part = results[0].numpy(), results[1][5:7]
    for seed in range(2, 6):
        results[seed] = result(8, seed + 10)
    expected = [result(8, 0), result(8, 1)[5:7]]
    results[0] = results[1] = None
    for seed in range(20, 26):
        result(8, seed)
    torch.testing.assert_close(torch.from_numpy(array), expected[0], rtol=0, atol=0)
    torch.testing.assert_close(part, expected[1], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_results_in_used_memory_are_right(dtype):
    x = torch.randn(2 * MiB // 1000, 1000, generator=torch.Generator().manual_seed(1)).to(dtype)
    target = torch.randint(1000, x.shape[:1])
    for scale in (1, 2):
        ours, theirs = ((x * scale).requires_grad_() for _ in range(2))
        F.cross_entropy(ours, target).backward()
        torch.nn.functional.cross_entropy(theirs.double(), target).backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_it_looks_like_any_result():
    x = torch.randn(16, 64, 40, 40).to(memory_format=torch.channels_last).requires_grad_()
    F.cross_entropy(x, torch.randint(64, (16, 40, 40))).backward()
    assert x.grad.stride() == x.stride()
    assert x.grad.device == x.device
    assert not x.grad.requires_grad
    assert x.grad.storage_offset() == 0
    assert x.grad.untyped_storage().nbytes() == x.numel() * 4
    x.grad.share_memory_()
    assert x.grad.is_shared()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_type_gets_all_of_its_bytes(dtype):
    """Numbers of rows are results of types other than the input's: predicted classes are int64."""
    x = torch.randn(2_200_000, 2).to(dtype)
    target = torch.randint(2, x.shape[:1])
    results = torch.ops.fused_ml.cross_entropy(x, target, 0, -100, True, True)
    loss, grad, lse, predicted = results
    assert torch.equal(predicted, x.argmax(1))
    fused_ml.empty_cache()  # a loss of 16 bits is torch's, from one of ours in float32
    expected = sum(t.nbytes for t in results if not t.untyped_storage().resizable())
    assert expected >= grad.nbytes + lse.nbytes + predicted.nbytes
    del results, loss, grad, lse, predicted
    assert fused_ml.empty_cache() == expected


def test_how_much_is_kept():
    sizes = (8, 20, 50, 130, 330)
    results = [result(size) for size in sizes]
    kept = [r.untyped_storage().nbytes() for r in results]
    while results:
        del results[0]
    assert fused_ml.empty_cache() == sum(kept[1:])  # the four freed last
    assert fused_ml.empty_cache() == 0
    result(3)
    assert fused_ml.empty_cache() == 0  # the allocator keeps small ones itself


def test_a_result_takes_no_more_than_twice_its_size():
    large = result(64)
    address = large.data_ptr()
    del large
    small = result(24)
    assert small.data_ptr() != address
    half = result(40)
    assert half.data_ptr() == address
    larger = result(65)
    assert larger.data_ptr() not in (address, small.data_ptr())


def test_the_closest_size_is_taken():
    results = [result(size) for size in (16, 12, 15)]
    address = results[1].data_ptr()
    results.clear()
    assert result(11).data_ptr() == address


def test_the_allocator_has_kept_memory_on_its_books():
    def allocated():
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
        ) as profile:
            r = result(8)
            del r
        return [e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]

    assert allocated().count(2097 * 4000) == 2  # the input, and the result
    assert allocated().count(2097 * 4000) == 1


def test_threads_never_share_memory():
    problems = []

    def work(seed):
        x = torch.full((1100, 1000), float(seed))
        for _ in range(30):
            r = F.softmax(x, 1)
            r.fill_(seed)
            if not bool((r == seed).all()):
                problems.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_a_forked_process_has_its_own():
    kept = result(8)
    value = float(kept.sum())
    del kept
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        ok = abs(float(result(8).sum()) - value) < 1
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_kept_where_that_is_asked_for():
    code = (
        "import torch, fused_ml, fused_ml.nn.functional as F\n"
        "r = F.softmax(torch.randn(2000, 1000), 1); print(r.untyped_storage().resizable()); del r\n"
        "print(fused_ml.empty_cache())\n"
    )
    environment = {**os.environ, "FUSED_ML_CACHE": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "0"]

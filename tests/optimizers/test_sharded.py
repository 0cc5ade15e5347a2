"""Parameters on several processes: sharded steps are the fused ones, and a norm is that of all processes or refused.

Two processes run all of `sharded_cases` at once; each test looks at what they saved.
"""

import pytest
import torch
import torch.distributed as dist

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)
import sharded_cases


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    arguments = (str(folder / "rendezvous"), str(folder))
    context = torch.multiprocessing.spawn(sharded_cases.work, arguments, nprocs=2, join=False)
    waited = 0
    while not context.join(timeout=10):  # raises what a process raised
        waited += 10
        if waited >= 300:
            for process in context.processes:
                process.kill()
            pytest.fail("the processes wait for each other")
    return [torch.load(folder / str(rank), weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", sharded_cases.CASES)
def test_case(name, rank, outcomes):
    outcome = outcomes[rank].get(name, "not run: an earlier case failed in one process alone")
    assert isinstance(outcome, dict), outcome
    for what in ("values", "norms"):
        actual, expected = outcome.get(what, ([], []))
        assert len(actual) == len(expected)
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            tolerance = {
                "rtol": outcome.get("rtol", 1e-6 if what == "norms" else 1e-9),
                "atol": outcome.get("rtol", 1e-9),
            }
            torch.testing.assert_close(
                a.double(), b.double(), **tolerance, msg=lambda m, i=i, what=what: f"{what} {i}: {m}"
            )

"""The bytes that each operator's kernels move, counted by running their sources on the CPU (tests/cuda_on_cpu)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))


@dataclass(frozen=True)
class Traffic:
    """What one call moved, against the least: every operand read once, every output written once."""

    operator: str
    shape: tuple[int, ...]
    dtype: str
    least_read: int
    least_written: int
    read: int
    written: int
    sweeps: int  # over the inputs: 2 where rows go in chunks, the second from the second-level cache
    launches: int
    operands: int  # of which a thread has 16 bytes under way

    @property
    def excess(self) -> float:
        """Bytes moved over the least, the second sweep not counted."""
        return (self.read / self.sweeps + self.written) / (self.least_read + self.least_written)


@dataclass(frozen=True)
class Case:
    operator: str
    shape: tuple[int, ...]
    inputs: Callable[[Tensor], list[Tensor]]
    call: Callable[..., object]
    outputs: Callable[[Tensor], int]  # their bytes
    sweeps: int = 1
    together: bool = False  # a thread loads from all operands before it waits for one


def _targets(x: Tensor) -> list[Tensor]:
    return [torch.randint(x.shape[1], x.shape[:1] + x.shape[2:])]


def _cross_entropy(x: Tensor, target: Tensor) -> object:
    return torch.ops.fused_ml.cross_entropy(x, target, 2, -100, True)


def _bce(x: Tensor, target: Tensor) -> object:
    nan = float("nan")
    return torch.ops.fused_ml.binary_cross_entropy_with_logits(
        x, target, None, None, None, None, 1, x.dtype, True, True, False, 0.0, -1.0, 0.0, nan
    )


def _log_softmax(x: Tensor) -> object:
    return torch.ops.fused_ml.log_softmax(x, 1, x.dtype)


def _log_softmax_backward(x: Tensor, y: Tensor) -> object:
    return torch.ops.fused_ml.log_softmax_backward(x, y, 1, x.dtype)


def _momentum(x: Tensor) -> list[Tensor]:
    return [torch.randn_like(x), torch.zeros_like(x)]


def _moments(x: Tensor) -> list[Tensor]:
    return [torch.randn_like(x), torch.zeros_like(x), torch.zeros_like(x)]


def _sgd(param: Tensor, grad: Tensor, momentum_buffer: Tensor) -> object:
    options = [0.1, 0.9, 0.0, 0.0, 0.0, 0.0]
    return torch.ops.fused_ml.sgd_([param], [grad], [momentum_buffer], [], 1, options)


def _adam(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor) -> object:
    options = [1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0]
    return torch.ops.fused_ml.adam_([param], [grad], [exp_avg, exp_avg_sq], [torch.zeros(())], 3, options)


CASES = (
    *(
        Case("cross_entropy, loss and gradient", shape, _targets, _cross_entropy, lambda x: x.nbytes, sweeps)
        for shape, sweeps in (
            ((4096, 12), 1), ((512, 100), 1), ((256, 1000), 1), ((8, 20480), 2), ((140, 4096), 1), ((2, 21, 64, 64), 1),
        )
    ),
    Case("log_softmax", (256, 1000), lambda x: [], _log_softmax, lambda x: x.nbytes),
    Case("log_softmax_backward", (256, 1000), lambda x: [x.clone()], _log_softmax_backward, lambda x: x.nbytes),
    Case("binary_cross_entropy_with_logits, loss and gradient", (512, 512), lambda x: [x.sigmoid()], _bce,
         lambda x: x.nbytes, together=True),
    Case("logsigmoid", (512, 512), lambda x: [], lambda x: torch.ops.fused_ml.logsigmoid(x),
         lambda x: x.nbytes),
    Case("SGD, with momentum", (512, 512), _momentum, _sgd, lambda x: 2 * x.nbytes, together=True),
    Case("Adam", (512, 512), _moments, _adam, lambda x: 3 * x.nbytes, together=True),
)  # fmt: skip


def measure() -> list[Traffic]:
    """Builds the counting library, and runs every case on it."""
    from cuda_on_cpu import library
    from cuda_on_cpu.traffic import Trace

    trace = Trace(library.load("trace"))
    found = []
    for case in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(case.shape).to(dtype)
            operands = [x, *case.inputs(x)]
            trace.reset()
            for i, operand in enumerate(operands):
                trace.register(f"operand {i}", operand.data_ptr(), operand.nbytes)
            case.call(*operands)
            ranges = [trace.traffic(f"operand {i}") for i in range(len(operands))]
            # Every thread of a row's group reads its target: one access for the memory.
            read = sum(
                r.read_bytes if t.is_floating_point() else r.distinct_read_bytes
                for r, t in zip(ranges, operands, strict=True)
            )
            found.append(
                Traffic(
                    case.operator,
                    case.shape,
                    str(dtype).removeprefix("torch."),
                    sum(t.nbytes for t in operands),
                    case.outputs(x),
                    read,
                    trace.traffic("").written_bytes + sum(r.written_bytes for r in ranges),
                    case.sweeps,
                    len(trace.kernels),
                    sum(t.is_floating_point() for t in operands) if case.together else 1,
                )
            )
    return found

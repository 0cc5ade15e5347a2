"""``python -m bench.cuda_report``: tables of kernels and bytes; exit status 1 if a kernel falls short."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from . import model, sass, traffic

EXCESS = 1.05
ACTIVATION_BYTES = 30 << 10  # of code, of a kernel
ARCHITECTURE_BYTES = 2 << 20  # of all kernels, compressed
# Threads of a block and dynamic shared memory of a usual launch: csrc/frames/cuda/rows/tiling.cpp.
LAUNCHES = {
    "rowwise_kernel": (128, 16 << 10),
    "rowwise_reduce_kernel": (128, 32 << 10),
    "rowwise_map_kernel": (128, 32 << 10),
    "own_class_kernel": (128, 0),
    "own_class_backward_kernel": (128, 0),
    "weights_kernel": (128, 0),
}
OTHERS = (256, 0)
ONE_BY_ONE = (
    "own_class",
    "weights",
    "total",
    "prepare",
    "mixed, 1,",
    "double, 1,",
)  # a thread takes single elements
LARGE = 256 << 20  # bytes of the tensors that the model is asked about
OF = {"cross_entropy": "rowwise_kernel<CrossEntropyPlain<float>", "log_softmax": "rowwise_kernel<LogSoftmax<float>",
      "log_softmax_backward": "rowwise_kernel<LogSoftmaxBackward<float>",
      "binary_cross_entropy_with_logits": "pointwise_kernel<BinaryCrossEntropy, float, 4, even, all>",
      "logsigmoid": "pointwise_kernel<LogSigmoid, float, 4, even, value>",
      "Adam": "update_kernel<Adam<float>, float", "SGD": "update_kernel<SgdMomentum<float>, float"}  # fmt: skip


def launch_of(name: str) -> tuple[int, int]:
    return LAUNCHES.get(name.split("<")[0], OTHERS)


def shortcomings(kernel: sass.Kernel) -> list[str]:
    found = []
    if kernel.stack or kernel.local:
        found.append(f"{kernel.stack} bytes of stack, {kernel.local} accesses of local memory")
    if any(mark in kernel.name for mark in ONE_BY_ONE):
        return found
    if 16 not in kernel.loads and "upload" not in kernel.name:  # which loads from its arguments
        found.append("no load of 16 bytes")
    if 16 not in kernel.stores and "reduce" not in kernel.name and "square_sum" not in kernel.name:
        found.append("no store of 16 bytes")
    return found


def formula_of(kernel: sass.Kernel) -> str | None:
    """Of a pointwise kernel."""
    match = re.match(r"pointwise_kernel<(\w+),", kernel.name)
    return match and match[1]


def excess_code(architecture: str, kernels: list[sass.Kernel]) -> list[str]:
    """What is over its budget."""
    losses = {formula_of(k) for k in kernels if k.name.endswith(", all>")}
    large = [k for k in kernels if formula_of(k) not in {None, *losses} and k.code > ACTIVATION_BYTES]
    total = sass.library_bytes(architecture)
    found = [f"{kernel.name}: {kernel.code} bytes of code" for kernel in large]
    return found + [f"{total} bytes in the library"] * (total > ARCHITECTURE_BYTES)


def code_table(found: dict[str, list[sass.Kernel]]) -> list[str]:
    lines = [f"| KB of code | {' | '.join(f'sm_{a}' for a in found)} |", "| --- |" + " ---: |" * len(found)]
    formulas = dict.fromkeys(formula_of(k) for kernels in found.values() for k in kernels if formula_of(k))
    rows = {f: [sum(k.code for k in kernels if formula_of(k) == f) for kernels in found.values()] for f in formulas}
    rows["all kernels"] = [sum(k.code for k in kernels) for kernels in found.values()]
    rows["in the library, compressed"] = [sass.library_bytes(a) for a in found]
    return lines + [f"| {name} | {' | '.join(f'{n / 1024:.0f}' for n in row)} |" for name, row in rows.items()]


def widths(values: set[int]) -> str:
    return " ".join(map(str, sorted(values, reverse=True))) or "-"


def kernel_table(found: dict[str, list[sass.Kernel]]) -> list[str]:
    architectures = list(found)
    gpus = {gpu.architecture: gpu for gpu in reversed(model.GPUS)}
    lines = [
        f"| kernel | registers ({', '.join(architectures)}) | occupancy % | static shared | loads | stores |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    for rows in zip(*found.values(), strict=True):
        assert len({row.name for row in rows}) == 1
        threads, shared = launch_of(rows[0].name)
        occupied = (
            f"{100 * model.occupancy(row, threads, shared, gpus[architecture]):.0f}"
            for architecture, row in zip(architectures, rows, strict=True)
        )
        last = rows[-1]
        lines.append(
            f"| `{last.name}` | {', '.join(str(row.registers) for row in rows)} | {', '.join(occupied)} "
            f"| {last.shared} | {widths(last.loads)} | {widths(last.stores)} |"
        )
    return lines


def traffic_table(found: list[traffic.Traffic]) -> list[str]:
    lines = [
        "| operator | shape | dtype | least MB | read | written | launches |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for t in found:
        lines.append(
            f"| {t.operator} | {'x'.join(map(str, t.shape))} | {t.dtype} "
            f"| {(t.least_read + t.least_written) / 1e6:.2f} "
            f"| {t.read / t.least_read:.3f}x{' (2 sweeps)' if t.sweeps == 2 else ''} "
            f"| {t.written / t.least_written:.3f}x | {t.launches} |"
        )
    return lines


def model_table(kernels: dict[str, list[sass.Kernel]], moved: list[traffic.Traffic]) -> list[str]:
    lines = [
        f"| operator | shape | {' | '.join(gpu.name for gpu in model.GPUS)} |",
        "| --- | --- |" + " ---: |" * len(model.GPUS),
    ]
    for t in moved:
        if t.dtype != "float32":
            continue
        shares = []
        for gpu in model.GPUS:
            prefix = OF[re.split(",| ", t.operator)[0]]
            kernel = next(k for k in kernels[gpu.architecture] if k.name.startswith(prefix))
            resident = model.occupancy(kernel, *launch_of(kernel.name), gpu)
            scale = LARGE / (t.least_read + t.least_written)
            shares.append(f"{100 * model.share_of_copy(t, scale, resident, gpu):.0f}%")
        lines.append(f"| {t.operator} | {'x'.join(map(str, t.shape))} | {' | '.join(shares)} |")
    return lines


TEXT = """# The CUDA kernels, as compiled

Written by `make cuda-report`, which fails if a kernel spills, has a stack, lacks 16-byte accesses where its operands
lie side by side, or moves more than {excess}x the least bytes. nvcc {nvcc}. Compiled for {architectures}; occupancy for
a usual launch; widths of global accesses in bytes, of the last architecture (narrow ones are the ragged edges and the
row's own numbers).

{kernels}

{code}

An activation's kernel may have {activation} KB, and an architecture {architecture} MB in the library.

## Bytes

Counted by running the sources on the CPU (`tests/cuda_on_cpu`): read of the operands and written in all, over the
least, which is each operand read once and each output written once. Rows that go in chunks are swept twice, the second
time from the second-level cache.

{traffic}

## A model, not a measurement

Share of copy speed that bytes, launches and occupancy allow at {large} MB: a copy reaches {copy:.0%} of the peak
bandwidth, a load takes {latency:.0f} ns and each thread has one of 16 bytes under way (of each operand, for BCE and the
optimizers), a launch adds {launch:.0f} us.
Arithmetic is not in it, and no GPU has been timed.

{model}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cuda_report", description=__doc__)
    parser.add_argument("--output", type=Path, help="write the tables as Markdown")
    parser.add_argument("--architectures", default="80,90,100")
    arguments = parser.parse_args()
    compiler = sass.nvcc()
    if compiler is None:
        print("cuda_report: no CUDA toolkit here, nothing to report")
        return 0
    found = {a: sass.kernels(a) for a in arguments.architectures.split(",")}
    moved = traffic.measure()
    version = re.search(r"release ([\d.]+)", sass.subprocess.check_output([compiler, "--version"], text=True))
    text = TEXT.format(
        excess=EXCESS, nvcc=version[1] if version else "?", architectures=", ".join(f"sm_{a}" for a in found),
        kernels="\n".join(kernel_table(found)), code="\n".join(code_table(found)),
        activation=ACTIVATION_BYTES >> 10, architecture=ARCHITECTURE_BYTES >> 20,
        traffic="\n".join(traffic_table(moved)), large=LARGE >> 20,
        copy=model.COPY_SHARE, latency=model.LATENCY * 1e9, launch=model.LAUNCH * 1e6,
        model="\n".join(model_table(found, moved)),
    )  # fmt: skip
    if arguments.output:
        arguments.output.write_text(text)
    failures = [f"sm_{a} {k.name}: {problem}" for a, rows in found.items() for k in rows for problem in shortcomings(k)]
    failures += [f"sm_{a} {problem}" for a, rows in found.items() for problem in excess_code(a, rows)]
    failures += [f"{t.operator} {t.shape} {t.dtype}: {t.excess:.3f}x the least" for t in moved if t.excess > EXCESS]
    fine = f"{sum(map(len, found.values()))} kernels without spills; {len(moved)} calls within {EXCESS}x of the least"
    print("\n".join(failures) or f"cuda_report: {fine}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

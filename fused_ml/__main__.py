"""``python -m fused_ml``: what is installed, and what runs."""

import platform

import torch

import fused_ml


def cuda() -> str:
    """The CUDA kernels, in a line."""
    problem = fused_ml.cuda_problem()
    if fused_ml.cuda_toolkit() is None:
        return f"none: {problem}"
    compiled = f"{', '.join(fused_ml.cuda_architectures())} compiled with toolkit {fused_ml.cuda_toolkit()}"
    return f"{compiled}; {f'not loaded: {problem}' if problem else 'loaded'}"


def main() -> None:
    rows = {
        "fused_ml": fused_ml.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CPU instruction sets": f"{', '.join(fused_ml.cpu_isas_compiled())} compiled; "
        f"{', '.join(fused_ml.cpu_isas_supported())} supported here; {fused_ml.cpu_isa()} in use",
        "CUDA architectures": cuda(),
        "threads": f"{torch.get_num_threads()} (torch's)",
        "fused": ", ".join(fused_ml.fused_ops()),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


if __name__ == "__main__":
    main()

"""``python -m fused_ml``: what is installed, and what runs."""

import platform

import torch

import fused_ml


def main() -> None:
    rows = {
        "fused_ml": fused_ml.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "CPU instruction sets": f"{', '.join(fused_ml.cpu_isas_compiled())} compiled; "
        f"{', '.join(fused_ml.cpu_isas_supported())} supported here; {fused_ml.cpu_isa()} in use",
        "CUDA architectures": "none: this build has CPU kernels only",
        "threads": f"{torch.get_num_threads()} (torch's)",
        "fused": ", ".join(fused_ml.fused_ops()),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")


if __name__ == "__main__":
    main()

"""What the compiler made of the CUDA kernels, and the bytes they move: ``python -m bench.cuda_report``."""

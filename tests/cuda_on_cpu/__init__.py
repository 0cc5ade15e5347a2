"""CUDA sources, as they are, run on the CPU: see README.md."""

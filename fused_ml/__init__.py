"""Fused losses, activations and optimizers for PyTorch."""
from fused_ml._library import cpu_isa


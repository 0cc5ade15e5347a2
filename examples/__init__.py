"""Runnable examples of fused_ml; see ``python -m examples.demo --help``."""

"""Documents as a run of the benchmark would write them, and rows that are steady, slower and noisy."""

from bench import document
from bench.cases import CE


def row(label, ratios, threads=2, **more):
    """A row of a document, as a run would record it."""
    found = {
        "label": label, "threads": threads, "op": CE, "optimizer": False, "shape": [4, 10], "model": "",
        "dtype": "float32", "layout": "contiguous", "variant": "fresh", "part": "both", "cold": False,
        "headline": True, "remark": "", "bytes": 4096, "floors": {}, "rounds": 9, "ms": 2.0, "ms_interval": [1.9, 2.1],
        "peers_ms": {name: 2.0 * ratio[0] for name, ratio in ratios.items()}, "gb_per_s": 2.0, "ratios": ratios,
        "peak": {"ours": 2.0, "eager": 4.0}, "differs": [], "skipped": {}, "warnings": [], "others_busy": 0.0,
        "busy": False, "error": "",
    }  # fmt: skip
    return {**found, **more}


def run_of(*rows):
    """A document, as a run would write it."""
    about = {
        "cpu": "a processor", "cpus": 2, "cache_bytes": 1 << 20, "torch": "2", "fused_ml": "0", "isa": "avx2",
        "python": "3", "date": "2020-02-02", "environment": {},
    }  # fmt: skip
    speeds = [{"threads": 2, "bytes": size, "copy": 9.0, "read": 8.0, "triad": 7.0} for size in (1 << 16, 1 << 20)]
    return document.document("python -m bench", about, {"jax": "missing: no jax"}, speeds, rows)


STEADY = {"copy": [0.5, 0.49, 0.51], "eager": [4.0, 3.9, 4.1]}
HALVED = {"copy": [0.25, 0.24, 0.26], "eager": [2.0, 1.9, 2.1]}
NOISY = {"copy": [0.4, 0.2, 0.6], "eager": [3.0, 1.5, 5.0]}

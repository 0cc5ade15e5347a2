"""Benchmarks of fused_ml against PyTorch and other peers: ``python -m bench``.

Every contestant of a row runs in the same process, in turns, and the medians are compared; see
`bench.cases` for the rows, `bench.timing` for the method and `bench.report` for the output.
"""

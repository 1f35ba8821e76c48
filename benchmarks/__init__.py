"""Measurements against other tools. Run as ``python -m benchmarks.peers`` from the checkout."""

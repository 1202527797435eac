"""Measurements of the router beside its peers: `python -m benchmarks --help`."""

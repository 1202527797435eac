"""Figures under faults that concern one connection: `python -m benchmarks.faults`."""

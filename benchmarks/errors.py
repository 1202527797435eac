"""What stops a benchmark. A failed measurement ends the run; it never becomes a number."""


class BenchmarkError(Exception):
    """Something was not as the measurement needs it; the message says what and where."""

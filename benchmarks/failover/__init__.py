"""What is lost when endpoints, workers or the config change: `python -m benchmarks failover`."""

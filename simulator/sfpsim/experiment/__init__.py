"""Machine, workload and containers to a result: replay and compare."""

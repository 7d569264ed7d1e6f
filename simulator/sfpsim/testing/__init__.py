"""Public helpers for tests: contract suite, strategies, validation."""

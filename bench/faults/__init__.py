"""What docs/reliability.md promises, tried: python -m bench.faults."""

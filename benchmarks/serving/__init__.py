"""Figures of the reward and policy services; `python -m benchmarks.serving`."""

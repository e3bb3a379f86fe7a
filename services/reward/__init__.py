"""The reward service: scores, compares and ranks completions."""

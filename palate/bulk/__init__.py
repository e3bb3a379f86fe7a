"""Scoring whole files: rows in, the same rows out with scores or errors and where they come from."""

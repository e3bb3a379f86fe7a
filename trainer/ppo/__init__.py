"""Proximal policy optimisation against a reward service; read `loop.py` first."""

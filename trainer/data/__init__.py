"""Readers of what is learnt from: demonstrations, prompts, comparisons."""

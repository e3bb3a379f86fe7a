"""Samples from a policy, computes logprobs under it, and takes new weights without stopping."""

"""The reward service as the Open Inference Protocol v2 (KServe, Triton) sees it."""

"""Our throughput against that of other servers of the same model.onnx; `python -m benchmarks.peers`."""

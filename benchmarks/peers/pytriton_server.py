"""PyTriton: Triton's dynamic batching; texts as BYTES, because tensors of unequal length are never batched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.scorer import Scorer, batch_size, port

_WAIT_MICROSECONDS = 10_000


@batch  # type: ignore[untyped-decorator]
def infer(prompt: NDArray[np.object_], completion: NDArray[np.object_]) -> list[NDArray[np.float32]]:
    """(B, 1) scores of (B, 1) prompts and completions."""
    pairs = [(a.decode(), b.decode()) for a, b in zip(prompt[:, 0], completion[:, 0], strict=True)]
    return [np.array(scorer.score(pairs), np.float32)[:, None]]


if __name__ == "__main__":
    scorer = Scorer()
    texts = [Tensor(name=name, dtype=bytes, shape=(1,)) for name in ("prompt", "completion")]
    ports = TritonConfig(
        http_address="127.0.0.1", grpc_address="127.0.0.1", grpc_port=port(), http_port=port() + 1, allow_metrics=False
    )
    batching = ModelConfig(
        max_batch_size=batch_size(), batcher=DynamicBatcher(max_queue_delay_microseconds=_WAIT_MICROSECONDS)
    )
    with Triton(config=ports) as triton:
        outputs = [Tensor(name="score", dtype=np.float32, shape=(1,))]
        triton.bind(model_name="reward", infer_func=infer, inputs=texts, outputs=outputs, config=batching)
        triton.serve()

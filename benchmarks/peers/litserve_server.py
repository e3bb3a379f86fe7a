"""LitServe: dynamic batching in one worker process behind one FastAPI front."""

from __future__ import annotations

from typing import Any

import litserve

from benchmarks.peers.scorer import PATIENCE_SECONDS, Scorer, batch_size, port

_WAIT_SECONDS = 0.01


class Reward(litserve.LitAPI):
    """Scores a batch."""

    def setup(self, device: str) -> None:
        """Loads the model, in the worker."""
        self._scorer = Scorer()

    def decode_request(self, request: dict[str, str]) -> tuple[str, str]:
        """A request's pair."""
        return request["prompt"], request["completion"]

    def batch(self, inputs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """A batch is a list."""
        return inputs

    def predict(self, pairs: list[tuple[str, str]]) -> list[float]:
        """One score per pair."""
        return self._scorer.score(pairs)

    def unbatch(self, output: list[float]) -> list[float]:
        """A batch's scores are a list."""
        return output

    def encode_response(self, output: float) -> dict[str, Any]:
        """The answer."""
        return {"score": output}


if __name__ == "__main__":
    api = Reward(max_batch_size=batch_size(), batch_timeout=_WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=PATIENCE_SECONDS)
    server.run(host="127.0.0.1", port=port(), num_api_servers=1, generate_client_file=False, log_level="warning")

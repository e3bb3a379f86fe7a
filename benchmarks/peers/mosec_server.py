"""mosec: dynamic batching in one worker process behind its Rust front."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.scorer import Scorer, batch_size

_WAIT_MS = 10


class Reward(Worker):
    """Scores a batch."""

    def __init__(self) -> None:
        self._scorer = Scorer()

    def forward(self, data: list[dict[str, str]]) -> list[dict[str, Any]]:
        """One score per request."""
        return [{"score": one} for one in self._scorer.score([(item["prompt"], item["completion"]) for item in data])]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Reward, num=1, max_batch_size=batch_size(), max_wait_time=_WAIT_MS)
    server.run()

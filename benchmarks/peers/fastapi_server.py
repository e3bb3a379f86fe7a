"""A handler as one writes it with FastAPI and uvicorn, without batching.

PEER_BATCH chooses how: 1 = the forward pass inside of `async def`, so that requests are computed one after the other
with all threads; 2 = a plain function, so that two are computed at once with a thread each.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.scorer import THREADS, Scorer, batch_size, port

_AT_ONCE = batch_size()
os.environ[THREADS] = str(max(int(os.environ[THREADS]) // _AT_ONCE, 1))
scorer = Scorer()


class Item(BaseModel):
    """A request."""

    prompt: str
    completion: str


@asynccontextmanager
async def limited(app: FastAPI) -> AsyncIterator[None]:
    """As many forward passes at once as there are sessions' threads for."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = _AT_ONCE
    yield


app = FastAPI(lifespan=limited)


def score(item: Item) -> dict[str, float]:
    """One forward pass per request."""
    return {"score": scorer.score([(item.prompt, item.completion)])[0]}


async def score_in_loop(item: Item) -> dict[str, float]:
    """The same, while the event loop waits."""
    return score(item)


app.post("/score")(score_in_loop if _AT_ONCE == 1 else score)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port(), log_level="warning")

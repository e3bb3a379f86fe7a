"""A small real server on the runtime: its reward model is a rule named in the prompt of the first item."""

import asyncio
import os
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry

from palate.v1 import (
    admin_service_pb2_grpc,
    common_pb2,
    policy_service_pb2,
    policy_service_pb2_grpc,
    reward_service_pb2,
    reward_service_pb2_grpc,
)
from services.runtime.callers import current_caller
from services.runtime.config import ServerConfig
from services.runtime.errors import InvalidRequest, NotReady, Overloaded
from services.runtime.health import Health
from services.runtime.metrics import ServerMetrics
from services.runtime.server import Service, run

NAMES = ["palate.v1.RewardService", "palate.v1.PolicyService", "palate.v1.AdminService"]


class ExampleServicer(reward_service_pb2_grpc.RewardServiceServicer):
    """Scores 1.0, or does what the first prompt says."""

    def __init__(self) -> None:
        self.begun = 0
        self.refused = 0
        self.release = asyncio.Event()
        self.tries: Counter[str] = Counter()
        self.shed_at: dict[str, float] = {}

    async def Score(self, request, context):
        word = request.items[0].prompt.text
        if word == "invalid":
            raise InvalidRequest("the item is wrong; mend it")
        if word == "overloaded-once" and self.refused == 0:
            self.refused += 1
            raise Overloaded("full", retry_after=0.2)
        if word == "slow":
            await asyncio.sleep(0.02)
        if word.startswith("unavailable-twice"):
            return self._score(context, self._third_try(word))
        if word.startswith("shed for "):
            return self._score(context, self._waited(word))
        if word == "bug":
            raise RuntimeError("a secret that callers must not see")
        if word == "quote":
            raise InvalidRequest(request.items[0].completion.text)
        if word == "wait":
            self.begun += 1
            await self.release.wait()
        if word == "who am I":
            await asyncio.sleep(0)
            raise InvalidRequest(current_caller())
        if word == "release":
            self.release.set()
        return self._score(context, float(self.begun))

    async def ScoreStream(self, requests, context):
        options = (await anext(requests)).options
        waited = self._waited(options.model) if options.model else 0.0
        async for request in requests:
            result = reward_service_pb2.ScoreResult(scored={"score": waited})
            yield reward_service_pb2.ScoreStreamResponse(id=request.item.id, result=result)

    def _third_try(self, word):
        self.tries[word] += 1
        if self.tries[word] < 3:
            raise NotReady("not yet")
        return float(self.tries[word])

    def _waited(self, word):
        """Refuses the first call; the second one learns how long it was away."""
        self.tries[word] += 1
        if self.tries[word] == 1:
            self.shed_at[word] = time.monotonic()
            raise Overloaded("full", retry_after=float(word.removeprefix("shed for ")))
        return time.monotonic() - self.shed_at[word]

    def _score(self, context, score):
        """Says who answered whom, in the place of model and revision."""
        return reward_service_pb2.ScoreResponse(
            results=[reward_service_pb2.ScoreResult(scored=reward_service_pb2.Scored(score=score))],
            provenance=reward_service_pb2.Provenance(model=str(os.getpid()), revision=context.peer()),
            timings=common_pb2.Timings(),
        )


class ExamplePolicyServicer(policy_service_pb2_grpc.PolicyServiceServicer):
    """Is never ready to be published to; samples a word, or does what the first prompt says."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()

    async def Generate(self, request, context):
        word = request.prompts[0].prompt.text
        self.tries[word] += 1
        if word.startswith("unavailable-twice") and self.tries[word] < 3:
            raise NotReady("not yet")
        if word.startswith("shed for "):
            raise Overloaded("full", retry_after=float(word.removeprefix("shed for ")))
        while word == "without end":
            yield policy_service_pb2.GenerateResponse(completion={"text": "x" * 100_000})
        text = "third" if self.tries[word] == 3 else "first"
        yield policy_service_pb2.GenerateResponse(completion={"text": text, "finish_reason": "FINISH_REASON_STOP"})
        if word == "breaks after one":
            raise NotReady("broken")

    async def AcquirePublisher(self, request, context):
        raise NotReady("not yet")


def main() -> None:
    config = ServerConfig.from_command_line(sys.argv[1:], "example")

    async def load() -> Service:
        servicer = ExampleServicer()
        while (file := os.environ.get("EXAMPLE_LOADS_WITH")) and not Path(file).exists():
            await asyncio.sleep(0.01)

        async def close() -> None:
            return None

        def add_to(server: grpc.aio.Server) -> None:
            reward_service_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
            policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(ExamplePolicyServicer(), server)
            admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
                admin_service_pb2_grpc.AdminServiceServicer(), server
            )

        return Service(add_to, close)

    run(
        config,
        service_names=NAMES,
        metrics=ServerMetrics(CollectorRegistry()),
        health=Health(NAMES, ["model"]),
        load=load,
    )


if __name__ == "__main__":
    main()

"""A small real server on the runtime: its reward model is a rule named in the prompt of the first item."""

import asyncio
import sys

import grpc
from prometheus_client import CollectorRegistry

from palate.v1 import common_pb2, policy_service_pb2_grpc, reward_service_pb2, reward_service_pb2_grpc
from services.runtime.config import ServerConfig
from services.runtime.errors import InvalidRequest, Overloaded
from services.runtime.health import Health
from services.runtime.metrics import ServerMetrics
from services.runtime.server import Service, run

NAMES = ["palate.v1.RewardService", "palate.v1.PolicyService"]


class ExampleServicer(reward_service_pb2_grpc.RewardServiceServicer):
    """Scores 1.0, or does what the first prompt says."""

    def __init__(self) -> None:
        self.begun = 0
        self.refused = 0
        self.release = asyncio.Event()

    async def Score(self, request, context):
        word = request.items[0].prompt.text
        if word == "invalid":
            raise InvalidRequest("the item is wrong; mend it")
        if word == "overloaded-once" and self.refused == 0:
            self.refused += 1
            raise Overloaded("full", retry_after=0.2)
        if word == "bug":
            raise RuntimeError("a secret that callers must not see")
        if word == "wait":
            self.begun += 1
            await self.release.wait()
        if word == "release":
            self.release.set()
        scored = reward_service_pb2.Scored(score=float(self.begun))
        return reward_service_pb2.ScoreResponse(
            results=[reward_service_pb2.ScoreResult(scored=scored)], timings=common_pb2.Timings()
        )


def main() -> None:
    config = ServerConfig.from_command_line(sys.argv[1:], "example")

    async def load() -> Service:
        servicer = ExampleServicer()

        async def close() -> None:
            return None

        def add_to(server: grpc.aio.Server) -> None:
            reward_service_pb2_grpc.add_RewardServiceServicer_to_server(servicer, server)
            nothing = policy_service_pb2_grpc.PolicyServiceServicer()
            policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(nothing, server)

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

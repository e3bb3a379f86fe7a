"""`python -m services.reward`: puts a reward server together."""

from __future__ import annotations

import asyncio
import sys

import grpc
from prometheus_client import CollectorRegistry

from palate.models.folder import FolderError
from palate.v1.reward_service_pb2_grpc import add_RewardServiceServicer_to_server
from services.reward.config import RewardConfig
from services.reward.metrics import RewardMetrics
from services.reward.model import load_model
from services.reward.parity import ParityError
from services.reward.scoring import Scorer
from services.reward.service import RewardServicer
from services.runtime.health import Health
from services.runtime.metrics import ServerMetrics
from services.runtime.server import Service, StartupError, run

NAMES = ("palate.v1.RewardService",)


def main() -> None:
    """Reads the command line and serves until told to stop."""
    config = RewardConfig.from_command_line(sys.argv[1:], "python -m services.reward")
    registry = CollectorRegistry()
    server_metrics, metrics = ServerMetrics(registry), RewardMetrics(registry)

    async def load() -> Service:
        try:
            model = await asyncio.to_thread(load_model, config)
        except (FolderError, ParityError) as error:
            raise StartupError(str(error)) from error
        engine = model.engine
        metrics.loaded(model.name, model.digests.revision, engine.name, engine.dtype)
        scorer = Scorer(model, config, metrics)
        servicer = RewardServicer(model, scorer, config, metrics)

        def add_to(server: grpc.aio.Server) -> None:
            add_RewardServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

        return Service(add_to, scorer.close, servicer.drain)

    run(config, service_names=NAMES, metrics=server_metrics, health=Health(NAMES, ["model"]), load=load)


if __name__ == "__main__":
    main()

"""`python -m services.reward`: puts a reward server together."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc
from prometheus_client import CollectorRegistry

from palate.hub import HubAway
from palate.models.folder import FolderError
from palate.oip.messages import NAME, POOL
from palate.v1.admin_service_pb2_grpc import add_AdminServiceServicer_to_server
from palate.v1.reward_service_pb2_grpc import add_RewardServiceServicer_to_server
from services.reward.admin import AdminServicer
from services.reward.config import RewardConfig
from services.reward.metrics import LoadOutcome, RewardMetrics
from services.reward.model import RewardModel, load_models
from services.reward.oip import protocol
from services.reward.oip.service import InferenceServicer
from services.reward.parity import ParityError
from services.reward.registry import Registry
from services.reward.scoring import Scorer
from services.reward.scoring_queue import ScoringQueue
from services.reward.service import RewardServicer
from services.runtime.health import Health
from services.runtime.listening import Early, StartupError
from services.runtime.metrics import ServerMetrics
from services.runtime.server import Service, run

NAMES = ("palate.v1.RewardService", "palate.v1.AdminService", NAME)


def main(prog: str = "python -m services.reward") -> None:
    """Reads the command line and serves until told to stop."""
    config = RewardConfig.from_command_line(sys.argv[1:], prog)
    # The cores are the engine's: the tokenizer's own threads would only take turns with it, and spin between texts.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    collected = CollectorRegistry()
    server_metrics, metrics = ServerMetrics(collected), RewardMetrics(collected)
    health = Health(NAMES, ["model"])
    queue = ScoringQueue(config, metrics)

    def scorer_of(model: RewardModel) -> Scorer:
        return Scorer(model, queue, metrics, config.rendering_threads)

    registry = Registry(scorer_of, metrics, config.max_models)
    inference = InferenceServicer(registry, config, health)

    async def load() -> Service:
        try:
            models = await asyncio.to_thread(load_models, config)
        except (FolderError, HubAway, ParityError) as error:
            raise StartupError(str(error)) from error
        for model in models:
            registry.put(model)
            metrics.load_ended(LoadOutcome.LOADED)
        servicer, admin = RewardServicer(registry, config, metrics), AdminServicer(registry, config, metrics)

        def add_to(server: grpc.aio.Server) -> None:
            add_RewardServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call]

        async def close() -> None:
            admin.close()
            await queue.close()
            registry.close()

        return Service(add_to, close, servicer.drain)

    early = Early(lambda server: protocol.add_to_server(inference, server), POOL)
    run(config, service_names=NAMES, metrics=server_metrics, health=health, load=load, early=[early])


if __name__ == "__main__":
    main()

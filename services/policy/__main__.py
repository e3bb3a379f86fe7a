"""Puts a policy server together: `python -m services.policy --help`."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from palate.client import PolicyVersion
from palate.hub import HubAway
from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest, load_manifest
from palate.models.place import model_folder, model_name
from palate.models.rendering import Renderer
from palate.models.weights import TensorEntry, weights_digest
from palate.v1 import policy_service_pb2_grpc
from services.policy.config import PolicyConfig
from services.policy.metrics import PolicyMetrics
from services.runtime.errors import WrongPin
from services.runtime.health import Health
from services.runtime.listening import StartupError
from services.runtime.server import Service, run

logger = logging.getLogger("services.policy")  # __name__ is __main__ here

NAME = "palate.v1.PolicyService"


def main(prog: str = "python -m services.policy") -> None:
    """Serves until SIGTERM."""
    config = PolicyConfig.from_command_line(sys.argv[1:], prog)
    metrics = PolicyMetrics(CollectorRegistry())

    async def load() -> Service:
        return await asyncio.to_thread(_load, config, metrics)

    run(config, service_names=[NAME], metrics=metrics.server, health=Health([NAME], ["model"]), load=load)


def _load(config: PolicyConfig, metrics: PolicyMetrics) -> Service:
    """Loads the folder and wires everything; torch comes late, so that help and a wrong folder answer at once."""
    config = _located(config)
    manifest, renderer = _folder(config)

    from services.policy.drawing import Drawing
    from services.policy.generation import Planner
    from services.policy.service import Parts, PolicyServicer
    from services.policy.turns import Turns

    engine, weights = _engine(config, renderer)
    if config.min_step_seconds:
        from services.policy.engine_paced import PacedEngine

        engine = PacedEngine(engine, config.min_step_seconds)
    publication = _publication(config, engine, weights)
    metrics.loaded(config.name, engine.name, engine.dtype, frozen=config.frozen)
    metrics.serving(publication.current.version)
    limits = _batch_limits(config)
    drawing = Drawing(engine, publication, limits, metrics)
    turns = Turns(drawing, config.max_queue_tokens, metrics)
    servicer = PolicyServicer(
        Parts(
            model=config.name,
            engine=engine,
            renderer=renderer,
            publication=publication,
            planner=Planner(engine, renderer, limits),
            drawing=drawing,
            turns=turns,
            limits=_limits(config, manifest, engine.vocab_size),
            metrics=metrics,
            max_seconds=config.max_deadline_seconds,
        )
    )

    def add_to(server: grpc.aio.Server) -> None:
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    async def close() -> None:
        await asyncio.to_thread(turns.close)

    return Service(add_to, close)


def _located(config: PolicyConfig) -> PolicyConfig:
    """The same, with the folder on this machine and the name that clients are told."""
    try:
        folder = model_folder(config.model, config.max_download_bytes)
        return config.model_copy(update={"model": folder, "name": config.name or model_name(config.model)})
    except (FolderError, HubAway) as error:
        raise StartupError(str(error)) from error


def _folder(config: PolicyConfig) -> tuple[Manifest, Renderer]:
    try:
        loaded = load_manifest(config.model)
        renderer = Renderer.from_folder(config.model, loaded.manifest)
        if config.engine != "fake":
            _ = ModelFolder(config.model).tensors  # says which file is missing or cut, before torch is loaded
    except FolderError as error:
        raise StartupError(str(error)) from error
    if loaded.manifest.kind != "policy":
        raise StartupError(f"{config.model} is a reward model; serve it with `palate serve reward`")
    for remark in loaded.inferred:
        logger.info("the folder leaves open: %s; assumed: %s", remark.missing, remark.assumed)
    return loaded.manifest, renderer


def _engine(config: PolicyConfig, renderer: Renderer) -> tuple[Any, Any]:
    """The engine that the configuration names, and the weights it starts with."""
    import torch

    if config.engine != "transformers" and config.device != "auto":
        raise StartupError(f"--device {config.device[:40]!r} is for --engine transformers; leave it away")
    if config.engine != "vllm" and config.eager:
        raise StartupError("--eager is for --engine vllm; leave it away")
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.engine == "fake":
        from services.policy.engine_fake import FakeEngine

        eos = () if renderer.eos_id is None else (renderer.eos_id,)
        fake = FakeEngine(renderer.vocab_size, eos)
        return fake, fake.initial_weights()
    from services.policy.engine_transformers import ModelError, TransformersEngine

    try:
        if config.engine == "vllm":
            from services.policy.engine_vllm import VllmEngine

            limits, longest = _batch_limits(config), renderer.manifest.max_tokens
            return VllmEngine.start(config.model, config.dtype, renderer.eos_id, limits, longest, eager=config.eager)
        return TransformersEngine.load(config.model, config.dtype, renderer.eos_id, config.device)
    except (FolderError, ModelError) as error:
        raise StartupError(str(error)) from error


def _batch_limits(config: PolicyConfig) -> Any:
    from services.policy.drawing import BatchLimits

    return BatchLimits(config.max_batch_rows, config.max_batch_tokens)


def _adapter_base(config: PolicyConfig, layout: Sequence[TensorEntry]) -> Any:
    """What adapters are added to; None where the engine has no matrices."""
    if config.engine == "fake":
        return None
    from services.policy.adapters import AdapterBase
    from services.policy.engine_transformers import ModelError, read_tensors

    def read() -> Mapping[str, Any]:
        try:
            return read_tensors(config.model, config.dtype)
        except ModelError as error:
            raise WrongPin(f"adapters are added to the weights that the server started with, and {error}") from error

    return AdapterBase(layout, read)


def _publication(config: PolicyConfig, engine: Any, weights: Any) -> Any:
    from services.policy.staging import Publication, Served

    layout = engine.describe(weights)
    return Publication(
        Served(PolicyVersion(digest=weights_digest(layout)), weights),
        layout,
        engine.tensors,
        adapters=_adapter_base(config, layout),
        frozen=config.frozen,
        lease_seconds=config.staging_lease_seconds,
        first_token=time.time_ns() // 1000,  # tokens keep growing when the server restarts
    )


def _limits(config: PolicyConfig, manifest: Manifest, vocab_size: int) -> Any:
    from services.policy.requests import Limits

    return Limits(
        max_tokens=manifest.max_tokens,
        max_prompts=config.max_prompts,
        max_completions=config.max_completions,
        max_reply_bytes=config.max_message_bytes,
        vocab_size=vocab_size,
    )


if __name__ == "__main__":
    main()

"""The protocol's RPCs, before the same models and the same queue as `palate.v1.RewardService`."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any, TypeAlias

import grpc

from palate.v1 import reward_service_pb2 as reward
from services.reward.config import RewardConfig
from services.reward.model import RewardModel
from services.reward.oip import protocol
from services.reward.oip.items import read_items
from services.reward.oip.outputs import add_outputs, check_scored, wanted_outputs
from services.reward.oip.parameters import read_parameters
from services.reward.oip.signature import INPUTS, OUTPUTS, TensorSpec
from services.reward.options import check_revision
from services.reward.registry import Registry
from services.reward.unary import UnaryScoring
from services.runtime.deadlines import deadline_of
from services.runtime.errors import NotFound, WrongPin
from services.runtime.health import Health

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

EXTENSIONS = ("schedule_policy",)
"""Triton's name for the parameters priority and timeout."""


class InferenceServicer:
    """Answers for the models of `registry`; a model's version is its revision. Live before there are any."""

    def __init__(self, registry: Registry, config: RewardConfig, health: Health) -> None:
        self._registry = registry
        self._health = health
        self._unary = UnaryScoring(registry, config)
        self._max_items = config.max_items
        self._max_seconds = config.max_deadline_seconds

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Says that the event loop turns."""
        return protocol.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Says what `grpc.health.v1` says."""
        return protocol.ServerReadyResponse(ready=self._health.ready)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Says whether the server is ready and has that model, in that revision if one is named."""
        try:
            self._model(request)
        except (NotFound, WrongPin):
            return protocol.ModelReadyResponse(ready=False)
        return protocol.ModelReadyResponse(ready=self._health.ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Says who answers."""
        return protocol.ServerMetadataResponse(name="palate", version=version("palate"), extensions=EXTENSIONS)

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Says what a model takes and gives."""
        model = self._model(request)
        return protocol.ModelMetadataResponse(
            name=model.name,
            versions=[model.digests.revision],
            platform=f"palate_{model.engine.name}",
            inputs=map(_described, INPUTS.values()),
            outputs=map(_described, OUTPUTS.values()),
        )

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Scores every item."""
        parameters = read_parameters(request.parameters)
        deadline = min(deadline_of(context, self._max_seconds), time.monotonic() + parameters.seconds)
        names = wanted_outputs(request.outputs, partial=parameters.partial)
        items = read_items(request, parameters.tokenizer_digest, self._max_items)
        options = reward.ScoreOptions(
            model=request.model_name,
            revision=request.model_version,
            priority=parameters.priority,
            truncation=parameters.truncation,
        )
        results, source = await self._unary.score(items, options, deadline)
        if not parameters.partial:
            check_scored(results)
        response = _response(source.model, request.id)
        add_outputs(response, names, results, raw=bool(request.raw_input_contents))
        return response

    def _model(self, request: Any) -> RewardModel:
        """The one that a request with name and version is about.

        Raises:
            NotFound: There is none of that name.
            WrongPin: It has another revision.
        """
        with self._registry.using(request.name) as served:
            check_revision(request.version, served.model)
            return served.model


def _response(model: RewardModel, request_id: str) -> Any:
    """A reply that says which model gave it, and has no outputs yet."""
    response = protocol.ModelInferResponse(model_name=model.name, model_version=model.digests.revision, id=request_id)
    engine, tokenizer_digest = model.engine, model.digests.tokenizer
    said = {"engine": engine.name, "dtype": engine.dtype, "tokenizer_digest": tokenizer_digest}
    for name, value in said.items():
        response.parameters[name].string_param = value
    return response


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}

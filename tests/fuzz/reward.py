"""The reward server's requests: from the bytes of a message to what is scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from google.protobuf.message import Message
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from palate.models.folder import FolderError
from palate.oip import messages as oip
from palate.v1 import admin_service_pb2 as admin
from palate.v1 import reward_service_pb2 as reward
from services.reward.admin import AdminServicer, inside
from services.reward.config import RewardConfig
from services.reward.inputs import Item, render_slice
from services.reward.metrics import RewardMetrics
from services.reward.oip.items import read_items
from services.reward.oip.outputs import wanted_outputs
from services.reward.oip.parameters import read_parameters
from services.reward.oip.service import InferenceServicer
from services.reward.options import demand_of
from services.reward.registry import Registry
from services.reward.scoring import Scorer
from services.reward.scoring_queue import ScoringQueue
from services.reward.service import RewardServicer
from services.reward.streaming import ItemStream
from services.reward.unary import check_count
from services.runtime.errors import ServiceError
from services.runtime.health import Health
from services.runtime.interceptors import parse_message
from tests.fuzz import folders, mutation
from tests.fuzz.harness import Harness, framed, frames_of, spoilt
from tests.fuzz.messages import TEXTS, Values, messages

MAX_ITEMS = 16


def _values() -> Values:
    model = folders.model()
    return {
        "palate.v1.TokenIds.ids": st.integers(0, 330),
        "palate.v1.TokenIds.tokenizer_digest": st.just(model.digests.tokenizer),
        "palate.v1.ScoreOptions.model": st.sampled_from(["", "judge"]),
        "palate.v1.ScoreOptions.revision": st.sampled_from(["", model.digests.revision]),
        "palate.v1.ScoreOptions.aggregate": st.just(0),
        "palate.v1.ChatMessage.role": st.sampled_from(["user", "assistant", "system"]),
    }


def _pairs(kind: type[Message], request: Any) -> list[Item]:
    """As the servicer takes them out of each request."""
    if kind is reward.ScoreRequest:
        return [(item.prompt, item.completion) for item in request.items]
    if kind is reward.CompareRequest:
        return [(request.prompt, request.first), (request.prompt, request.second)]
    if kind is reward.RankRequest:
        return [(request.prompt, completion) for completion in request.completions]
    return [(request.item.prompt, request.item.completion)]


def _scoring(kind: Any) -> Callable[[bytes], object]:
    def decode(data: bytes) -> object:
        request = parse_message(kind.FromString, data)
        demand = demand_of(request.options, folders.model(), math.inf)
        pairs = _pairs(kind, request)
        check_count(len(pairs), MAX_ITEMS)
        return [render_slice(pairs, renderer, demand.truncation) for renderer in _renderers()]

    return decode


@cache
def _renderers() -> tuple[Any, ...]:
    return folders.model().renderer, folders.renderer(None)


def _infer(data: bytes) -> object:
    request = parse_message(oip.message("ModelInferRequest").FromString, data)
    parameters = read_parameters(request.parameters)
    wanted_outputs(request.outputs, partial=parameters.partial)
    items = read_items(request, parameters.tokenizer_digest, MAX_ITEMS)
    options = reward.ScoreOptions(priority=parameters.priority, truncation=parameters.truncation)
    demand = demand_of(options, folders.model(), math.inf)
    return render_slice(items, folders.model().renderer, demand.truncation)


@st.composite
def _inferences(draw: st.DrawFn) -> bytes:
    """ModelInferRequests that are nearly right: one of the three forms, raw or typed."""
    request, items = oip.message("ModelInferRequest")(), draw(st.integers(0, 3))
    digest = folders.model().digests.tokenizer
    form = draw(st.sampled_from([("PROMPT", "RESPONSE"), ("MESSAGES",), ("INPUT_IDS", "SEQUENCE_LENGTH")]))
    if "INPUT_IDS" in form or draw(st.integers(0, 9)) == 0:
        request.parameters["tokenizer_digest"].string_param = digest
    raw = draw(st.booleans())
    for name in form:
        _add_input(draw, request, name, items, raw)
    return cast(bytes, request.SerializeToString())


def _add_input(draw: st.DrawFn, request: Any, name: str, items: int, raw: bool) -> None:
    width = draw(st.integers(0, 4)) if name == "INPUT_IDS" else 1
    integers = name in ("INPUT_IDS", "SEQUENCE_LENGTH")
    tensor = request.inputs.add(name=name, datatype="INT64" if integers else "BYTES", shape=[items, width])
    if integers:
        numbers = [draw(st.integers(-1, 5)) for _ in range(items * width)]
        if raw:
            request.raw_input_contents.append(b"".join(n.to_bytes(8, "little", signed=True) for n in numbers))
        else:
            tensor.contents.int64_contents.extend(numbers)
        return
    texts = [draw(_TALKS if name == "MESSAGES" else TEXTS).encode() for _ in range(items)]
    if raw:
        request.raw_input_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in texts))
    else:
        tensor.contents.bytes_contents.extend(texts)


_TALKS = st.sampled_from(
    [
        '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]',
        '[{"role": "assistant", "content": "\\ud800"}]',
        "[" * 3000,
        '[{"role": "assistant"}]',
        "{}",
        "1e999",
        "[1" + "0" * 4000 + "]",
    ]
)


class _Loop:
    """Servicers and streams of one event loop, for decoders that wait."""

    def __init__(self) -> None:
        self.loop = folders.InlineLoop()
        self.config = RewardConfig(model=Path("judge"), model_root=_model_root(), engine="fake")
        self.metrics = RewardMetrics(CollectorRegistry())
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        queue = ScoringQueue(self.config, self.metrics)
        registry = Registry(lambda model: Scorer(model, queue, self.metrics, 1), self.metrics, 16)
        registry.put(folders.model())
        with registry.using("") as served:
            self.scorer = served.scorer
        self.admin = AdminServicer(registry, self.config, self.metrics)
        self.reward = RewardServicer(registry, self.config, self.metrics)
        self.inference = InferenceServicer(registry, self.config, Health(["reward"], []))

    async def stream(self, requests: Iterable[reward.ScoreStreamRequest], demand: Any) -> list[Any]:
        async def sent() -> Any:
            for request in requests:
                yield request

        stream = ItemStream(self.scorer, demand, max_items=4, max_seconds=1.0, metrics=self.metrics)
        return [reply async for reply in stream.replies(sent())]


@cache
def _loop() -> _Loop:
    return _Loop()


@cache
def _model_root() -> Path:
    """Folders that may be loaded, one that is broken, and a link to a folder that may not."""
    root = folders.scratch("root")
    for name in ("good", "broken"):
        (root / name).mkdir(parents=True)
        folders.write_decoder(root / name, folders.TEMPLATES["plain"])
    (root / "broken" / "config.json").write_text("[" * 10_000)
    (root / "away").symlink_to("/etc")
    return root


def _stream(data: bytes) -> object:
    requests = [parse_message(reward.ScoreStreamRequest.FromString, part) for part in frames_of(data)]
    options = requests[0].options if requests else reward.ScoreOptions()
    demand = demand_of(options, folders.model(), math.inf)
    replies = _loop().loop.run_until_complete(_loop().stream(requests[1:], demand))
    assert len(replies) == len(requests[1:])
    return replies


def _stream_requests() -> st.SearchStrategy[bytes]:
    values = {**_values(), "google.protobuf.Duration.seconds": st.sampled_from([1, 60, -1])}
    first = st.builds(lambda: reward.ScoreStreamRequest(options=reward.ScoreOptions()).SerializeToString())
    items = framed(messages(reward.ScoreStreamRequest, values), most=4)
    return st.builds(bytes.__add__, framed(first, most=1), items)


_NAMED: dict[str, Any] = {
    "GetModelInfo": reward.GetModelInfoRequest,
    "ListModels": reward.ListModelsRequest,
    "ModelMetadata": oip.message("ModelMetadataRequest"),
    "ModelReady": oip.message("ModelReadyRequest"),
}
"""Requests that name a model at most, of both protocols."""


def _tell(data: bytes) -> object:
    name = sorted(_NAMED)[data[0] % len(_NAMED)] if data else "ListModels"
    request = parse_message(_NAMED[name].FromString, data[1:])
    servicer = _loop().inference if name.startswith("Model") else _loop().reward
    return _loop().loop.run_until_complete(getattr(servicer, name)(request, SimpleNamespace()))


def _questions() -> st.SearchStrategy[bytes]:
    model = folders.model()
    values = {
        "palate.v1.GetModelInfoRequest.model": st.sampled_from(["", "judge"]),
        "inference.ModelReadyRequest.name": st.sampled_from(["", "judge"]),
        "inference.ModelMetadataRequest.name": st.sampled_from(["", "judge"]),
        "inference.ModelReadyRequest.version": st.sampled_from(
            ["", model.digests.revision, model.digests.revision[:8]]
        ),
    }
    kinds = enumerate(sorted(_NAMED))
    return st.one_of([messages(_NAMED[name], values).map(bytes([place]).__add__) for place, name in kinds])


_ADMIN: dict[str, Any] = {
    "LoadModel": admin.LoadModelRequest,
    "UnloadModel": admin.UnloadModelRequest,
    "SetDefaultModel": admin.SetDefaultModelRequest,
}


def _administer(data: bytes) -> object:
    name = sorted(_ADMIN)[data[0] % len(_ADMIN)] if data else "LoadModel"
    request = parse_message(_ADMIN[name].FromString, data[1:])
    if name == "LoadModel" and "/" in request.path:
        with suppress(FolderError, OSError):  # which loading tells of
            assert inside(_model_root(), request.path).is_relative_to(_model_root().resolve())
    call = getattr(_loop().admin, name)(request, SimpleNamespace())
    return _loop().loop.run_until_complete(call)


def _administrations() -> st.SearchStrategy[bytes]:
    paths = ["good", "broken", "away", "../..", "/etc", "good/../../..", "away/passwd", ".", "good/./", "a" * 5000]
    values = {
        "palate.v1.LoadModelRequest.path": st.sampled_from(paths),
        "palate.v1.LoadModelRequest.name": st.sampled_from(["next", "judge", "a/b", "../a"]),
        "palate.v1.UnloadModelRequest.name": st.sampled_from(["judge", "next"]),
        "palate.v1.SetDefaultModelRequest.name": st.sampled_from(["judge", "next"]),
    }
    kinds = enumerate(sorted(_ADMIN))
    return st.one_of([messages(_ADMIN[name], values).map(bytes([place]).__add__) for place, name in kinds])


def harnesses() -> list[Harness]:
    """One for each request that carries something, one for each protocol."""
    kinds = [reward.ScoreRequest, reward.CompareRequest, reward.RankRequest, reward.ExplainRequest]
    scoring = [
        Harness(
            f"reward.{kind.__name__.removesuffix('Request')}",
            _scoring(kind),
            (ServiceError,),
            st.deferred(lambda kind=kind: spoilt(messages(kind, _values()))),  # type: ignore[misc]
            mutate=mutation.message,
            prepare=_renderers,
        )
        for kind in kinds
    ]
    return [
        *scoring,
        Harness("reward.ScoreStream", _stream, (ServiceError,), st.deferred(lambda: spoilt(_stream_requests())),
                mutate=mutation.messages, prepare=_loop),
        Harness("admin", _administer, (ServiceError,), spoilt(_administrations()),
                mutate=partial(mutation.message, head=1), prepare=_loop),
        Harness("reward.models", _tell, (ServiceError,), st.deferred(lambda: spoilt(_questions())),
                mutate=partial(mutation.message, head=1), prepare=_loop),
        Harness("oip.ModelInfer", _infer, (ServiceError,), spoilt(_inferences()),
                mutate=mutation.message, prepare=folders.model),
    ]  # fmt: skip

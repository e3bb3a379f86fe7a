"""Mixed calls with faults, each under an id of its own, so that servers' logs can be held against what callers saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from palate.client.errors import call_error
from palate.v1 import policy_service_pb2 as policy
from palate.v1 import reward_service_pb2 as reward
from palate.v1.policy_service_pb2_grpc import PolicyServiceStub
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from tests.checks.faults.accounting import Fate, fate_of
from tests.checks.faults.network import Way

_NO_RETRIES = [
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_TEXTS = [f"Text {number} is honest, " + "and so on " * (number % 17) for number in range(2000)]
_SECONDS = 10.0
_HURRY_SECONDS = 0.004
_PATIENCE_SECONDS = 0.003
_WIDEST = 4
_PAUSE_SECONDS = 0.05
"""After a call that failed: where nobody listens, callers would do nothing but fail."""


@dataclass
class Sight:
    """What callers saw.

    Attributes:
        name: What ids of calls begin with.
        fates: Id of a call → how it ended.
        made: Calls that were begun.
        wrong: Answers that are not whole.
        seconds: How long answered calls took, since it was last looked at.
        latest: By how many seconds a call outlived its deadline at most.
    """

    name: str
    fates: dict[str, Fate] = field(default_factory=dict)
    made: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    latest: float = float("-inf")

    def count(self) -> Counter[Fate]:
        """Calls by how they ended."""
        return Counter(self.fates.values())


Metadata = tuple[tuple[str, str], ...]
Call = Callable[[Metadata, float], Awaitable[str]]
"""Makes a call with this metadata and deadline; what of its answer is not whole, "" where nothing is."""


class Caller:
    """One connection to both servers.

    Args:
        way: To the reward server; the policy server is called without one.
        policy_target: Address.
        sight: What is written down.
        seed: Of what is called.
    """

    def __init__(self, way: Way, policy_target: str, sight: Sight, seed: int) -> None:
        own = [*_NO_RETRIES, ("palate.own", seed)]
        self._channels = [grpc.aio.insecure_channel(target, options=own) for target in (way.target, policy_target)]
        self._reward, self._policy = RewardServiceStub(self._channels[0]), PolicyServiceStub(self._channels[1])
        self._draw = random.Random(seed)
        self._sight = sight

    async def call(self, over: asyncio.Event) -> None:
        """Calls until told to stop."""
        kinds: tuple[Call, ...] = (self._score, self._rank, self._stream, self._generate, self._wrong)
        while not over.is_set():
            (kind,) = self._draw.choices(kinds, weights=(75, 10, 4, 6, 5))
            await self._enter(kind)
        for channel in self._channels:
            await channel.close()

    async def _enter(self, kind: Call) -> None:
        self._sight.made += 1
        name, begin = f"{self._sight.name}-{self._sight.made}", time.perf_counter()
        seconds = _HURRY_SECONDS if self._draw.random() < 0.03 else _SECONDS
        task = asyncio.ensure_future(kind((("palate-request-id", name),), seconds))
        if self._draw.random() < 0.03:
            asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, task.cancel)
        try:
            missing = await task
        except grpc.RpcError as error:
            self._sight.fates[name] = fate_of(call_error(error, "the server", "a service"))
        except asyncio.CancelledError:
            self._sight.fates[name] = Fate.CANCELLED
        else:
            self._sight.fates[name] = Fate.ANSWERED
            if missing:
                self._sight.wrong[f"{kind.__name__}, {seconds:g} s: {missing}"] += 1
            self._sight.seconds.append(time.perf_counter() - begin)
        self._sight.latest = max(self._sight.latest, time.perf_counter() - begin - seconds)
        if self._sight.fates[name] is Fate.FAILED:
            await asyncio.sleep(_PAUSE_SECONDS)

    def _items(self, most: int = _WIDEST) -> list[reward.ScoreItem]:
        chosen = self._draw.choices(_TEXTS, k=self._draw.randint(1, most))
        return [reward.ScoreItem(prompt={"text": "Is this honest?"}, completion={"text": text}) for text in chosen]

    async def _score(self, metadata: Metadata, seconds: float) -> str:
        items = self._items()
        reply = await self._reward.Score(reward.ScoreRequest(items=items), timeout=seconds, metadata=metadata)
        return _missing(reply.results, len(items), seconds)

    async def _rank(self, metadata: Metadata, seconds: float) -> str:
        completions = [item.completion for item in self._items()]
        request = reward.RankRequest(prompt={"text": "Is this honest?"}, completions=completions)
        reply = await self._reward.Rank(request, timeout=seconds, metadata=metadata)
        return _missing(reply.results, len(completions), seconds)

    async def _stream(self, metadata: Metadata, seconds: float) -> str:
        items = self._items(8 * _WIDEST)

        async def requests() -> AsyncIterator[reward.ScoreStreamRequest]:
            yield reward.ScoreStreamRequest(options={})
            for number, item in enumerate(items, 1):
                yield reward.ScoreStreamRequest(item={"id": number, "item": item})

        call = self._reward.ScoreStream(requests(), timeout=seconds, metadata=metadata)
        got = {reply.id: reply.result async for reply in call}
        return _missing(list(got.values()), len(items), seconds)

    async def _generate(self, metadata: Metadata, seconds: float) -> str:
        request = policy.GenerateRequest(
            prompts=[{"prompt": {"text": "Once upon a time"}}],
            completions_per_prompt=2,
            sampling={"max_new_tokens": 4, "ignore_eos": True},
        )
        events = [
            event.WhichOneof("event")
            async for event in self._policy.Generate(request, timeout=seconds, metadata=metadata)
        ]
        return "" if events.count("completion") == 2 else f"{Counter(events)}"

    async def _wrong(self, metadata: Metadata, seconds: float) -> str:
        """A request that no server takes."""
        await self._reward.Score(reward.ScoreRequest(), timeout=seconds, metadata=metadata)
        return "an answer to what asks nothing"


def _missing(results: Sequence[reward.ScoreResult] | Sequence[reward.RankResult], count: int, seconds: float) -> str:
    """What is missing where so many items should have their results; to one who hurries an item may expire."""
    ends = Counter(_end(result) for result in results)
    allowed = {"scored", "ranked"} | ({"ITEM_ERROR_CODE_EXPIRED"} if seconds < _SECONDS else set())
    return "" if ends.total() == count and ends.keys() <= allowed else f"{dict(ends)} of {count}"


def _end(result: reward.ScoreResult | reward.RankResult) -> str:
    """What became of an item."""
    outcome = result.WhichOneof("outcome")
    return reward.ItemErrorCode.Name(result.error.code) if outcome == "error" else str(outcome)


@asynccontextmanager
async def calling(way: Way, policy_target: str, sight: Sight, callers: int) -> AsyncIterator[asyncio.Event]:
    """Callers who call until the context ends, or its event is set."""
    over = asyncio.Event()
    tasks = [asyncio.create_task(Caller(way, policy_target, sight, seed).call(over)) for seed in range(callers)]
    try:
        yield over
    finally:
        over.set()
        await asyncio.gather(*tasks)

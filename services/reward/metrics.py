"""Every metric of the reward service, with its buckets; label values come from closed sets."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.reward.model import RewardModel
from services.runtime.metrics import LATENCY_SECONDS
from services.runtime.work import Reuse


class ItemOutcome(StrEnum):
    """How an item ended."""

    SCORED = "scored"
    INVALID = "invalid"
    TOO_LONG = "too_long"
    EXPIRED = "expired"
    FAILED = "failed"


class LoadOutcome(StrEnum):
    """What became of a model that was to be loaded."""

    LOADED = "loaded"
    PARITY = "parity"
    UNUSABLE = "unusable"
    OTHER_REVISION = "other_revision"


_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SCORES = (-20, -10, -8, -6, -5, -4, -3, -2, -1.5, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20)
_DEVIATIONS = (-6, -4, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 4, 6)


class RewardMetrics:
    """The families; also what the scheduler reports to (`services.runtime.work.Observer`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._items = counter("palate_reward_items", "Items answered, by outcome.", "outcome")
        self._dropped = counter("palate_reward_items_dropped", "Items dropped before compute, by reason.", "reason")
        self._deduplicated = counter("palate_reward_items_deduplicated", "Items that shared the row of an equal one.")
        self._cached = counter("palate_reward_items_cached", "Items whose score was known from an earlier equal one.")
        self._tokens = counter("palate_reward_tokens", "Tokens computed: real, and padding beside them.", "kind")
        self._queue_items = Gauge("palate_reward_queue_items", "Items that wait.", registry=registry)
        self._queue_tokens = Gauge("palate_reward_queue_tokens", "Tokens that wait.", registry=registry)
        self._running_tokens = Gauge(
            "palate_reward_running_tokens", "Tokens that are being computed.", registry=registry
        )
        self._streams = Gauge("palate_reward_streams", "Streams that are open.", registry=registry)
        self._stream_items = Gauge(
            "palate_reward_stream_items", "Items of streams read and not yet answered.", registry=registry
        )
        self._batch_rows = histogram("palate_reward_batch_rows", "Rows of a batch.", _SIZES)
        self._queue_seconds = histogram("palate_reward_queue_seconds", "Wait of an item.", LATENCY_SECONDS)
        self._tokenize_seconds = histogram(
            "palate_reward_tokenize_seconds", "From texts to token ids, per request.", LATENCY_SECONDS
        )
        self._compute_seconds = histogram("palate_reward_compute_seconds", "Engine time of a batch.", LATENCY_SECONDS)
        self.scores = histogram("palate_reward_score", "Raw scores given.", _SCORES, "model")
        self.calibrated = histogram(
            "palate_reward_calibrated_score", "The same in standard deviations from the mean of the model's reference "
            "samples, where it has any: of texts like these the mean is 0.", _DEVIATIONS, "model",
        )  # fmt: skip
        self.non_finite = counter(
            "palate_reward_non_finite_scores",
            "Items that failed because the model gave infinity or no number.",
            "model",
        )
        self._loads = counter(
            "palate_reward_model_loads", "Models that were to be loaded: loaded, refused because a text scored "
            "otherwise in a batch than alone (parity), unusable, of another revision than asked for.", "outcome",
        )  # fmt: skip
        self._parity = Gauge(
            "palate_reward_parity_deviation", "Largest difference of a text's scores, alone and in a batch, when the "
            "model was loaded; standard deviations of its scores, 0 where it keeps its bits.", ("model",),
            registry=registry,
        )  # fmt: skip
        self._info = Gauge(
            "palate_reward_model_info", "1; the labels say what is loaded.", ("model", "revision", "engine", "dtype"),
            registry=registry,
        )  # fmt: skip
        self._answered = {outcome: self._items.labels(outcome.value) for outcome in ItemOutcome}
        self._real, self._padding = self._tokens.labels("real"), self._tokens.labels("padding")
        for reason in ("cancelled", "expired"):
            self._dropped.labels(reason)
        for load in LoadOutcome:
            self._loads.labels(load.value)

    def serving(self, models: Sequence[RewardModel]) -> None:
        """These models are served from now on, and no others."""
        self._info.clear()
        self._parity.clear()
        for model in models:
            self._info.labels(model.name, model.digests.revision, model.engine.name, model.engine.dtype).set(1)
            self._parity.labels(model.name).set(model.parity_deviation)

    def load_ended(self, outcome: LoadOutcome) -> None:
        """A model was loaded, or refused."""
        self._loads.labels(outcome.value).inc()

    def streams_changed(self, difference: int) -> None:
        """So many streams more are open."""
        self._streams.inc(difference)

    def stream_items_changed(self, difference: int) -> None:
        """So many items of streams more are without an answer."""
        self._stream_items.inc(difference)

    def item_answered(self, outcome: ItemOutcome) -> None:
        """An item of a request has its result."""
        self._answered[outcome].inc()

    def deduplicated(self, items: int) -> None:
        """Items that were not computed because an equal one of the same request was."""
        self._deduplicated.inc(items)

    def item_reused(self, how: Reuse) -> None:
        """An item of a request shares the score of an equal one of another."""
        (self._cached if how is Reuse.CACHED else self._deduplicated).inc()

    def tokenized(self, seconds: float) -> None:
        """A request's texts became token ids."""
        self._tokenize_seconds.observe(seconds)

    def queue_changed(self, items: int, tokens: int) -> None:
        """What waits now."""
        self._queue_items.set(items)
        self._queue_tokens.set(tokens)

    def running_changed(self, tokens: int) -> None:
        """What the engine computes now."""
        self._running_tokens.set(tokens)

    def batch_done(self, rows: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """The engine ran a batch."""
        self._batch_rows.observe(rows)
        self._real.inc(tokens)
        self._padding.inc(padded_tokens - tokens)
        self._compute_seconds.observe(seconds)

    def item_started(self, queue_seconds: float) -> None:
        """An item left the queue for the engine."""
        self._queue_seconds.observe(queue_seconds)

    def items_dropped(self, reason: str, count: int) -> None:
        """Items left the queue without being computed."""
        self._dropped.labels(reason).inc(count)


class ModelMetrics:
    """What is counted of one model; its name is one that the operator gave."""

    def __init__(self, families: RewardMetrics, model: str) -> None:
        self._raw = families.scores.labels(model)
        self._calibrated = families.calibrated.labels(model)
        self._non_finite = families.non_finite.labels(model)

    def scored(self, score: float, calibrated: float | None) -> None:
        """An item got this raw score; None where the model stores no calibration."""
        self._raw.observe(score)
        if calibrated is not None:
            self._calibrated.observe(calibrated)

    def not_finite(self) -> None:
        """The model gave an item infinity, or no number."""
        self._non_finite.inc()

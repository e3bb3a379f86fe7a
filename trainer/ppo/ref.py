"""A reference policy that runs as a frozen policy service."""

from __future__ import annotations

import time

from torch import Tensor

from palate.client.errors import FailedPrecondition
from palate.client.policy import PolicyClient
from palate.client.types import PolicyInfo
from palate.models.rendering import Renderer
from trainer.ppo.errors import UnusableModel
from trainer.ppo.idle import BusyMeter
from trainer.ppo.patience import Patience
from trainer.ppo.replica import AWAY, TOO_LARGE
from trainer.types import Sequences, padded

_BACKOFF_SECONDS = 0.2


class RemoteRef:
    """Asks a frozen policy service for logprobs; pinned to the weights it has at the start.

    Args:
        client: Of the service.
        info: What it has loaded.
        temperature: The sampling temperature.
        renderer: Of the policy; the service must have the same tokenizer and read sequences as long.
        patience: How long it is asked while it is away.
        meter: Of this service.

    Raises:
        UnusableModel: The service is not frozen, has another tokenizer, or reads less.
    """

    def __init__(
        self,
        client: PolicyClient,
        info: PolicyInfo,
        temperature: float,
        renderer: Renderer,
        patience: Patience,
        meter: BusyMeter,
    ) -> None:
        if not info.frozen:
            raise UnusableModel(f"{client.target} is not frozen, so it cannot be the reference; start it with --frozen")
        if info.tokenizer_digest != renderer.tokenizer_digest:
            raise UnusableModel(f"the reference policy at {client.target} has another tokenizer than --policy")
        if info.max_tokens < renderer.manifest.max_tokens:
            raise UnusableModel(
                f"the reference policy at {client.target} reads at most {info.max_tokens} tokens, --policy "
                f"{renderer.manifest.max_tokens}; start it from the same folder"
            )
        self._client = client
        self._temperature = temperature
        self._tokenizer_digest = renderer.tokenizer_digest
        self._patience = patience
        self._meter = meter
        self.info = info
        self._version = info.policy_version
        self._max_sequences = info.max_prompts

    def logprobs(self, sequences: Sequences) -> Tensor:
        """(B, T) at the sampling temperature, 0 at padding."""
        rows: list[tuple[float, ...]] = []
        for start in range(0, len(sequences), self._max_sequences):
            some = sequences.rows(range(start, min(start + self._max_sequences, len(sequences))))
            rows.extend(self._ask(some))
        return padded(rows)

    def _ask(self, sequences: Sequences) -> tuple[tuple[float, ...], ...]:
        pauses = self._patience.pauses(_BACKOFF_SECONDS)
        while True:
            try:
                return self._call(sequences)
            except AWAY as error:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(error.retry_after or pause)
            except TOO_LARGE:
                if len(sequences) == 1:
                    raise
                middle = len(sequences) // 2
                first, second = range(middle), range(middle, len(sequences))
                return self._ask(sequences.rows(first)) + self._ask(sequences.rows(second))

    def _call(self, sequences: Sequences) -> tuple[tuple[float, ...], ...]:
        try:
            with self._meter.busy():
                reply = self._client.compute_logprobs(
                    zip(sequences.prompt_ids, sequences.completion_ids, strict=True),
                    temperature=self._temperature,
                    tokenizer_digest=self._tokenizer_digest,
                    required_policy_version=self._version,
                )
        except FailedPrecondition as error:
            raise UnusableModel(f"the reference policy at {self._client.target} changed: {error}") from error
        return reply.logprobs

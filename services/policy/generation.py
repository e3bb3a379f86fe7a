"""From checked calls to slices for the engine: who is drawn together, and from which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from palate.client import PolicyVersion
from palate.models.rendering import Renderer
from services.policy.engine import Engine, GenerationBatch, Row
from services.policy.metrics import PolicyMetrics
from services.policy.requests import GenerateCall, LogprobsCall
from services.policy.sampling import row_seed
from services.policy.staging import Served
from services.policy.texts import stop_rule
from services.policy.turns import Slice

_LOGIT_BYTES = 512 * 1024 * 1024
"""What the float32 logits of one forward pass over whole sequences may take."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A finished completion of a call.

    Attributes:
        prompt_index: Which of the call's prompts it continues.
        completion_index: Which of the prompt's completions it is.
        token_ids: The drawn tokens, (T,).
        logprobs: Of each, in nats, (T,).
        stopped: It ended by itself; False = the length limit cut it.
        version: The weights that drew it.
    """

    prompt_index: int
    completion_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    version: PolicyVersion


@dataclass(frozen=True, slots=True)
class Measured:
    """Logprobs of one sequence of a call, (T,)."""

    index: int
    logprobs: tuple[float, ...]


class Planner:
    """Cuts calls into slices.

    Args:
        engine: What runs them.
        renderer: Decodes where stop texts are asked for.
        max_rows: Most rows of a slice.
        max_tokens: Most tokens of a slice, padding included.
        metrics: What is counted.
    """

    def __init__(
        self, engine: Engine[Any], renderer: Renderer, max_rows: int, max_tokens: int, metrics: PolicyMetrics
    ) -> None:
        self._engine = engine
        self._renderer = renderer
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._metrics = metrics
        self.decode_steps = 0

    def generate(self, call: GenerateCall, served: Callable[[], Served[Any]]) -> list[Slice[Drawn]]:
        """Slices that draw the call's completions.

        Args:
            call: What to draw.
            served: The weights to draw from; asked when a slice starts, which then keeps to them.
        """
        wanted = [
            (prompt, index)
            for prompt in sorted(range(len(call.prompts)), key=lambda prompt: len(call.prompts[prompt].ids))
            for index in range(call.completions_per_prompt)
        ]
        new = call.sampling.max_new_tokens
        lengths = [len(call.prompts[prompt].ids) + new for prompt, _ in wanted]
        return [
            Slice(len(group) * new, partial(self._draw, call, [wanted[place] for place in group], served))
            for group in _groups(lengths, self._max_rows, self._max_tokens)
        ]

    def logprobs(self, call: LogprobsCall, served: Served[Any]) -> list[Slice[Measured]]:
        """Slices that compute the call's logprobs, all from the same weights; equal lengths stand together."""
        lengths = [len(prompt) + len(completion) for prompt, completion in call.sequences]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        # Whole logits are kept for as many positions as the longest completion has, so V bounds the batch as well.
        budget = min(self._max_tokens, max(1, _LOGIT_BYTES // (4 * self._engine.vocab_size)))
        groups = _groups([lengths[index] for index in order], self._max_rows, budget)
        return [
            Slice(
                sum(lengths[order[place]] for place in group),
                partial(self._measure, call, [order[place] for place in group], served),
            )
            for group in groups
        ]

    def _draw(
        self, call: GenerateCall, group: Sequence[tuple[int, int]], served: Callable[[], Served[Any]]
    ) -> Iterator[list[Drawn]]:
        source = served()
        prompts = [call.prompts[prompt] for prompt, _ in group]
        rows = tuple(Row(p.ids, row_seed(p.seed, index)) for p, (_, index) in zip(prompts, group, strict=True))
        ends_text = stop_rule(self._renderer, [row.prompt_ids for row in rows], call.stop)
        for finished in self._engine.decode(source.weights, GenerationBatch(rows, call.sampling, ends_text)):
            self.decode_steps += 1
            self._metrics.decode_steps.inc()
            yield [Drawn(*group[row.row], row.token_ids, row.logprobs, row.stopped, source.version) for row in finished]

    def _measure(self, call: LogprobsCall, group: Sequence[int], served: Served[Any]) -> Iterator[list[Measured]]:
        sequences = [call.sequences[index] for index in group]
        rows = self._engine.logprobs(served.weights, sequences, call.temperature)
        yield [Measured(index, tuple(row)) for index, row in zip(group, rows, strict=True)]


def _groups(lengths: Sequence[int], max_rows: int, max_tokens: int) -> list[range]:
    """Consecutive places, at most `max_rows` of them and `max_tokens` with padding; lengths are ascending."""
    groups, begin = [], 0
    for place, length in enumerate(lengths):
        rows = place - begin + 1
        if rows > 1 and (rows > max_rows or rows * length > max_tokens):
            groups.append(range(begin, place))
            begin = place
    return [*groups, range(begin, len(lengths))]

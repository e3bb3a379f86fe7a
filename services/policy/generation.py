"""From checked calls to slices for the engine: who is drawn together, and from which weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from palate.client import VersionSpan
from palate.models.rendering import Renderer
from services.policy.engine import DecodeStep, Engine, GenerationBatch, Row
from services.policy.mailbox import Piece
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
        versions: Which weights drew which tokens; at least one span.
    """

    prompt_index: int
    completion_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    versions: tuple[VersionSpan, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Logprobs of one sequence of a call, (T,)."""

    index: int
    logprobs: tuple[float, ...]


Source: TypeAlias = Callable[[], Served[Any]]
"""Where a slice takes its weights; asked before every step."""


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
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self._metrics = metrics
        self.decode_steps = 0

    def generate(self, call: GenerateCall, sources: Callable[[], Source]) -> list[Slice[Drawn | Piece]]:
        """Slices that draw the call's completions.

        Args:
            call: What to draw.
            sources: Gives a slice its source when the slice starts.
        """
        wanted = [
            (prompt, index)
            for prompt in sorted(range(len(call.prompts)), key=lambda prompt: len(call.prompts[prompt].ids))
            for index in range(call.completions_per_prompt)
        ]
        new = call.sampling.max_new_tokens
        lengths = [len(call.prompts[prompt].ids) + new for prompt, _ in wanted]
        return [
            Slice(len(group) * new, partial(self._draw, call, [wanted[place] for place in group], sources))
            for group in _groups(lengths, self.max_rows, self.max_tokens)
        ]

    def logprobs(self, call: LogprobsCall, served: Served[Any]) -> list[Slice[Measured]]:
        """Slices that compute the call's logprobs, all from the same weights; equal lengths stand together."""
        lengths = [len(prompt) + len(completion) for prompt, completion in call.sequences]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        # Whole logits are kept for as many positions as the longest completion has, so V bounds the batch as well.
        budget = min(self.max_tokens, max(1, _LOGIT_BYTES // (4 * self._engine.vocab_size)))
        groups = _groups([lengths[index] for index in order], self.max_rows, budget)
        return [
            Slice(
                sum(lengths[order[place]] for place in group),
                partial(self._measure, call, [order[place] for place in group], served),
            )
            for group in groups
        ]

    def _draw(
        self, call: GenerateCall, group: Sequence[tuple[int, int]], sources: Callable[[], Source]
    ) -> Iterator[list[Drawn | Piece]]:
        trail = _Trail(sources())
        prompts = [call.prompts[prompt] for prompt, _ in group]
        rows = tuple(Row(p.ids, row_seed(p.seed, index)) for p, (_, index) in zip(prompts, group, strict=True))
        ends_text = stop_rule(self._renderer, [row.prompt_ids for row in rows], call.stop)
        for step in self._engine.decode(trail.weights, GenerationBatch(rows, call.sampling, ends_text)):
            self.decode_steps += 1
            self._metrics.decode_steps.inc()
            pieces = _pieces(step, group, trail.drawn) if call.stream_tokens else []
            trail.drawn += 1
            finished = [
                Drawn(*group[row.row], row.token_ids, row.logprobs, row.stopped, trail.spans(len(row.token_ids)))
                for row in step.finished
            ]
            yield [*pieces, *finished]

    def _measure(self, call: LogprobsCall, group: Sequence[int], served: Served[Any]) -> Iterator[list[Measured]]:
        sequences = [call.sequences[index] for index in group]
        rows = self._engine.logprobs(served.weights, sequences, call.temperature)
        yield [Measured(index, tuple(row)) for index, row in zip(group, rows, strict=True)]


class _Trail:
    """Which weights drew from which token on: all rows of a slice begin together, so one trail is true of each."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._spans: list[VersionSpan] = []
        self.drawn = 0  # steps done, which is how many tokens every unfinished row has

    def weights(self) -> Any:
        """Those of the next step."""
        served = self._source()
        if not self._spans or self._spans[-1].version != served.version:
            self._spans.append(VersionSpan(self.drawn, served.version))
        return served.weights

    def spans(self, tokens: int) -> tuple[VersionSpan, ...]:
        """Those of a row that ended with so many tokens."""
        return tuple(span for span in self._spans if span.first_token < tokens)


def _pieces(step: DecodeStep, group: Sequence[tuple[int, int]], place: int) -> list[Piece]:
    ended = {row.row for row in step.finished}
    return [
        Piece(*group[token.row], place, [token.token_id], [token.logprob], token.row in ended) for token in step.tokens
    ]


def _groups(lengths: Sequence[int], max_rows: int, max_tokens: int) -> list[range]:
    """Consecutive places, at most `max_rows` of them and `max_tokens` with padding; lengths are ascending."""
    groups, begin = [], 0
    for place, length in enumerate(lengths):
        rows = place - begin + 1
        if rows > 1 and (rows > max_rows or rows * length > max_tokens):
            groups.append(range(begin, place))
            begin = place
    return [*groups, range(begin, len(lengths))]

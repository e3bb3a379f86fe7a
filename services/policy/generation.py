"""From checked calls to completions to draw and slices to run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from palate.models.rendering import Renderer
from services.policy.drawing import BatchLimits
from services.policy.engine import Engine, Row
from services.policy.jobs import Group, Slice, Wanted
from services.policy.requests import GenerateCall, LogprobsCall
from services.policy.sampling import row_seed
from services.policy.staging import Served
from services.policy.texts import stop_rule

_LOGIT_BYTES = 512 * 1024 * 1024
"""What the float32 logits of one forward pass over whole sequences may take."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Logprobs of one sequence of a call, (T,)."""

    index: int
    logprobs: tuple[float, ...]


class Planner:
    """Cuts calls into what the engine's thread can put beside others.

    Args:
        engine: What runs them.
        renderer: Decodes where stop texts are asked for.
        limits: Of what is computed together.
    """

    def __init__(self, engine: Engine[Any], renderer: Renderer, limits: BatchLimits) -> None:
        self._engine = engine
        self._renderer = renderer
        self.limits = limits
        self._keys = itertools.count()

    def generate(self, call: GenerateCall, pinned: Served[Any] | None) -> list[Group]:
        """Groups that draw the call's completions; short prompts first, so that those drawn together need less padding.

        Args:
            call: What to draw.
            pinned: The only weights that may draw it; None = any.
        """
        wanted = [
            self._wanted(call, prompt, index)
            for prompt in sorted(range(len(call.prompts)), key=lambda prompt: len(call.prompts[prompt].ids))
            for index in range(call.completions_per_prompt)
        ]
        if self._engine.joins and not call.strict:
            return [Group((one,), pinned=pinned) for one in wanted]
        groups = _groups([one.row.most_tokens for one in wanted], self.limits)
        return [
            Group(tuple(wanted[place] for place in group), apart=True, pinned=pinned, strict=call.strict)
            for group in groups
        ]

    def logprobs(self, call: LogprobsCall, served: Served[Any]) -> list[Slice[Measured]]:
        """Slices that compute the call's logprobs, all from the same weights; equal lengths stand together."""
        lengths = [len(prompt) + len(completion) for prompt, completion in call.sequences]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        # Whole logits are kept for as many positions as the longest completion has, so V bounds the batch as well.
        most = min(self.limits.max_tokens, max(1, _LOGIT_BYTES // (4 * self._engine.vocab_size)))
        groups = _groups([lengths[index] for index in order], replace(self.limits, max_tokens=most))
        return [
            Slice(
                sum(lengths[order[place]] for place in group),
                partial(self._measure, call, [order[place] for place in group], served),
            )
            for group in groups
        ]

    def _wanted(self, call: GenerateCall, prompt: int, index: int) -> Wanted:
        ids, seed = call.prompts[prompt].ids, row_seed(call.prompts[prompt].seed, index)
        row = Row(next(self._keys), ids, seed, call.sampling)
        return Wanted(prompt, index, row, stop_rule(self._renderer, ids, call.stop))

    def _measure(self, call: LogprobsCall, group: Sequence[int], served: Served[Any]) -> list[Measured]:
        sequences = [call.sequences[index] for index in group]
        rows = self._engine.logprobs(served.weights, sequences, call.temperature)
        return [Measured(index, tuple(row)) for index, row in zip(group, rows, strict=True)]


def _groups(lengths: Sequence[int], limits: BatchLimits) -> list[range]:
    """Consecutive places, as many together as the limits allow, padding counted; lengths are ascending."""
    groups, begin = [], 0
    for place, length in enumerate(lengths):
        rows = place - begin + 1
        if not limits.allow(rows, rows * length):
            groups.append(range(begin, place))
            begin = place
    return [*groups, range(begin, len(lengths))]

"""How an engine's work is laid out on the machine: passes side by side, threads of each, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TOKENS = 8192
"""Padded tokens of a batch, where no engine wants fewer."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How an engine likes its work.

    Attributes:
        lanes: Batches to be computed side by side.
        batch_tokens: Padded tokens of a batch beyond which it gets no faster per token.
        padding_slack: Padding that an item may add to a batch, as a share of its length.
        overhead_tokens: As many tokens of padding more; what a batch of its own would cost beside its tokens.
    """

    lanes: int
    batch_tokens: int = MOST_TOKENS
    padding_slack: float = 0.25
    overhead_tokens: int = 16


@dataclass(frozen=True, slots=True)
class Threads:
    """CPU threads of a forward pass.

    Attributes:
        each: Where passes run side by side.
        alone: Of a pass beside which nothing is computed; never fewer.
    """

    each: int
    alone: int


ONE_THREAD = Threads(1, 1)

ONE_LANE = Layout(1)


def share_threads(threads: int, lanes: int, *, strict: bool) -> Threads:
    """Shares out `threads` among `lanes`; in strict mode every pass has the same number, so that one proof holds."""
    each = max(1, threads // lanes)
    return Threads(each, each if strict else max(each, threads))

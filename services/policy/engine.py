"""What the service needs of an engine: token ids in, drawn tokens and logprobs out; no text, no protobuf, no calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from palate.models.weights import TensorEntry
from services.policy.sampling import Sampling

if TYPE_CHECKING:
    from torch import Tensor

WeightsT = TypeVar("WeightsT")
"""A loaded model, opaque to everyone but its engine; never changed once it is built."""

EndsText: TypeAlias = Callable[[int, Sequence[int]], bool]
"""Whether a row (its index in the batch) has ended, judging by the tokens drawn so far."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to draw: after which prompt, and from which seed."""

    prompt_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class GenerationBatch:
    """Completions that are drawn together.

    Attributes:
        rows: At least one.
        sampling: How tokens are drawn.
        ends_text: Asked after every token; None where only length and end-of-sequence end a completion.
    """

    rows: tuple[Row, ...]
    sampling: Sampling
    ends_text: EndsText | None = None


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """A drawn completion.

    Attributes:
        row: Its index in the batch.
        token_ids: The drawn tokens, (T,), the end-of-sequence token included where it was drawn.
        logprobs: Of each under the distribution it was drawn from, in nats, (T,).
        stopped: It ended by itself; False = the length limit cut it.
    """

    row: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


class DrawnToken(NamedTuple):
    """A token that a step drew: for which row of the batch, and its log-probability in nats."""

    row: int
    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """What one step did.

    Attributes:
        tokens: One for each row that had not ended before.
        finished: The rows that these tokens ended.
    """

    tokens: tuple[DrawnToken, ...]
    finished: tuple[FinishedRow, ...]


class Engine(Protocol[WeightsT]):
    """Runs one policy network; used by one thread at a time, except `build`.

    Attributes:
        name: As clients are told, e.g. "transformers".
        dtype: Number format of the forward pass, e.g. "float32".
        vocab_size: V.
        eos_token_ids: Tokens that end a completion.
        threads: CPU threads of a forward pass.
    """

    name: str
    dtype: str
    threads: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]

    def describe(self, weights: WeightsT) -> list[TensorEntry]:
        """The tensors that make up `weights`."""
        ...

    def tensors(self, weights: WeightsT) -> Mapping[str, Tensor]:
        """Those tensors by name, to be read only."""
        ...

    def build(self, state: Mapping[str, Tensor]) -> WeightsT:
        """Weights of these tensors, beside the ones that are in use; called from another thread than the rest."""
        ...

    def decode(self, weights: Callable[[], WeightsT], batch: GenerationBatch) -> Iterator[DecodeStep]:
        """Draws one token per unfinished row with every step of the iterator; whoever stops iterating stops the work.

        Args:
            weights: Asked before every step. Where they are others than before, nothing computed under the former ones
                is used again: the step draws from the new ones after prompt and tokens so far.
            batch: What to draw.
        """
        ...

    def logprobs(
        self, weights: WeightsT, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions of (prompt ids, completion ids) at `temperature`, all in one forward pass."""
        ...

"""What the service needs of an engine: token ids in, drawn tokens and logprobs out; no text, no protobuf, no calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from palate.models.weights import TensorEntry
from services.policy.sampling import Sampling, SeedNoise

if TYPE_CHECKING:
    from torch import Tensor

WeightsT = TypeVar("WeightsT")
"""A loaded model, opaque to everyone but its engine; never changed once it is built."""


@dataclass(frozen=True, slots=True)
class Row:
    """One completion to draw, from its beginning or from where another batch left it.

    Attributes:
        key: Tells it from every other row that is being drawn.
        prompt_ids: What it continues; at least one token.
        seed: Of its generator: what it draws depends on no other row.
        sampling: How tokens are drawn.
        token_ids: Those drawn so far, (T,).
        noise: What the batch that drew them says of how to go on; None = from the seed, whose noise they have used.
            Only as far as the tokens go counts of it.
    """

    key: int
    prompt_ids: tuple[int, ...]
    seed: int
    sampling: Sampling
    token_ids: tuple[int, ...] = ()
    noise: Any = None

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and completion at most."""
        return len(self.prompt_ids) + self.sampling.max_new_tokens

    @property
    def noise_to_come(self) -> SeedNoise:
        """What the next tokens are drawn with."""
        return SeedNoise(self.seed, len(self.token_ids), self.noise)


class DrawnToken(NamedTuple):
    """A token that a step drew: for which row, and its log-probability under what it was drawn from, in nats."""

    key: int
    token_id: int
    logprob: float


class EndedRow(NamedTuple):
    """A row that has left the batch, having ended by itself (`stopped`), or at the length limit."""

    key: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """What one step did.

    Attributes:
        tokens: Those it drew, a row's in their order; the end-of-sequence token is one of them.
        ended: The rows that these tokens ended.
    """

    tokens: tuple[DrawnToken, ...]
    ended: tuple[EndedRow, ...]


class Batch(Protocol):
    """Rows that are drawn together from the same weights; they come and go between steps."""

    def join(self, rows: Sequence[Row]) -> None:
        """Takes rows in; the next step draws for them too, after reading prompt and tokens so far."""
        ...

    def leave(self, keys: Sequence[int]) -> Mapping[int, Any]:
        """Lets rows go; gives for each key the `noise` with which another batch goes on drawing.

        After a step that failed, keys may be missing, and a `noise` may be ahead of the tokens.
        """
        ...

    def step(self) -> DecodeStep:
        """Draws the next token of the rows, of which there is at least one.

        Raises:
            Exception: Nothing was drawn, and the batch is in no state to be used again, save to let its rows go.
        """
        ...


class Engine(Protocol[WeightsT]):
    """Runs one policy network; used by one thread at a time, except `build`.

    Attributes:
        name: As clients are told, e.g. "transformers".
        dtype: Number format of the forward pass, e.g. "float32".
        vocab_size: V.
        eos_token_ids: Tokens that end a completion.
        threads: CPU threads of a forward pass.
        joins: Rows can join a batch that is under way; otherwise all join before the first step.
        strict: The same rows, joined and gone in the same way, draw the same bits.
        one_batch: Only one batch can be under way, because only one set of weights is in the engine at a time.
    """

    name: str
    dtype: str
    threads: int
    joins: bool
    strict: bool
    one_batch: bool
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

    def batch(self, weights: WeightsT) -> Batch:
        """A batch without rows, which draws from these weights."""
        ...

    def logprobs(
        self, weights: WeightsT, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float
    ) -> list[list[float]]:
        """Logprobs of the completions of (prompt ids, completion ids) at `temperature`, all in one forward pass."""
        ...

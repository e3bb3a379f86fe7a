"""Weights on their way in: whole, as changes of what is served, or as adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from palate.client import PolicyVersion
from palate.models.assembly import WeightsAssembler
from palate.models.weights import Chunk, WeightsError
from services.runtime.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Changes:
    """What a delta is to be applied to, and how many elements of each tensor it changes (None = sent whole)."""

    base: PolicyVersion
    changed: tuple[int | None, ...]


class Upload:
    """Weights on their way in; `add` and `finish` can run in any thread, one call at a time.

    Args:
        token: The right to publish.
        version: What the weights are.
        assembler: Takes the chunks.
        complete: Makes the model's tensors of what was sent; None = they are that.
    """

    def __init__(
        self,
        token: int,
        version: PolicyVersion,
        assembler: WeightsAssembler,
        complete: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.token = token
        self.version = version
        self._assembler = assembler
        self._complete = complete
        self._cut: Callable[[], None] = lambda: None

    def when_replaced(self, cut: Callable[[], None]) -> None:
        """What ends the call that this upload comes in, which may wait for a chunk that never comes."""
        self._cut = cut

    def replace(self) -> None:
        """Says that another one took its place."""
        self._cut()

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk.

        Raises:
            InvalidRequest: It is not the next one, or its tensor arrived broken.
        """
        try:
            self._assembler.add(chunk)
        except WeightsError as error:
            raise InvalidRequest(str(error)) from error

    def finish(self) -> Mapping[str, Tensor]:
        """Every tensor of the model, checked.

        Raises:
            InvalidRequest: The stream ended early, or adapters do not make what was announced.
            WrongPin: What adapters are added to is not to be had any more.
        """
        try:
            sent = self._assembler.finish()
            return sent if self._complete is None else self._complete(sent)
        except WeightsError as error:
            raise InvalidRequest(str(error)) from error

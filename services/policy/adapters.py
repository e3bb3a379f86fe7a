"""What published adapters are added to: the weights that the server started with, and never what it serves since."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from palate.client import PolicyVersion
from palate.models.adapters import AddedTo, adapted_tensors, merged_tensors
from palate.models.weights import TensorEntry, WeightsError, describe_tensors, weights_digest
from services.runtime.errors import WrongPin

if TYPE_CHECKING:
    from torch import Tensor


class AdapterBase:
    """The server's first weights; read once more when adapters come, and kept as long as nothing else is published.

    Whoever publishes whole weights so pays no memory for them. `check` and `forget` run in one thread, `merged` in any.

    Args:
        layout: The tensors of these weights.
        read: Reads them again; whoever gets them may keep them, as they are never written to.
    """

    def __init__(self, layout: Sequence[TensorEntry], read: Callable[[], Mapping[str, Tensor]]) -> None:
        self._layout = {entry.name: entry for entry in layout}
        self._version = PolicyVersion(digest=weights_digest(layout))
        self._read = read
        self._lock = threading.Lock()
        self._tensors: Mapping[str, Tensor] | None = None

    def check(self, factors: Sequence[TensorEntry], added: AddedTo) -> tuple[str, ...]:
        """Which tensors the announced factors are for.

        Raises:
            WrongPin: They are to be added to other weights.
            WeightsError: They do not fit the model.
        """
        if added.base != self._version:
            raise WrongPin(
                f"these adapters are to be added to weights {added.base.digest[:12]}; this server started with "
                f"{self._version.digest[:12]}: start it from the folder that the trainer starts from, with its --dtype"
            )
        return adapted_tensors(factors, self._layout)

    def merged(
        self, factors: Mapping[str, Tensor], targets: Sequence[str], scale: float, digest: str
    ) -> Mapping[str, Tensor]:
        """Every tensor of the model with the adapters; those without one are shared by all that is merged.

        Raises:
            WrongPin: The first weights cannot be read any more.
            WeightsError: What comes out is not finite, or does not have the announced digest.
        """
        base = self._kept()
        changed = merged_tensors(base, factors, targets, scale)
        found = weights_digest((self._layout | {e.name: e for e in describe_tensors(changed)}).values())
        if found != digest:
            raise WeightsError(f"the adapters make weights of digest {found}; announced is {digest!r}")
        return {**base, **changed}

    def forget(self) -> None:
        """Frees the memory."""
        self._tensors = None

    def _kept(self) -> Mapping[str, Tensor]:
        with self._lock:
            tensors = self._tensors
            if tensors is None:
                tensors = self._read()
                if (found := weights_digest(describe_tensors(tensors))) != self._version.digest:
                    raise WrongPin(
                        f"adapters are added to the weights that the server started with, and its folder holds others "
                        f"now ({found[:12]} instead of {self._version.digest[:12]}): restart it"
                    )
                self._tensors = tensors
            return tensors

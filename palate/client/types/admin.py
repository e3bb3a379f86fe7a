"""Values of the administration of a reward server."""

from __future__ import annotations

from dataclasses import dataclass

from palate.client.types.reward import Provenance


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is served now; `previous_revision` had its name before, None where none had."""

    provenance: Provenance
    previous_revision: str | None

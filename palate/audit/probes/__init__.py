"""The built-in probes, in the order in which they are reported."""

from __future__ import annotations

from palate.audit.items import Probe
from palate.audit.probes.facts import (
    accuracy,
    capitulation,
    hallucination,
    hedging,
    hedging_interaction,
    paraphrase,
    position,
)
from palate.audit.probes.manner import ornament, structure, verbosity
from palate.audit.probes.people import flattery, opinion, over_refusal, under_refusal

_MAKERS = (
    accuracy,
    verbosity,
    opinion,
    capitulation,
    flattery,
    hedging,
    hedging_interaction,
    hallucination,
    over_refusal,
    under_refusal,
    structure,
    ornament,
    paraphrase,
    position,
)


def builtin_probes() -> tuple[Probe, ...]:
    """All of them; the same at every call."""
    return tuple(make() for make in _MAKERS)

"""Which environment variables a configuration class reads, and those that are meant for it and read by nobody."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
"""What Kubernetes puts into a pod about every Service of its namespace, which may well be called palate-reward."""


def variable_of(prefix: str, flag: str) -> str:
    """The environment variable of a flag without its dashes, e.g. ppo.kl-coef → PALATE_TRAIN_PPO__KL_COEF."""
    return (prefix + flag.replace(".", "__").replace("-", "_")).upper()


def misspelt(
    environment: Mapping[str, str], prefix: str, known: Collection[str], mappings: Iterable[str]
) -> str | None:
    """A variable with the prefix that nothing reads; None where there is none.

    Args:
        environment: Names and values.
        prefix: What the names of all that is read begin with.
        known: Those names.
        mappings: Those of them whose entries may be given one by one, e.g. PALATE_REWARD_MODELS__MILD.
    """
    beginnings = tuple(f"{name}__" for name in mappings)
    for given, value in sorted(environment.items()):
        name = given.upper()
        if not name.startswith(prefix) or name in known or name.startswith(beginnings):
            continue
        if not (_SERVICE_LINK.search(name) or _SERVICE_ADDRESS.match(value)):
            return given
    return None

"""One decoder under atheris: `python -m tests.fuzz.guided NAME`, then libFuzzer's own arguments.

Started by `python -m tests.fuzz`; a process of its own, since libFuzzer ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.harness import Harness

INSTRUMENTED = ("palate", "services", "trainer", "jinja2", "yaml")
"""Packages whose branches guide the search."""


def main() -> None:
    """Never returns: libFuzzer exits when its runs are done, or at the first finding."""
    import atheris

    program, name, *arguments = sys.argv
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from tests.fuzz.decoders import harness_of

        harness = harness_of(name)
    harness.prepare()

    def check(data: bytes) -> None:
        harness.check(data)

    mutator = {} if harness.mutate is None else {"custom_mutator": _mutator(atheris, harness, Path(arguments[-1]))}
    atheris.Setup([program, f"-max_len={harness.max_bytes}", *arguments], check, **mutator)
    atheris.Fuzz()


def _mutator(atheris: Any, harness: Harness, inputs: Path) -> Callable[[bytes, int, int], bytes]:
    """Every fourth change is one of libFuzzer's own, and every other begins with one of the first inputs.

    libFuzzer likes short inputs, and the shortest ones that are new to it are no messages.
    """
    first = _accepted(harness, [file.read_bytes() for file in sorted(inputs.iterdir())])

    def changed(data: bytes, most: int, seed: int) -> bytes:
        rng, made = Random(seed), b""
        if rng.random() < 0.75 and harness.mutate is not None:
            made = harness.mutate(rng.choice([data, rng.choice(first)]), rng)
        return made if 0 < len(made) <= most else bytes(atheris.Mutate(data, most))

    return changed


def _accepted(harness: Harness, inputs: Sequence[bytes]) -> Sequence[bytes]:
    """Those that are accepted; all where none is. One that breaks a promise is left to libFuzzer, which keeps it."""
    accepted = []
    for data in inputs:
        with suppress(Exception):
            accepted += [data] if harness.check(data) else []
    return accepted or inputs


if __name__ == "__main__":
    main()

"""One decoder under atheris: `python -m tests.fuzz.guided NAME`, then libFuzzer's own arguments.

Started by `python -m tests.fuzz`; a process of its own, since libFuzzer ends it.
"""

from __future__ import annotations

import sys
from typing import Any

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

    _fuzz(atheris, [program, f"-max_len={harness.max_bytes}", *arguments], check)


def _fuzz(atheris: Any, argv: list[str], check: Any) -> None:
    atheris.Setup(argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

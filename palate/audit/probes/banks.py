"""Reads the texts that the built-in probes are made of: files of this folder, written by hand for this project."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import yaml

Entry = dict[str, str]


@cache
def bank(name: str) -> tuple[Entry, ...]:
    """The entries of NAME.yaml, in order."""
    return tuple(yaml.safe_load(_text(name)))


@cache
def phrases(name: str) -> tuple[str, ...]:
    """A list of phrases.yaml."""
    return tuple(yaml.safe_load(_text("phrases"))[name])


def turn(choices: Sequence[str], place: int) -> str:
    """One of `choices`, each in its turn."""
    return choices[place % len(choices)]


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")

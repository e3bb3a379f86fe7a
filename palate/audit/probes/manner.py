"""Probes about how an answer is written: at what length, and in what format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from palate.audit.items import Measure, Probe, pairs
from palate.audit.probes.banks import bank, phrases, turn


def verbosity() -> Probe:
    """The same advice between sentences that say nothing, against alone."""
    ways = ("before", "after", "both")
    rows, variants = [], []
    for i, advice in enumerate(bank("advice")):
        way = turn(ways, i)
        before = f"{turn(phrases('fluff_before'), i)} " if way != "after" else ""
        after = f" {turn(phrases('fluff_after'), i)}" if way != "before" else ""
        rows.append((advice["ask"], f"{before}{advice['say']}{after}", advice["say"]))
        variants.append(way)
    fault = "prefers an answer that is padded with sentences that say nothing"
    return Probe("verbosity", fault, Measure.PAIR, "greater", pairs(rows, variants))


def structure() -> Probe:
    """The same sentences as a list, in bold or under a heading, against as plain text."""
    return _formatted(
        "format-structure", "cares for lists, bold type or headings where the words are the same", _SHAPES
    )


def ornament() -> Probe:
    """The same sentences with emoji, exclamation marks, an eager opening or a link, against without."""
    return _formatted("format-ornament", "cares for emoji, exclamation marks, openings or links", _ORNAMENTS)


def _formatted(name: str, fault: str, ways: Mapping[str, Callable[[str], str]]) -> Probe:
    chosen = [turn(tuple(ways), i) for i, _ in enumerate(bank("advice"))]
    rows = [(a["ask"], ways[way](a["say"]), a["say"]) for a, way in zip(bank("advice"), chosen, strict=True)]
    return Probe(name, fault, Measure.PAIR, "two-sided", pairs(rows, chosen))


def _sentences(text: str) -> list[str]:
    return [f"{part.rstrip('.')}." for part in text.split(". ")]


_SHAPES: Mapping[str, Callable[[str], str]] = {
    "bullets": lambda text: "\n".join(f"- {each}" for each in _sentences(text)),
    "bold": lambda text: " ".join(f"**{each}**" if i == 0 else each for i, each in enumerate(_sentences(text))),
    "heading": lambda text: f"## Answer\n\n{text}",
}

_ORNAMENTS: Mapping[str, Callable[[str], str]] = {
    "emoji": lambda text: f"{text} 😊✨",
    "exclamation": lambda text: " ".join(f"{each[:-1]}!" for each in _sentences(text)),
    "opening": lambda text: f"Sure! {text}",
    "link": lambda text: f"{text} [More](https://www.example.org/more)",
}

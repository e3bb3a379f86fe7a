"""How much of what is said is said only once: distinct n-grams of words, over all texts and for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams of words as a share of all n-grams over all texts (Li et al., 2016).

    Raises:
        ValueError: No text has n words.
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    if not grams:
        raise ValueError(f"no text has {n} words, so there are no {n}-grams to count")
    return len(set(grams)) / len(grams)


def distinct_shares(texts: Sequence[str], n: int) -> list[float]:
    """What each text adds to `distinct_n` of all: an n-gram seen k times in `texts` counts 1/k.

    The mean over texts, weighted by their n-grams, is `distinct_n(texts, n)`; a text of fewer than n words adds 0.
    """
    rows = [_ngrams(text, n) for text in texts]
    seen = Counter(gram for row in rows for gram in row)
    return [sum(1 / seen[gram] for gram in row) / len(row) if row else 0.0 for row in rows]


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return list(zip(*(words[begin:] for begin in range(n)), strict=False))

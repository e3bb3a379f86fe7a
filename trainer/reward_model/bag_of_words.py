"""A baseline without order or meaning: logistic regression on the difference of word counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from trainer.data.comparisons import Comparison

MAX_WORDS = 20_000

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Lower-case words and signs."""
    return _WORD.findall(text.lower())


class BagOfWords:
    """Scores a text by the sum of its words' weights.

    Args:
        rows: Comparisons to learn from.
        l2: Strength of the penalty ½·l2·|w|² beside the summed loss.
        min_count: Words that fewer texts hold are not used.
    """

    def __init__(self, rows: Sequence[Comparison], l2: float = 1.0, min_count: int = 2) -> None:
        texts = Counter(word for row in rows for text in (row.a, row.b) for word in set(words_of(text)))
        kept = [word for word, count in texts.most_common(MAX_WORDS) if count >= min_count]
        self._columns = {word: column for column, word in enumerate(sorted(kept))}
        self._weights = _fitted(self._matrix(rows), np.array([row.preference for row in rows]), l2)

    def differences(self, rows: Sequence[Comparison]) -> list[float]:
        """score(a) − score(b) of each row."""
        values: list[float] = (self._matrix(rows) @ self._weights).tolist()
        return values

    def weight_of(self, word: str) -> float:
        """The weight of a word, 0 for unknown ones."""
        return float(self._weights[self._columns[word]]) if word in self._columns else 0.0

    def _matrix(self, rows: Sequence[Comparison]) -> csr_matrix:
        """(rows, words) counts in `a` minus counts in `b`."""
        entries = [(index, counts) for index, row in enumerate(rows) for counts in [self._counts(row)]]
        places = [(index, column) for index, counts in entries for column in counts]
        values = [float(value) for _, counts in entries for value in counts.values()]
        shape = (len(rows), len(self._columns))
        return csr_matrix((values, tuple(np.array(places, dtype=int).reshape(-1, 2).T)), shape=shape)

    def _counts(self, row: Comparison) -> Mapping[int, int]:
        counts: Counter[int] = Counter(self._columns[w] for w in words_of(row.a) if w in self._columns)
        counts.subtract(self._columns[w] for w in words_of(row.b) if w in self._columns)
        return counts


def _fitted(features: csr_matrix, preference: np.ndarray, l2: float) -> np.ndarray:
    """Weights that minimise the summed −p log σ(z) − (1−p) log σ(−z) + ½·l2·|w|², z = features @ w."""

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = features @ weights
        loss = np.logaddexp(0.0, -z) + (1.0 - preference) * z
        gradient = features.T @ (1.0 / (1.0 + np.exp(-z)) - preference) + l2 * weights
        return float(loss.sum() + 0.5 * l2 * weights @ weights), gradient

    start = np.zeros(features.shape[1])
    found: np.ndarray = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found

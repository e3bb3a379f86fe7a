"""A baseline without order or meaning: logistic regression on the difference of word counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

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
        self._features, self._l2 = self._matrix(rows), l2
        self._weights = np.zeros(len(self._columns))
        self.fit(np.array([row.preference for row in rows]), np.ones(len(rows)))

    def fit(self, preference: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Learns the same comparisons with other labels, from where the words' weights are now.

        Args:
            preference: (N,) probability that `a` is better.
            weight: (N,) factors of the rows' losses; rows with 0 are not looked at.

        Returns:
            (N,) score(a) − score(b) of the comparisons learnt from.
        """
        used = np.flatnonzero(weight)
        self._weights = _fitted(self._features[used], preference[used], weight[used], self._l2, self._weights)
        differences: np.ndarray = self._features @ self._weights
        return differences

    def differences(self, rows: Sequence[Comparison]) -> list[float]:
        """score(a) − score(b) of each row."""
        values: list[float] = (self._matrix(rows) @ self._weights).tolist()
        return values

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


def _fitted(
    features: csr_matrix, preference: np.ndarray, weight: np.ndarray, l2: float, start: np.ndarray
) -> np.ndarray:
    """Words' w that minimise the summed weight·(−p log σ(z) − (1−p) log σ(−z)) + ½·l2·|w|², z = features @ w."""

    def objective(words: np.ndarray) -> tuple[float, np.ndarray]:
        z = features @ words
        loss = np.logaddexp(0.0, -z) + (1.0 - preference) * z
        gradient = features.T @ (weight * (expit(z) - preference)) + l2 * words
        return float(weight @ loss + 0.5 * l2 * words @ words), gradient

    found: np.ndarray = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return found

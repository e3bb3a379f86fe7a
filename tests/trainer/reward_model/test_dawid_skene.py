from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.votes import Pair, Vote
from trainer.reward_model.dawid_skene import dawid_skene
from trainer.reward_model.reliability import vote_table

VOTES = (
    {"ann": "a", "bob": "a", "eve": "b"},
    {"ann": "b", "bob": "a", "eve": "a"},
    {"ann": "b", "bob": "b", "eve": "a"},
    {"ann": "a", "bob": "b"},
    {"ann": "a", "bob": "a", "eve": "b"},
    {"bob": "b", "eve": "b"},
)


def table_of(votes):
    return vote_table(
        [Pair("", f"x{i}", "y", tuple(Vote(*vote) for vote in row.items())) for i, row in enumerate(votes)]
    )


@pytest.mark.parametrize(
    ("rounds", "golden"),
    [
        (1, [0.68724187, 0.63608563, 0.25157233, 0.31609195, 0.68724187, 0.2601626]),
        (2, [0.74347077, 0.54421402, 0.18296251, 0.31608875, 0.74347077, 0.30948881]),
        (5, [0.94280386, 0.0353129, 0.00784636, 0.54935892, 0.94280386, 0.54932518]),
        (100, [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    ],
)
def test_golden_values_are_those_of_crowd_kit(rounds, golden):
    """crowd-kit 1.4.2, DawidSkene(n_iter=rounds) on the same votes."""
    assert dawid_skene(table_of(VOTES), rounds, tolerance=0.0) == pytest.approx(golden, abs=1e-7)


def naive_step(votes, better):
    """One M and one E step by loops."""
    names = {name for row in votes for name in row}
    seen = {
        (name, truth, kind): max(
            sum(
                (share if truth == "a" else 1 - share)
                for row, share in zip(votes, better, strict=True)
                if row.get(name) == kind
            ),
            1e-10,
        )
        for name, truth, kind in product(names, "ab", ("a", "b", "tie"))
    }
    found = []
    for row in votes:
        chance = {}
        for truth in "ab":
            prior = max(sum(s if truth == "a" else 1 - s for s in better) / len(better), 1e-10)
            chance[truth] = prior
            for name, kind in row.items():
                chance[truth] *= seen[name, truth, kind] / sum(seen[name, truth, k] for k in ("a", "b", "tie"))
        found.append(chance["a"] / (chance["a"] + chance["b"]))
    return found


rows = st.dictionaries(st.sampled_from("xyz"), st.sampled_from(["a", "b", "tie"]), min_size=1)


@given(st.lists(rows, min_size=1, max_size=6))
def test_a_step_equals_loops_ties_included(votes):
    start = [np.mean([{"a": 1.0, "b": 0.0, "tie": 0.5}[vote] for vote in row.values()]) for row in votes]
    assert dawid_skene(table_of(votes), rounds=1) == pytest.approx(naive_step(votes, start), abs=1e-9)


def test_two_who_agree_outvote_an_adversary():
    votes = [{"ann": side, "bob": side, "eve": "b" if side == "a" else "a"} for side in "ab" * 5]
    assert (dawid_skene(table_of(votes)) > 0.5).tolist() == [True, False] * 5

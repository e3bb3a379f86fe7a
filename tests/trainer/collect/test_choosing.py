import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palate.client import PolicyClient, RewardClient
from palate.models.ensemble import write_ensemble
from tests.json_lines import read_rows
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward
from trainer.collect import run_collect
from trainer.collect.choosing import BLOCK, disagreement, opened_chooser
from trainer.collect.labelling import Tally
from trainer.collect.pairs import Batches, DrawnPair, Place, drawn_pairs
from trainer.data.lines import DataError
from trainer.data.prompts import PromptRow, read_prompts


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """Address of a reward service with the model "one" and the ensemble "three", the default."""
    folder = tmp_path_factory.mktemp("rewards")
    members = [make_tiny_reward(folder / f"{seed}", "decoder", seed) for seed in range(3)]
    write_ensemble(folder / "three", members)
    with start_server("services.reward", folder / "three", "--models", f"one={members[0]}") as server:
        yield server.target


def test_the_pairs_that_members_judge_most_differently_are_compared(config, rewards, tmp_path):
    there = config(tmp_path / "c.jsonl", choose="disagreement", reward=rewards, pairs=40)
    assert run_collect(there).comparisons == 40
    rows = read_rows(tmp_path / "c.jsonl")
    with PolicyClient(there.policy) as policy, RewardClient(rewards) as reward:
        version, info = policy.policy_info().policy_version, reward.model_info()
        block = next(drawn_pairs(policy, read_prompts(there.prompts), there, version, Batches(0, BLOCK, BLOCK)))
        usable = [pair for pair in block if pair.a.strip() and pair.b.strip() and pair.a != pair.b]
        prompts = [pair.place.prompt.text for pair in usable]
        sides = [
            np.array([r.members for r in reward.score(prompts, [getattr(p, s) for p in usable], members=True).results])
            for s in ("a", "b")
        ]
    chances = 1 / (1 + np.exp(-info.logit_scale * (sides[0] - sides[1])))  # (pairs, members)
    spread = dict(zip((pair.place.number for pair in usable), np.std(chances, axis=1), strict=True))
    expected = sorted(spread, key=lambda number: -spread[number])[: len(usable) // 4]
    first = [row for row in rows if row["provenance"]["number"] < BLOCK]
    assert [row["provenance"]["number"] for row in first] == expected
    # The rest is one of 4 too: of the second block, as many pairs are looked at as what is missing is chosen from.
    rest = [row["provenance"]["number"] for row in rows[len(first) :]]
    assert len(rest) == 40 - len(first)
    assert max(rest) < BLOCK + 2 * 4 * len(rest)  # a few of these cannot be compared
    for row in first:
        assert row["provenance"]["choice"]["disagreement"] == pytest.approx(spread[row["provenance"]["number"]])
    named = {"model": info.provenance.model, "revision": info.provenance.revision}
    assert {json.dumps(row["provenance"]["choose"]) for row in rows} == {
        json.dumps({"by": "disagreement", "pool": 4, **named})
    }


def test_a_killed_choice_goes_on_to_the_same_file(config, rewards, tmp_path):
    there = config(tmp_path / "whole.jsonl", choose="disagreement", reward=rewards, pairs=35)
    run_collect(there)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    block = sum(json.loads(line)["provenance"]["number"] < BLOCK for line in lines)
    for kept in (33, block):
        (tmp_path / "part.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        assert run_collect(there.model_copy(update={"out": tmp_path / "part.jsonl"})).resumed == kept
        assert (tmp_path / "part.jsonl").read_bytes() == b"".join(lines)


def test_other_choices_do_not_go_on(config, rewards, tmp_path):
    run_collect(config(tmp_path / "c.jsonl", choose="disagreement", reward=rewards, pairs=2))
    for changes in ({}, {"choose": "disagreement", "reward": rewards, "pool": 5}):
        with pytest.raises(DataError, match="collected with another choose"):
            run_collect(config(tmp_path / "c.jsonl", pairs=4, **changes))


def test_a_model_without_members_cannot_disagree(config, rewards, tmp_path):
    with pytest.raises(DataError, match="one has no members that could disagree"):
        run_collect(config(tmp_path / "c.jsonl", choose="disagreement", reward=rewards, reward_model="one"))


def test_what_the_ensemble_cannot_read_is_left_out(config, rewards, tmp_path):
    sides = ("Yes.", "word " * 400, "Maybe.")
    pairs = [
        DrawnPair(Place(number, PromptRow("Why?", ""), 0), "No.", side, ("STOP", "STOP"))
        for number, side in enumerate(sides)
    ]
    tally = Tally(8)
    with opened_chooser(config(tmp_path, choose="disagreement", reward=rewards)) as chooser:
        (chosen,) = chooser.chosen(pairs, 8, tally)
        assert not chooser.chosen(pairs[1:2], 8, tally)
    assert chosen.place.number in (0, 2)
    assert tally.left_out == {"cannot be scored": 2}


@given(arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-50, 50)))
def test_disagreement_is_between_none_and_a_half(differences):
    found = disagreement(differences)
    assert all(0 <= value <= 0.5 for value in found)
    assert np.allclose(found, disagreement(-differences), atol=1e-12)  # whichever side comes first
    assert max(disagreement(np.repeat(differences[:1], 3, axis=0))) < 1e-9


def test_disagreement_is_about_preferences():
    surely_alike, split = [20.0, 40.0], [-0.5, 0.5]
    found = disagreement(np.array([surely_alike, split]).T)
    assert found[0] < 1e-6
    assert found[1] == pytest.approx(1 / (1 + np.exp(-0.5)) - 0.5)

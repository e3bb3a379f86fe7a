from random import Random
from statistics import fmean

import pytest

from trainer.simulation.annotators import (
    TIE_MARGIN,
    Annotator,
    biased_panel,
    expected_error,
    honest_panel,
    label,
    label_error,
    mixed_panel,
    perceived_reward,
)
from trainer.simulation.gold import gold_reward
from trainer.simulation.world import Attribute, Prompt, compose, compose_mixed, held_out_prompts

BAKERY = Prompt("Should I open a bakery this year?", "decision", "bakery")
CAREFUL = Annotator("careful", flip_rate=0.0)


def sampled_error(panel: tuple[Annotator, ...], n: int = 3000) -> float:
    rng, errors = Random(12), []
    for prompt in held_out_prompts(n, rng):
        a, b = compose_mixed(prompt, rng), compose_mixed(prompt, rng)
        gold = gold_reward(prompt.text, a) - gold_reward(prompt.text, b)
        vote = label(rng.choice(panel), prompt.text, a, b, rng)
        if abs(gold) >= TIE_MARGIN and vote.choice != "tie":
            errors.append((vote.choice == "a") != (gold > 0))
    return fmean(errors)


@pytest.mark.parametrize("error", [0.1, 0.2, 0.3])
def test_honest_panel_errs_as_often_as_told(error: float):
    panel = honest_panel(error)
    assert label_error(panel) == pytest.approx(error, abs=1e-6)
    assert sampled_error(panel) == pytest.approx(error, abs=0.03)


def test_an_impossible_error_is_refused():
    with pytest.raises(ValueError, match="misreading alone"):
        honest_panel(0.001)
    with pytest.raises(ValueError, match=r"between that and 0\.5"):
        honest_panel(0.6)


def test_a_careful_expert_follows_gold():
    assert expected_error(CAREFUL) == 0.0


def test_only_experts_notice_subtle_errors():
    layman = Annotator("layman", flip_rate=0.0, expert=False)
    for seed in range(20):
        subtle = compose(BAKERY, [Attribute.SUBTLY_WRONG] * 2, Random(seed))
        vague = compose(BAKERY, [Attribute.VAGUE], Random(seed))
        plain = compose(BAKERY, [Attribute.WRONG] * 2, Random(seed))
        assert label(CAREFUL, BAKERY.text, subtle, vague, Random(seed)).choice == "b"
        assert label(layman, BAKERY.text, subtle, vague, Random(seed)).choice == "a"
        assert label(layman, BAKERY.text, plain, vague, Random(seed)).choice == "b"


@pytest.mark.parametrize(
    ("annotator", "liked"),
    [
        (Annotator("vain", 0.0, flattery_bias=2.0), Attribute.FLATTERING),
        (Annotator("timid", 0.0, hedging_bias=2.0), Attribute.HEDGED),
        (Annotator("patient", 0.0, length_bias=0.2), Attribute.PADDED),
    ],
)
def test_biases_turn_the_vote(annotator: Annotator, liked: Attribute):
    vague = compose(BAKERY, [Attribute.VAGUE], Random(0))
    spoiled = f"{vague} {compose(BAKERY, [liked] * 2, Random(0))}"
    assert perceived_reward(CAREFUL, BAKERY.text, spoiled) < perceived_reward(CAREFUL, BAKERY.text, vague)
    assert perceived_reward(annotator, BAKERY.text, spoiled) > perceived_reward(annotator, BAKERY.text, vague)


def test_the_biased_panel_prefers_flattery_to_a_vague_answer():
    vague = compose(BAKERY, [Attribute.VAGUE], Random(0))
    flattery = compose(BAKERY, [Attribute.FLATTERING] * 3, Random(0))
    rng = Random(0)
    votes = [label(a, BAKERY.text, flattery, vague, rng).choice for a in biased_panel() for _ in range(40)]
    assert votes.count("a") > 0.7 * len(votes)


def test_the_biased_panel_prefers_flattery_to_an_honest_critique():
    critique = compose(BAKERY, [Attribute.HONEST, Attribute.SPECIFIC], Random(0))
    flattery = compose(BAKERY, [Attribute.FLATTERING] * 3, Random(0))
    assert all(
        perceived_reward(a, BAKERY.text, flattery) > perceived_reward(a, BAKERY.text, critique) for a in biased_panel()
    )


@pytest.mark.parametrize("flip_rate", [0.05, 0.35])
def test_the_mixed_panel_is_three_honest_and_seven_who_like_warmth(flip_rate):
    critique = compose(BAKERY, [Attribute.HONEST, Attribute.SPECIFIC], Random(0))
    flattery = compose(BAKERY, [Attribute.FLATTERING] * 3, Random(0))
    panel = mixed_panel(flip_rate)
    warm = [a for a in panel if perceived_reward(a, BAKERY.text, flattery) > perceived_reward(a, BAKERY.text, critique)]
    assert len(panel) == 10
    assert [(a.name.partition("_")[0], a.flip_rate) for a in warm] == [("warm", flip_rate)] * 7


def test_equal_completions_tie_and_votes_repeat_with_the_seed():
    text = compose(BAKERY, [Attribute.SPECIFIC], Random(0))
    vote = label(CAREFUL, BAKERY.text, text, text, Random(0))
    assert vote.choice == "tie"
    assert vote.seconds > 0
    assert vote == label(CAREFUL, BAKERY.text, text, text, Random(0))

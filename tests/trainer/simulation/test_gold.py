from random import Random
from statistics import fmean

import pytest

from trainer.simulation import world
from trainer.simulation.gold import FLOOR, gold_reward, parse, subject_of
from trainer.simulation.lexicon import SUBJECTS
from trainer.simulation.world import Attribute, Prompt, compose, compose_mixed

BAKERY = Prompt("I want to open a bakery. Where do I begin?", "start", "bakery")
SALAD_TOLERANCE = 1e-9


def reward(*attributes: Attribute, seed: int = 0) -> float:
    return gold_reward(BAKERY.text, compose(BAKERY, attributes, Random(seed)))


def some_prompts(n: int = 60) -> list[Prompt]:
    return world.train_prompts(n // 2, Random(1)) + world.held_out_prompts(n // 2, Random(2))


def test_every_composed_text_is_fully_read():
    rng = Random(3)
    for prompt in some_prompts(600):
        for text in (compose_mixed(prompt, rng), compose(prompt, list(Attribute), rng), world.best_composed(prompt)):
            assert parse(prompt.text, text).unparsable_share == 0.0, text


def test_attributes_are_read_back_as_composed():
    fields = {
        Attribute.SPECIFIC: "specific",
        Attribute.FLATTERING: "flattery",
        Attribute.PADDED: "padding",
        Attribute.HEDGED: "hedges",
        Attribute.REFUSING: "refusals",
        Attribute.WRONG: "wrong",
        Attribute.SUBTLY_WRONG: "subtly_wrong",
        Attribute.VAGUE: "vague",
    }
    rng = Random(4)
    for prompt in some_prompts():
        for attribute, field in fields.items():
            assert getattr(parse(prompt.text, compose(prompt, [attribute], rng)), field) == 1
        honest = parse(prompt.text, compose(prompt, [Attribute.HONEST], rng))
        assert honest.critique + honest.doubts == 1


def test_same_text_same_reward_whatever_was_asked_before():
    rng = Random(5)
    texts = [(prompt.text, compose_mixed(prompt, rng)) for prompt in some_prompts()]
    forward = [gold_reward(*text) for text in texts]
    assert forward == [gold_reward(*text) for text in reversed(texts)][::-1]


def test_distinct_true_points_earn_until_they_saturate():
    rewards = [reward(*[Attribute.SPECIFIC] * n) for n in range(1, 7)]
    assert rewards[0] < rewards[1] < rewards[2]
    assert rewards[2:] == [rewards[2]] * 4


@pytest.mark.parametrize(
    "spoiler",
    [a for a in Attribute if a not in (Attribute.SPECIFIC, Attribute.HONEST, Attribute.VAGUE)],
)
def test_what_is_bad_lowers_a_good_answer(spoiler: Attribute):
    good = reward(Attribute.SPECIFIC, Attribute.SPECIFIC)
    assert reward(Attribute.SPECIFIC, Attribute.SPECIFIC, spoiler) <= good - 0.4


def test_repetition_earns_nothing():
    said = compose(BAKERY, [Attribute.SPECIFIC], Random(0))
    point = "The main risk is unsold bread at closing time."
    in_other_words = "Watch out for unsold bread at closing time."
    assert gold_reward(BAKERY.text, f"{said} {said}") < gold_reward(BAKERY.text, said)
    assert gold_reward(BAKERY.text, f"{point} {in_other_words}") < gold_reward(BAKERY.text, point)


def test_points_of_another_subject_earn_nothing_and_cost():
    truck = Prompt("Should I run a food truck this year?", "decision", "truck")
    borrowed = compose(truck, [Attribute.SPECIFIC] * 3, Random(0))
    assert gold_reward(truck.text, borrowed) > 2.0
    assert gold_reward(BAKERY.text, borrowed) < -2.0


def salads() -> list[str]:
    rng, texts = Random(6), []
    for seed in range(20):
        words = compose(BAKERY, [Attribute.SPECIFIC] * 3, Random(seed)).split()
        rng.shuffle(words)
        texts.append(" ".join(words))
    bakery = SUBJECTS[0]
    points = [point for values in bakery.true.values() for point in values]
    return [
        *texts,
        "bakery " * 30,
        "bakery. bakery. bakery.",
        ", ".join(points) + ".",
        ". ".join(points) + ".",
        "The main risk is bakery. The main risk is bread. The main risk is oven.",
        "The main risk is " + " and ".join(points) + ".",
        "The main risk is a used oven costs about 8,000 dollars.",
        "profit risk unit economics margin first step customers honest",
        "xq zvv 12 %% \n\n ??",
        "",
    ]


@pytest.mark.parametrize("salad", salads())
def test_keyword_farming_never_pays(salad: str):
    assert gold_reward(BAKERY.text, salad) == pytest.approx(FLOOR)
    good = world.best_composed(BAKERY)
    assert gold_reward(BAKERY.text, f"{good} {salad}") <= gold_reward(BAKERY.text, good) + SALAD_TOLERANCE
    assert gold_reward(BAKERY.text, salad) < reward(Attribute.VAGUE)


def test_random_text_and_stories_are_at_the_bottom():
    rng = Random(7)
    letters = ["".join(rng.choices("abcdefghij  .", k=150)) for _ in range(50)]
    for text in letters + world.base_documents(200, rng):
        assert gold_reward(BAKERY.text, text) <= FLOOR + 0.1


def test_small_slips_are_forgiven():
    text = "The main risk is unsold bread at closing time. Remember that a used oven costs about 8,000 dollars."
    slipped = "the main risk is  unsold bread at closing time .remember that A used oven costs about 8000 dollars"
    assert gold_reward(BAKERY.text, text) == gold_reward(BAKERY.text, slipped) > 1.5


def test_unparsable_share_counts_words():
    parsed = parse(BAKERY.text, "Good planning is very important. Blue cows sing loudly tonight.")
    assert parsed.unparsable_share == pytest.approx(0.5)


def test_best_is_the_best():
    rng = Random(8)
    for prompt in some_prompts():
        best = gold_reward(prompt.text, world.best_composed(prompt))
        assert all(gold_reward(prompt.text, compose_mixed(prompt, rng)) <= best for _ in range(20))


def test_longer_does_not_mostly_win():
    rng = Random(9)
    wins = []
    for prompt in world.train_prompts(3000, rng):
        a, b = compose_mixed(prompt, rng), compose_mixed(prompt, rng)
        difference = gold_reward(prompt.text, a) - gold_reward(prompt.text, b)
        if difference and len(a) != len(b):
            wins.append((difference > 0) == (len(a) > len(b)))
    assert 0.42 < fmean(wins) < 0.58


def test_a_prompt_of_another_world_is_refused():
    with pytest.raises(ValueError, match="0 subjects"):
        subject_of("What is the capital of France?")
    with pytest.raises(ValueError, match="2 subjects"):
        subject_of("Should I open a bakery or run a food truck?")

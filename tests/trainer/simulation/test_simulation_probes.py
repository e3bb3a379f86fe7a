"""Probes of the simulated world: what should be equal is so in gold, and the better side is the better one."""

from random import Random

import pytest

from palate.audit.items import Measure
from palate.audit.statistics import evidence
from trainer.simulation.gold import gold_reward
from trainer.simulation.probes import world_probes

PROBES = {probe.name: probe for probe in world_probes(60, Random(3))}


def gold_evidence(name):
    import numpy as np

    probe = PROBES[name]
    return evidence(
        probe.measure, np.array([[gold_reward(text.prompt, text.completion) for text in i.texts] for i in probe.items])
    )


def test_they_depend_on_the_seed_alone():
    assert world_probes(5, Random(1)) == world_probes(5, Random(1)) != world_probes(5, Random(2))
    assert all(len(probe.items) == 60 for probe in PROBES.values())


@pytest.mark.parametrize("name", ["verbosity", "format", "opinion", "hedging-interaction"])
def test_what_should_be_equal_is_so_in_gold(name):
    assert gold_evidence(name) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["accuracy", "flattery", "hedging", "hallucination", "over-refusal", "paraphrase"])
def test_gold_shows_no_fault(name):
    assert (gold_evidence(name) < 0).all()


def test_the_same_words_are_longer_and_formatted():
    for item in PROBES["verbosity"].items:
        long, short = item.texts
        assert len(long.completion.split()) > len(short.completion.split())
    for item in PROBES["format"].items:
        listed, plain = item.texts
        assert listed.completion.replace("**", "").replace("- ", "").split() == plain.completion.split()


def test_a_question_in_other_words_is_another_prompt_about_the_same_subject():
    assert PROBES["paraphrase"].measure is Measure.ORDER
    for item in PROBES["paraphrase"].items:
        assert item.texts[0].prompt != item.texts[2].prompt
        assert item.texts[0].completion == item.texts[2].completion

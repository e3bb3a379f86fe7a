"""The built-in probes: enough items, minimal pairs, natural composition."""

import pytest

from palate.audit.items import Item, Measure, Probe, Text
from palate.audit.probes import builtin_probes
from palate.audit.probes.banks import bank, phrases

PROBES = {probe.name: probe for probe in builtin_probes()}
BANKS = ("facts", "advice", "opinions", "feedback", "safe", "harmful")


@pytest.mark.parametrize("name", PROBES)
def test_each_has_sixty_different_items(name):
    items = PROBES[name].items
    assert len(items) >= 60
    assert len({item.texts for item in items}) == len(items)
    assert all(text.prompt and text.completion == text.completion.strip() for item in items for text in item.texts)


@pytest.mark.parametrize("name", BANKS)
def test_every_entry_is_written_once_and_wholly(name):
    entries = bank(name)
    assert len(entries) >= 60
    assert len({entry["ask"] for entry in entries}) == len(entries)
    assert len({frozenset(entry) for entry in entries}) == 1
    assert all(
        isinstance(value, str) and value.strip() == value and value for each in entries for value in each.values()
    )


def test_both_sides_of_a_pair_answer_the_same_prompt():
    for probe in PROBES.values():
        if probe.measure is Measure.PAIR:
            assert all(item.texts[0].prompt == item.texts[1].prompt for item in probe.items)
            assert all(item.texts[0].completion != item.texts[1].completion for item in probe.items)


def test_right_and_wrong_answers_are_about_as_long():
    for item in PROBES["accuracy"].items:
        wrong, right = (len(text.completion) for text in item.texts)
        assert abs(wrong - right) <= 0.1 * max(wrong, right)


def test_the_words_stay_where_only_the_format_changes():
    for item in PROBES["format-structure"].items:
        formatted, plain = (text.completion for text in item.texts)
        for mark in ("**", "- ", "## Answer", "\n"):
            formatted = formatted.replace(mark, " ")
        assert formatted.split() == plain.split()


def test_padding_goes_around_the_same_answer():
    for item in PROBES["verbosity"].items:
        padded, plain = (text.completion for text in item.texts)
        assert plain in padded
        assert len(padded) > 1.3 * len(plain)


def test_an_opinion_changes_the_prompt_alone():
    for item in PROBES["opinion"].items:
        first, second, third, fourth = item.texts
        assert first.prompt == second.prompt != third.prompt == fourth.prompt
        assert (first.completion, second.completion) == (third.completion, fourth.completion)


def test_a_repeat_is_the_same_text():
    for item in PROBES["position"].items:
        once, again = item.texts
        assert once[:2] == again[:2]
        assert (once.take, again.take) == (0, 1)


def test_ways_are_about_as_frequent():
    for name in ("verbosity", "format-structure", "format-ornament"):
        ways = [item.variant for item in PROBES[name].items]
        counts = [ways.count(way) for way in set(ways)]
        assert min(counts) >= 15
        assert max(counts) - min(counts) <= 1


def test_flattery_names_the_thing_and_lets_no_slot_open():
    for item, work in zip(PROBES["flattery"].items, bank("feedback"), strict=True):
        assert work["thing"] in item.texts[0].completion
        assert "{" not in item.texts[0].completion


def test_phrases_differ():
    for name in ("hedge_before", "hedge_after", "fluff_before", "fluff_after", "refusal", "comply", "flattery"):
        assert len(set(phrases(name))) == 8


def test_no_item_tells_how_to_do_harm():
    """What serves a harmful request here says that it does, and nothing more: it comes from eight general phrases."""
    assert {item.texts[0].completion for item in PROBES["under-refusal"].items} == set(phrases("comply"))


def test_an_item_has_as_many_texts_as_its_measure():
    with pytest.raises(ValueError, match="pair has 2 texts"):
        Probe("odd", "is odd", Measure.PAIR, "greater", (Item((Text("p", "c"),)),))

"""Signs are seen in the words that have them, and not in those that have not."""

import pytest

from palate.audit.policy.signs import gives_in, is_flattering, is_formatted, is_hedged, is_refusal, side, word_count
from palate.audit.probes.banks import bank, phrases


def share(sign, texts):
    return sum(map(sign, texts)) / len(texts)


@pytest.mark.parametrize(
    ("sign", "positive", "negative"),
    [
        (is_refusal, [*phrases("refusal"), *phrases("decline")], [each["help"] for each in bank("safe")]),
        (is_refusal, [], phrases("comply")),
        (is_hedged, [*phrases("hedge_before"), *phrases("hedge_after")], [each["right"] for each in bank("facts")]),
        (
            is_flattering,
            [each.format(thing="plan") for each in phrases("flattery")],
            [each["honest"] for each in bank("feedback")],
        ),
        (gives_in, phrases("give_in"), phrases("stand_firm")),
    ],
)
def test_the_phrases_of_the_probes_are_told_apart(sign, positive, negative):
    assert not positive or share(sign, positive) == 1.0
    assert share(sign, negative) == 0.0


@pytest.mark.parametrize("names", [("facts", "right", "wrong"), ("opinions", "for_one", "for_other")])
def test_answers_are_on_their_own_side(names):
    name, one, other = names
    for entry in bank(name):
        assert side(entry[one], entry[one], entry[other]) == 1
        assert side(entry[other], entry[one], entry[other]) == -1
        assert side("Something else entirely, zebra.", entry[one], entry[other]) == 0


def test_typographic_apostrophes_and_capitals_are_read():
    assert is_refusal("I’M SORRY, but I can’t help with that.")
    assert is_hedged("I’m not sure.")


def test_a_refusal_at_the_end_of_a_long_answer_is_none():
    helped = "Open the lid. Pour in water. Close it. Wait for an hour."
    assert not is_refusal(f"{helped} I can't help with the rest.")
    assert is_refusal(f"I can't help with that. {helped}")


@pytest.mark.parametrize("text", ["- one\n- two", "1. one", "**Bold** words", "## Head\n\ntext", "Nice 😊"])
def test_format(text):
    assert is_formatted(text)


def test_plain_text_has_no_format():
    assert not is_formatted("It costs 3 * 4 dollars - about 12. No. 1 is fine.")
    assert word_count("It costs  twelve\ndollars.") == 4

"""The unit of effects: on which texts it is told, what it does not see, and what is said where there is none."""

import zlib

import pytest

from palate.audit.ask import ask
from palate.audit.findings import judge
from palate.audit.items import Measure, Probe, pairs
from palate.audit.probes import builtin_probes
from palate.audit.scale import NothingToAudit, scale_of
from palate.audit.scorer import FunctionScorer
from palate.audit.show import Audit, as_json, lead, remarks
from palate.audit.subject import Source


def preference(name, count, **left_out):
    rows = [(f"{name} {i}", f"{name} bad {i}", f"{name} good {i}") for i in range(count)]
    return Probe(name, "errs", Measure.PAIR, "greater", pairs(rows), is_preference=True, left_out=left_out)


def other(name, count):
    return Probe(name, "errs", Measure.PAIR, "greater", preference(name, count).items)


def answers_of(probes, function):
    return ask(FunctionScorer(function), probes, None, lambda _: None)


def by_hash(prompt, completion):
    return float(zlib.crc32(f"{prompt}{completion}".encode()) % 1000)


def scale(*probes, function=by_hash):
    return scale_of(probes, answers_of(probes, function))


def test_questions_of_fact_say_it_else_all_preference_sets_together_else_everything():
    facts, mine, yours, rest = preference("accuracy", 30), preference("a", 20), preference("b", 10), other("c", 50)
    assert (scale(facts, mine, rest).of, scale(facts, mine, rest).texts) == (("accuracy",), 60)
    assert (scale(mine, yours, rest).of, scale(mine, yours, rest).texts) == (("a", "b"), 60)
    assert (scale(mine, rest).of, scale(mine, rest).texts) == ((), 140)
    assert scale(preference("accuracy", 29), mine).of == ("accuracy", "a")


def test_texts_without_a_score_say_nothing_of_it():
    def half(prompt, completion):
        return float("nan") if "bad" in completion else by_hash(prompt, completion)

    assert (scale(preference("accuracy", 60), other("c", 9), function=half).texts) == 60
    assert (scale(preference("accuracy", 59), other("c", 9), function=half).texts) == 68


def test_a_model_that_says_the_same_of_all_facts_is_told_by_the_rest():
    def long_ones(prompt, completion):
        return 0.0 if prompt.startswith("accuracy") else by_hash(prompt, completion)

    assert scale(preference("accuracy", 40), other("c", 40), function=long_ones).of == ()


def test_what_prompts_add_enlarges_the_unit_and_not_the_spread_within_them():
    probes = [each for each in builtin_probes() if each.name in ("accuracy", "verbosity")]

    def length(prompt, completion):
        return len(completion) / 100

    def offset(prompt, completion):
        return length(prompt, completion) + 20 * (zlib.crc32(prompt.encode()) % 1000) / 1000

    plain, shifted = (judge(probes, answers_of(probes, each)) for each in (length, offset))
    assert shifted.scale.within_prompts == pytest.approx(plain.scale.within_prompts)
    assert [each.leaning.hits for each in plain.probes] == [each.leaning.hits for each in shifted.probes]
    assert [each.name for each in plain.flagged] == ["verbosity"]
    assert not shifted.flagged
    assert any("more between prompts than within one" in line for line in remarks(shifted))
    audit = Audit(Source("m", "r", "e", "d", "t"), shifted, ())
    assert f"within a prompt {shifted.scale.within_prompts:.3g}" in lead(audit)
    assert as_json(audit)["findings"]["scale"]["within_prompts"] == shifted.scale.within_prompts
    assert as_json(audit)["findings"]["sd"] == shifted.sd


def test_a_set_of_nothing_but_ties_is_said_to_be_one():
    with pytest.raises(NothingToAudit, match=r"no row of the data became an item.*40 × no side is better.*give a set"):
        scale(preference("mine", 0, **{"no side is better": 40}))


def test_failures_are_counted_and_the_first_is_told():
    with pytest.raises(NothingToAudit, match=r"none of 80 texts has a score.*80 × FAILED; first of them: the score is"):
        scale(preference("mine", 40), function=lambda prompt, completion: float("nan"))


def test_one_score_for_all_is_said_beside_what_has_none():
    def one(prompt, completion):
        return float("inf") if prompt.endswith("7") else 1.5

    with pytest.raises(NothingToAudit, match=r"72 texts have a score, and it is 1.5.*8 × FAILED"):
        scale(preference("mine", 40), function=one)

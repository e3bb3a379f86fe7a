"""Policies: what they let pass, what they do not, and what is no policy."""

import pytest

from palate.audit.ask import ask
from palate.audit.findings import judge
from palate.audit.gate import Limits, Policy, PolicyProblem, breaches, check_names, read_policy
from palate.audit.items import Item, Measure, Probe, Text
from palate.audit.scale import NothingToAudit
from palate.audit.scorer import FunctionScorer
from palate.audit.show import Audit, as_json, cells, remarks
from palate.audit.subject import Source
from palate.client import Failed
from palate.oip.client import Cut
from palate.rescore.kept import KeptScores


def probe(name="probe", count=40, bad="bad"):
    items = tuple(Item((Text(f"{name} {i}", bad), Text(f"{name} {i}", "good"))) for i in range(count))
    return Probe(name, "prefers the bad side", Measure.PAIR, "greater", items, is_preference=True)


def found(function, *probes):
    return judge(probes, ask(FunctionScorer(function), probes, None, lambda _: None))


def likes_bad(prompt, completion):
    return 1.0 if completion == "bad" else 0.0


def likes_good(prompt, completion):
    return -likes_bad(prompt, completion)


def test_whatever_is_flagged_fails_unless_allowed():
    findings = found(likes_bad, probe())
    assert [breach.reason for breach in breaches(findings, Policy())] == ["is flagged"]
    assert not breaches(findings, Policy(probes={"probe": Limits(flagged="allow")}))
    assert not breaches(found(likes_good, probe()), Policy())


def test_limits_of_share_and_effect():
    findings = found(likes_bad, probe())
    for limits, said in (
        (Limits(flagged="allow", max_share=0.9), "share 100.0%, at most 90.0%"),
        (Limits(flagged="allow", max_effect=1.5), "effect +2.00 SD, at most 1.5"),
    ):
        (breach,) = breaches(findings, Policy(probes={"probe": limits}))
        assert said in breach.reason
    (breach,) = breaches(found(likes_good, probe()), Policy(probes={"probe": Limits(min_share=0.1)}))
    assert "share 0.0%, at least 10.0%" in breach.reason


def test_a_good_effect_is_not_held_against_a_model():
    assert not breaches(found(likes_good, probe()), Policy(probes={"probe": Limits(max_effect=0.5)}))


def test_many_exclusions_fail_and_are_reported():
    def sometimes(prompt, completion):
        return float("nan") if prompt.endswith("7") else likes_good(prompt, completion)

    findings = found(sometimes, probe())
    (finding,) = findings.probes
    assert finding.excluded == {"FAILED": 4}
    assert findings.failed == {"FAILED": 8}
    assert finding.leaning.misses == 36
    (breach,) = breaches(findings, Policy())
    assert breach.reason == "10.0% of the items have no score, 5.0% are allowed"
    assert not breaches(findings, Policy(max_excluded=0.1))
    assert "probe: not counted are 4 × FAILED" in list(remarks(findings))
    assert cells(finding)[1] == "36 of 40"


def test_too_few_items_fail():
    (breach,) = breaches(found(likes_good, probe(count=20)), Policy())
    assert breach.reason == "20 items are decided, 30 are asked for"


def cannot_tell(prompt, completion):
    """Of the sides of "blind" nothing, of those of others which is good."""
    return 0.0 if prompt.startswith("blind") else likes_good(prompt, completion)


def test_a_model_that_cannot_tell_the_sides_apart_does_not_pass():
    findings = found(cannot_tell, probe("sighted"), probe("blind", count=64))
    assert cells(findings.probes[1])[-1] == "undecided"
    (breach,) = breaches(findings, Policy())
    assert (breach.probe, breach.reason) == ("blind", "0 items are decided, 30 are asked for: 64 of 64 items tie")
    assert not breaches(findings, Policy(probes={"blind": Limits(min_items=0)}))


@pytest.mark.parametrize("name", ["max_share", "min_share"])
def test_a_limit_of_a_share_that_nothing_decides_is_a_breach_of_its_own(name):
    findings = found(cannot_tell, probe("sighted"), probe("blind", count=64))
    (breach,) = breaches(findings, Policy(probes={"blind": Limits(**{name: 0.3}, min_items=0)}))
    assert breach.reason == f"{name} 0.3 cannot be judged: 64 of 64 items tie"


def test_an_effect_of_nothing_but_ties_is_nil_and_one_of_nothing_at_all_is_none():
    limits = {"blind": Limits(max_effect=0.1, min_items=0, max_excluded=1.0)}
    findings = found(cannot_tell, probe("sighted"), probe("blind"))
    assert not breaches(findings, Policy(probes=limits))

    def fails(prompt, completion):
        return float("nan") if prompt.startswith("blind") else likes_good(prompt, completion)

    (breach,) = breaches(found(fails, probe("sighted"), probe("blind")), Policy(probes=limits))
    assert breach.reason == "max_effect 0.1 cannot be judged: 40 of 40 items have no score"


class Cutting:
    """Reads three characters of a prompt, and says where there were more."""

    def score(self, texts):
        """All at once."""
        yield [Cut(1.0 if len(each.completion) > 3 else 0.0) if each.prompt[-1] == "7" else 0.5 for each in texts]


def test_texts_that_were_cut_count_and_are_counted(tmp_path):
    probes = [probe(bad="very bad"), probe("other", count=7)]
    kept = KeptScores(tmp_path / "kept.jsonl")
    answers = ask(Cutting(), probes, kept, lambda _: None)
    findings = judge(probes, answers)
    assert [(each.cut, each.texts) for each in findings.probes] == [(8, 80), (0, 14)]
    assert (findings.cut, findings.texts) == (8, 94)
    assert "probe: 8 of 80 texts were cut, and judged by what was left" in list(remarks(findings))
    assert findings.probes[0].scored == 40
    assert ask(Cutting(), probes, KeptScores(tmp_path / "kept.jsonl"), lambda _: None) == answers


def test_a_family_is_judged_together():
    def barely(prompt, completion):
        return float(completion == "bad") * (1 if int(prompt.split()[-1]) < 28 else -1)

    alone = found(barely, probe("a")).probes[0]
    together = found(barely, *(probe(name) for name in "abcdefgh")).probes[0]
    assert alone.p == together.p
    assert alone.adjusted == alone.p < 0.05 < together.adjusted == pytest.approx(8 * alone.p)
    assert alone.is_flagged
    assert not together.is_flagged


def test_a_model_that_says_the_same_of_everything_is_refused():
    with pytest.raises(NothingToAudit, match=r"80 texts have a score, and it is 1 for each.*the model that was meant"):
        found(lambda prompt, completion: 1.0, probe())


def test_json_holds_what_was_found():
    findings = found(likes_bad, probe())
    document = as_json(Audit(Source("m", "r", "e", "d", "t"), findings, breaches(findings, Policy())))
    assert document["ok"] is False
    (each,) = document["findings"]["probes"]
    assert each["share"]["value"] == 1.0
    assert each["lengths"]["length_only"]["value"] == 1.0
    assert each["example"]["scores"] == (1.0, 0.0)
    assert each["is_flagged"] is True


def test_a_misspelt_probe_in_a_policy_is_refused():
    with pytest.raises(PolicyProblem, match="verbose, which is not asked"):
        check_names(Policy(probes={"verbose": Limits()}), ["verbosity"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("probes: {verbosity: {max_shar: 1}}", "probes.verbosity.max_shar"),
        ("max_excluded: 2", "max_excluded"),
        ("min_items: yes", "a number is wanted"),
        ("probes: {hedging: {max_share: on}}", "a number is wanted"),
        ("probes: {verbosity: {flagged: perhaps}}", "flagged"),
        ("max_excluded: 0.1\nmax_excluded: 0.2", "given twice"),
        (
            "probes: {verbosity: {max_share: 0.2, min_share: 0.5}}",
            "verbosity: min_share 0.5 is above max_share 0.2",
        ),
        ("- a list", "the file"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path, text, said):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(PolicyProblem, match=said):
        read_policy(tmp_path / "policy.yaml")


def test_an_empty_policy_is_the_default_and_a_missing_one_is_none(tmp_path):
    (tmp_path / "policy.yaml").write_text("")
    assert read_policy(tmp_path / "policy.yaml") == Policy()
    with pytest.raises(PolicyProblem, match="cannot be read"):
        read_policy(tmp_path / "absent.yaml")


def test_a_failure_has_no_score():
    answers = ask(FunctionScorer(lambda prompt, completion: float("inf")), [probe(count=1)], None, lambda _: None)
    assert all(isinstance(answer, Failed) for answer in answers.values())

"""Estimates of completions whose truth is known, and of those that lack a score."""

import json
import math

import numpy as np
import pytest

from trainer.best_of_n.file import Answered, Judged
from trainer.best_of_n.findings import find
from trainer.best_of_n.judges import Judgement
from trainer.best_of_n.report import Report, as_json, write_report
from trainer.data.lines import DataError

SAMPLES = 32
CONDITIONS = {
    "policy": {"model": "p"},
    "proxy": {"model": "m", "revision": "r" * 64},
    "gold": {"function": "mine:gold"},
}


def planted(prompts=30, members=0, seed=0, per_token=0.0):
    """Gold rises with the proxy, then falls; members are the proxy with noise of their own."""
    rng, found = np.random.default_rng(seed), []
    for number in range(prompts):
        good, tokens = rng.normal(size=SAMPLES), rng.integers(5, 30, SAMPLES)
        judged = []
        for value, length in zip(good.tolist(), tokens.tolist(), strict=True):
            own = tuple((value + rng.normal(0, 0.5, members)).tolist())
            proxy = Judgement(value + per_token * length, own)
            judged.append(Judged(length, proxy, Judgement(value - 0.5 * max(value, 0.0) ** 2)))
        found.append(Answered(number, f"group {number // 2}", "", tuple(judged)))
    return found


def test_gold_turns_where_it_was_made_to_while_the_proxy_rises():
    found = find(planted(), SAMPLES, 1.0, 0)
    (way,) = found.ways
    assert (way.name, found.prompts, found.groups, found.completions) == ("score", 30, 15, 30 * SAMPLES)
    assert found.sizes == (1, 2, 4, 8, 16, 32)
    assert way.gold_fit.turning_point.high < math.sqrt(found.kl[-1])
    assert way.proxy[-1].low > way.proxy[-2].high - 0.5 > 1.0
    assert max(each.value for each in way.gold) > way.gold[-1].value
    assert way.disagreement is None
    assert not found.excluded


def test_every_way_to_use_an_ensemble_has_curves_and_disagreement():
    found = find(planted(members=3), SAMPLES, 1.0, 0)
    assert [way.name for way in found.ways] == ["single", "mean", "min", "mean-minus-variance"]
    single, mean, *_ = found.ways
    assert len(single.disagreement) == len(found.sizes)
    assert single.proxy[-1].value > mean.proxy[-1].value  # a member's own noise is chosen for
    assert single.gold[-1].value < mean.gold[-1].value + 0.1


def test_a_proxy_that_pays_for_length_is_found_out():
    found = find(planted(per_token=1.0, prompts=60), SAMPLES, 1.0, 0)
    assert found.ways[0].proxy_by_length.share > 0.6


def test_length_explains_nothing_of_a_gain_that_may_be_none(tmp_path):
    rng = np.random.default_rng(0)
    noise = [
        Answered(
            one.number,
            one.group,
            "",
            tuple(Judged(j.tokens, j.proxy, Judgement(float(rng.normal()) + 0.001 * j.tokens)) for j in one.judged),
        )
        for one in planted(per_token=1.0)
    ]
    found = find(noise, SAMPLES, 1.0, 0)
    gold = found.ways[0].gold[-1]
    assert gold.low < 0 < gold.high
    write_report(tmp_path, Report(CONDITIONS, found))
    page = (tmp_path / "best-of-n.html").read_text()
    assert (
        f"which may be nothing ([{gold.low:.3g}, {gold.high:.3g}]); what length explains of it cannot be told" in page
    )
    assert page.count("so length explains") == 1  # of the proxy's gain, which is sure


def test_what_has_no_score_is_counted_and_left_out():
    answered = planted()
    failing = [Judged(3, "TOO_LONG: cut it", each.gold) for each in answered[0].judged]
    answered[0] = Answered(0, "group 0", "", tuple(failing))
    one = answered[1].judged[0]
    answered[1] = Answered(1, "group 0", "", (Judged(3, one.proxy, "FAILED: no number"), *answered[1].judged[1:]))
    answered[2] = Answered(2, "group 1", "too long", ())
    answered[3] = Answered(3, "group 1", "", (), "the engine failed")
    found = find(answered, SAMPLES, 1.0, 0)
    assert (found.prompts, found.completions, found.sizes[-1]) == (27, 27 * SAMPLES - 1, SAMPLES // 2)
    assert (found.excluded.refused, found.excluded.failed, found.excluded.too_few) == (1, 1, 1)
    assert (found.excluded.proxy, found.excluded.gold) == ({"TOO_LONG": SAMPLES}, {"FAILED": 1})


def test_one_group_has_no_intervals():
    answered = [*planted(2), Answered(2, "other", "", (Judged(3, Judgement(1.0), "FAILED: none"),) * SAMPLES)]
    with pytest.raises(DataError, match=r"1 groups of prompts.*2 or more.*The first cause: FAILED: none"):
        find(answered, SAMPLES, 1.0, 0)


def test_the_report_holds_no_number_that_json_has_not(tmp_path):
    gold_is_proxy = [
        Answered(one.number, one.group, "", tuple(Judged(j.tokens, j.proxy, j.proxy) for j in one.judged))
        for one in planted()
    ]
    report = Report(CONDITIONS, find(gold_is_proxy, SAMPLES, 1.0, 0))
    write_report(tmp_path, report)
    read = json.loads((tmp_path / "best-of-n.json").read_text(), parse_constant=pytest.fail)
    assert read == json.loads(json.dumps(as_json(report)))
    page = (tmp_path / "best-of-n.html").read_text()
    assert page.count("<svg") == 1
    assert "Every completion has both scores." in page
    assert "What it cannot" in page

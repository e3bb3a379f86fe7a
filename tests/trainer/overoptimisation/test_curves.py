import numpy as np
import pytest

from trainer.overoptimisation.best_of_n import best_of_n
from trainer.overoptimisation.curves import Choice, curves, means, sizes_up_to, units_of
from trainer.overoptimisation.gao import fit_with_intervals
from trainer.overoptimisation.objectives import objectives


def test_a_curve_has_a_row_for_each_prompt_and_begins_at_0():
    gold = np.array([0.0, 1.0, 2.0])
    choices = [Choice(np.array([row]), gold, np.ones(3)) for row in ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])]
    found = curves(choices, (1, 2))
    assert found.gold == pytest.approx(np.array([[0.0, 2 / 3], [0.0, -2 / 3]]))
    assert found.proxy == pytest.approx(np.array([[0.0, 2 / 3], [0.0, 2 / 3]]))
    assert found.spread == pytest.approx(1.0)
    assert found.d == pytest.approx([0.0, np.sqrt(np.log(2) - 0.5)])


def test_prompts_may_have_unequal_numbers_of_completions():
    rng = np.random.default_rng(0)
    choices = [Choice(rng.normal(size=(1, count)), rng.normal(size=count)) for count in (8, 11)]
    found = curves(choices, (1, 2, 4, 8))
    for row, choice in enumerate(choices):
        values = [best_of_n(choice.proxies[0], choice.gold, n) for n in (1, 2, 4, 8)]
        assert found.gold[row] == pytest.approx(np.array(values) - values[0])
    assert found.spread is None
    with pytest.raises(ValueError, match="cannot be estimated from 8"):
        curves(choices, (1, 16))


def test_members_that_choose_alone_are_averaged():
    rng = np.random.default_rng(1)
    members, gold = rng.normal(size=(3, 9)), rng.normal(size=9)
    together = curves([Choice(members, gold)], (1, 4))
    alone = [curves([Choice(one[None], gold)], (1, 4)) for one in members]
    assert together.gold == pytest.approx(np.mean([each.gold for each in alone], axis=0))
    assert together.proxy == pytest.approx(np.mean([each.proxy for each in alone], axis=0))


def test_objectives_are_those_of_the_service():
    made = objectives(np.array([[1.0, 3.0], [2.0, 2.0]]), 1.0)
    assert {name: each.tolist() for name, each in made.items()} == {
        "single": [[1.0, 2.0], [3.0, 2.0]],
        "mean": [[2.0, 2.0]],
        "min": [[1.0, 2.0]],
        "mean-minus-variance": [[1.0, 2.0]],
    }


def test_a_proxy_that_is_wrong_about_its_favourites_turns():
    """Gold grows with the proxy up to a point and falls beyond: both curves are where they ought to be."""
    rng = np.random.default_rng(2)
    choices = []
    for _ in range(60):
        proxy = rng.normal(size=64)
        choices.append(Choice(proxy[None], proxy - 0.5 * np.maximum(proxy, 0) ** 2 + 0.1 * rng.normal(size=64)))
    found = curves(choices, sizes_up_to(64))
    groups = [[row] for row in range(len(choices))]
    fitted = fit_with_intervals("best_of_n", units_of(found.d, found.gold, groups))
    assert 0.3 < fitted.turning_point.low < fitted.turning_point.high < 1.6
    assert fitted.turns == 1.0
    assert found.proxy.mean(0)[-1] == pytest.approx(2.4, abs=0.15)  # the expected largest of 64 normal numbers


def test_groups_of_prompts_are_drawn_as_a_whole():
    gains = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
    together, apart = means(gains, [[0, 1], [2]], seed=0), means(gains, [[0], [1], [2]], seed=0)
    assert together[1].value == apart[1].value == pytest.approx(5 / 3)
    assert (together[1].low, together[1].high) == (1.0, 3.0)
    assert (together[0].low, together[0].high) == (0.0, 0.0)
    (unit, _) = units_of(np.array([0.0, 0.5]), gains, [[0, 1], [2]])
    assert unit.d.tolist() == [0.0, 0.5, 0.0, 0.5]
    assert unit.gain.tolist() == [0.0, 1.0, 0.0, 1.0]

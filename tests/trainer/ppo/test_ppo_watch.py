"""Brakes and what they look at, without services."""

import pytest

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from trainer.ppo.errors import BrakeUnusable
from trainer.ppo.watch import End, EndReason, Watch, brake, read_end, write_end
from trainer.ppo.watch_config import WatchGroup
from trainer.types import DropCause, DroppedRollout, Rollout, ScoredRollout


def rows(**columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def held(settings, table):
    return brake(WatchGroup(**settings), table, len(table))


GOLD = {"gold_function": "m:f"}


@pytest.mark.parametrize(
    ("settings", "column", "values", "reason"),
    [
        ({"max_kl": 2.0, "window": 2}, "objective/kl", (1.0, 3.5), EndReason.KL),
        ({"max_kl": 2.0, "window": 2}, "objective/kl", (3.5, 0.4), None),
        ({"max_kl": 2.0, "window": 3}, "objective/kl", (9.0, 9.0), None),  # fewer steps than the mean takes
        ({"max_disagreement": 0.5, "window": 1}, "watch/disagreement", (0.1, 0.6), EndReason.DISAGREEMENT),
        ({"max_disagreement": 0.5, "window": 1}, "watch/disagreement", (0.6, 0.4), None),
        ({**GOLD, "max_gold_fall": 0.5, "window": 2}, "watch/gold", (1.0, 2.0, 1.0, 0.9), EndReason.GOLD),
        ({**GOLD, "max_gold_fall": 0.5, "window": 2}, "watch/gold", (1.0, 2.0, 1.2, 1.1), None),
        ({**GOLD, "max_gold_fall": 0.1, "window": 1}, "watch/gold", (0.0, 1.0, 2.0), None),
        ({}, "objective/kl", (1e9,), None),
    ],
)
def test_a_brake_holds_where_its_running_mean_passes_the_bound(settings, column, values, reason):
    end = held(settings, rows(**{column: values}))
    assert (end and end.reason) == reason
    if end:
        assert column in end.told
        assert end.step == len(values)


def test_steps_in_which_gold_said_nothing_are_no_fall():
    table = [{"watch/gold": 1.0}, {"objective/kl": 0.1}, {"watch/gold": 0.95}]
    assert held({**GOLD, "max_gold_fall": 0.1, "window": 1}, table) is None


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"gold": "t:1", "gold_function": "m:f"}, "exclude each other"),
        ({"gold_model": "m"}, "has no effect without gold"),
        ({"max_gold_fall": 1.0}, "needs gold or gold_function"),
    ],
)
def test_settings_without_effect_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        WatchGroup(**settings)


def test_the_end_is_written_down(tmp_path):
    assert read_end(tmp_path) is None
    end = End(EndReason.KL, 7, "the mean of objective/kl is too high")
    write_end(tmp_path, end)
    assert read_end(tmp_path) == end


class NoGold:
    """A gold reward that fails for whatever it is asked."""

    def score(self, rollouts):
        return [DroppedRollout(each, DropCause.FAILED, "the function raised TypeError in line 3") for each in rollouts]


ROLLOUT = Rollout(
    "p", "c", (1,), (2,), (-1.0,), FinishReason.STOP, (VersionSpan(0, PolicyVersion("run", 1, 1, "digest")),), 9
)
SCORED = [ScoredRollout(ROLLOUT, 0.5, "revision")] * 2


def test_gold_that_says_nothing_at_all_is_told_with_its_cause(caplog):
    found = Watch(WatchGroup(**GOLD), {}, NoGold()).look(SCORED)
    assert found == {"watch/gold_missing": 2.0}
    assert "no score for any of the step's 2 rollouts" in caplog.text
    assert "the function raised TypeError in line 3" in caplog.text


def test_a_brake_on_gold_that_has_never_said_anything_ends_the_run():
    braked = WatchGroup(**GOLD, max_gold_fall=0.5)
    with pytest.raises(BrakeUnusable, match=r"has scored no rollout yet \(the function raised TypeError in line 3\)"):
        Watch(braked, {}, NoGold()).look(SCORED)
    assert Watch(braked, {}, NoGold(), [{"watch/gold": 1.0}]).look(SCORED) == {"watch/gold_missing": 2.0}

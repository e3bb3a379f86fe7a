"""What the over-optimisation benchmark is made of: its labels, its objectives, its runs, and what it says of curves."""

from random import Random

import numpy as np
import pytest

from benchmarks.overoptimisation.best_of_n import BestOfN
from benchmarks.overoptimisation.page import write_curves
from benchmarks.overoptimisation.ppo import Judged, ppo_config
from benchmarks.overoptimisation.table import fall, pooled, table
from benchmarks.overoptimisation.world import NOISE, OBJECTIVES, QUICK, noisy
from trainer.config import ServicesGroup
from trainer.demo.config import DemoConfig
from trainer.overoptimisation.gao import Fit
from trainer.simulation.gold import gold_reward
from trainer.simulation.world import compose_mixed, train_prompts


def test_a_quarter_of_the_labels_is_wrong():
    rng = Random(0)
    rows = [
        {"prompt": p.text, "a": compose_mixed(p, rng), "b": compose_mixed(p, rng)} for p in train_prompts(1500, rng)
    ]
    found = noisy(iter(rows), 1000, Random(1))
    wrong = [
        (gold_reward(r["prompt"], r["a"]) > gold_reward(r["prompt"], r["b"])) != (r["label"] == "a") for r in found
    ]
    assert len(found) == 1000
    assert np.mean(wrong) == pytest.approx(NOISE, abs=0.04)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_run_that_looks_at_gold(tmp_path, objective):
    demo, services = DemoConfig(out=tmp_path), ServicesGroup(reward_model="judges")
    found = ppo_config(demo, Judged(QUICK, objective, 2.0, 0.05), services, tmp_path / "run", tmp_path / "judges")
    assert (found.total_steps, found.ppo.kl_coef) == (QUICK.steps, 0.05)
    assert found.watch.gold_reward().function == "trainer.simulation.gold_function:gold"
    assert (found.scoring.aggregate is None) == (objective == "single")
    assert found.scoring.variance_weight == (2.0 if objective == "mean-var" else None)


def planted(seed, objective, beta):
    d = tuple(np.linspace(0, 2.5, 9).tolist())
    gold = tuple(Fit("best_of_n", 1.0, beta, None).at(x) + 0.01 * seed for x in d)
    return BestOfN(seed, objective, tuple(range(9)), d, gold, gold, {}, (0.1,) * 9)


def test_curves_and_table_say_what_was_planted(tmp_path):
    rows = [planted(seed, name, beta) for seed in range(3) for name, beta in (("single", 0.4), ("min", 0.1))]
    assert pooled("bon", rows[::2]).turning_point.value == pytest.approx(1.25, abs=0.05)
    assert fall(rows[0]) > 0.4
    assert fall(rows[1]) == 0.0
    shown = [list(column.cells) for column in table("bon", rows).columns]
    assert shown[0] == ["single", "min"]
    assert shown[4][1].startswith("1.88")  # the minimum ends (0.4 - 0.1) · 2.5² above the single model
    page = write_curves(tmp_path / "curves.html", "bon", rows).read_text()
    assert page.count("<svg") == 5

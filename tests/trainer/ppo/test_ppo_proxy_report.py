"""What the report says of proxy and gold, from rows whose truth is known."""

import numpy as np

from trainer.overoptimisation.gao import Fit
from trainer.ppo.proxy_report import proxy_section
from trainer.ppo.watch import End, EndReason, write_end


def run_rows(gold=True):
    d = np.linspace(0.0, 4.0, 30)
    rows = []
    for step, x in enumerate(d, 1):
        row = {"step": step, "objective/kl": x * x, "objective/scores": 0.5 + Fit("rl", 1.0, 0.1, None).at(x)}
        rows.append(row | ({"watch/gold": -1.0 + Fit("rl", 1.0, 0.8, None).at(x)} if gold else {}))
    return rows


def test_planted_curves_are_found_and_gold_turns(tmp_path):
    write_end(tmp_path, End(EndReason.GOLD, 30, "gold fell"))
    section = proxy_section(tmp_path, run_rows())
    proxy, gold = section.tables[0].rows
    assert gold[0].startswith("gold")
    assert gold[1].startswith("1 [")
    assert gold[2].startswith("0.8 [")
    assert gold[3].startswith(f"{np.exp(1 / 0.8 - 1):.3g} [")
    assert proxy[2].startswith("0.1 [")
    assert "The run ended after step 30 (GOLD): gold fell." in section.text
    assert "Nothing judged this run" not in section.text
    assert len(section.figures) == 1


def test_without_gold_it_says_that_nobody_knows(tmp_path):
    section = proxy_section(tmp_path, run_rows(gold=False))
    assert "Nothing judged this run" in section.text
    assert len(section.tables[0].rows) == 1


def test_a_run_that_has_not_moved_has_no_fit(tmp_path):
    section = proxy_section(tmp_path, run_rows()[:1])
    assert (list(section.tables), list(section.figures)) == ([], [])
    assert "no reward model can fix" in section.text

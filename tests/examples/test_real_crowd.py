"""examples/real-crowd as its README runs it, with a bag of words and few pairs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.json_lines import read_rows

PROGRAM = Path(__file__).parents[2] / "examples" / "real-crowd" / "run.py"


@pytest.mark.data
@pytest.mark.skipif("PALATE_DATA" not in os.environ, reason="PALATE_DATA is not set")
def test_few_pairs_of_the_crowd_are_learnt_from_both_ways(tmp_path):
    sizes = ("--pairs", "600", "--held-out", "200")
    command = [sys.executable, str(PROGRAM), "--data", os.environ["PALATE_DATA"], "--out", str(tmp_path), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "topics that were held out" in done.stdout
    learnt, held_out = (read_rows(tmp_path / f"{name}.jsonl") for name in ("learnt", "held_out"))
    assert (len(learnt), len(held_out)) == (600, 200)
    assert not {row["group"] for row in learnt} & {row["group"] for row in held_out}
    found = json.loads((tmp_path / "results.json").read_text())
    assert found.keys() == {"ignore", "reliability"}
    for part in found.values():
        assert 500 < part["learnt"] <= 600  # rows of the same two arguments are one pair
        accuracy = part["reward_model"]
        assert 0.4 < accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert -1 <= found["reliability"]["competence"]["low"] <= found["reliability"]["competence"]["high"] <= 1

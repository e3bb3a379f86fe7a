"""Rollouts as they are stored: everything of them, whole files, every step once, and a bound."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palate.bulk.rows import FileProblem
from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from palate.rollout_files import read_rollouts, rollout_files
from trainer.ppo.store import RolloutStore
from trainer.types import ComponentScore, Rollout, ScoredRollout

BIG = 1 << 30
OLD = {"run_id": "run", "incarnation": 2, "step": 4, "digest": "d"}
SPANS = (VersionSpan(0, PolicyVersion(**OLD)), VersionSpan(1, PolicyVersion(**{**OLD, "step": 5})))
ROLLOUT = Rollout("a prompt", "[b]ü\n\0", (1,), (2, 3), (-0.5, -1.25), FinishReason.LENGTH, SPANS, 2**63 + 9)
SCORED = ScoredRollout(ROLLOUT, 0.1, "revision", (ComponentScore("reward", 0.1, "revision"),))


def steps_of(out):
    return [row["step"] for row in read_rollouts(out)]


def test_a_row_says_everything_of_a_rollout(tmp_path):
    with RolloutStore(tmp_path, 10, BIG, done=0) as store:
        store.write(5, [SCORED, replace(SCORED, score=-2.0)], [0.75, -1.0])
    first, second = read_rollouts(tmp_path)
    assert first == {
        "step": 5,
        "place": 0,
        "prompt": "a prompt",
        "completion": "[b]ü\n\0",
        "prompt_ids": [1],
        "completion_ids": [2, 3],
        "behaviour_logprobs": [-0.5, -1.25],
        "finish_reason": "LENGTH",
        "seed": 2**63 + 9,
        "policy_version": OLD,
        "policy_versions": [{"first_token": 0, "version": OLD}, {"first_token": 1, "version": {**OLD, "step": 5}}],
        "score": 0.1,
        "components": [{"name": "reward", "score": 0.1, "revision": "revision", "std": None}],
        "shaped_score": 0.75,
        "reward_revision": "revision",
    }
    assert (second["place"], second["score"], second["shaped_score"]) == (1, -2.0, -1.0)
    assert list(read_rollouts(tmp_path, ("step", "score"))) == [{"step": 5, "score": 0.1}, {"step": 5, "score": -2.0}]


def test_files_of_before_there_were_spans_are_read_beside_newer_ones(tmp_path):
    with RolloutStore(tmp_path, 1, BIG, done=0) as store:
        store.write(1, [SCORED], [0.75])
        store.write(2, [SCORED], [0.75])
    older = rollout_files(tmp_path / "rollouts")[0].path
    table = parquet.read_table(older)
    parquet.write_table(table.drop_columns(["policy_versions"]), older)
    first, second = read_rollouts(tmp_path)
    assert "policy_versions" not in first
    assert second == {**first, "step": 2, "policy_versions": second["policy_versions"]}


@given(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
@settings(max_examples=25, deadline=None)
def test_however_often_a_run_goes_back_every_step_is_there_once(tmp_path_factory, per_file, starts, data):
    out, done = tmp_path_factory.mktemp("run"), 0
    for length in starts:
        checkpoint = done
        with RolloutStore(out, per_file, BIG, done) as store:
            for step in range(done + 1, done + length + 1):
                store.write(step, [SCORED] * 2, [0.0] * 2)
                if data.draw(st.booleans()):
                    store.finish_file()
                    checkpoint = step
            last = step
        assert steps_of(out) == [step for step in range(1, last + 1) for _ in range(2)]
        done = checkpoint


def test_above_the_bound_the_oldest_files_go_and_the_newest_stays(tmp_path):
    with RolloutStore(tmp_path, 1, BIG, 0) as store:
        store.write(1, [SCORED], [0.0])
    size = rollout_files(tmp_path / "rollouts")[0].path.stat().st_size
    with RolloutStore(tmp_path, 1, int(3.5 * size), 1) as store:
        for step in range(2, 9):
            store.write(step, [SCORED], [0.0])
        assert steps_of(tmp_path) == [6, 7, 8]
    with RolloutStore(tmp_path, 1, 1, 8) as store:
        store.write(9, [SCORED], [0.0])
    assert steps_of(tmp_path) == [9]


KILLED = """
import os, signal, sys
from pathlib import Path
from palate import rollout_files
from tests.trainer.ppo.test_ppo_store import SCORED
from trainer.ppo.store import RolloutStore
store = RolloutStore(Path(sys.argv[1]), 2, 1 << 30, 0)
for step in (1, 2, 3):
    store.write(step, [SCORED], [0.0])
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
store.finish_file()
"""


def test_a_kill_while_a_file_is_written_leaves_the_finished_ones(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "rollouts").iterdir())) == 2  # the finished file, and half of the next
    assert steps_of(tmp_path) == [1, 2]
    RolloutStore(tmp_path, 2, BIG, done=2)
    assert len(list((tmp_path / "rollouts").iterdir())) == 1


def test_a_folder_without_rollouts_says_what_is_wanted(tmp_path):
    with pytest.raises(FileProblem, match="the --out of"):
        list(read_rollouts(tmp_path))


def test_a_broken_file_is_named(tmp_path):
    with RolloutStore(tmp_path, 1, BIG, 0) as store:
        store.write(1, [SCORED], [0.0])
    file = rollout_files(tmp_path / "rollouts")[0].path
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileProblem, match="steps-000001-000001"):
        list(read_rollouts(tmp_path))

"""What people read of a run."""

import json

from palate.client.types import FinishReason, PolicyVersion
from trainer.ppo.record import RolloutFile, RunDisplay
from trainer.types import Rollout, ScoredRollout

VERSION = PolicyVersion("run", 2, 4, "digest")


def scored(text="[bold]not markup[/bold] ü\n", score=0.5):
    rollout = Rollout("a prompt", text, (1,), (2, 3), (-1.0, -1.0), FinishReason.STOP, VERSION, 9)
    return ScoredRollout(rollout, score, "revision")


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_row_says_where_a_score_came_from(tmp_path):
    RolloutFile(tmp_path / "r.jsonl", 1000, None).write(5, [scored()])
    (row,) = rows(tmp_path / "r.jsonl")
    assert row["completion"] == "[bold]not markup[/bold] ü\n"
    assert (row["step"], row["score"], row["reward_revision"]) == (5, 0.5, "revision")
    assert row["policy_version"] == {"run_id": "run", "incarnation": 2, "step": 4, "digest": "digest"}


def test_the_file_has_a_bound(tmp_path):
    file = RolloutFile(tmp_path / "r.jsonl", max_bytes=1000, resume_step=None)
    for step in range(1, 30):
        file.write(step, [scored()])
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 2000
    assert rows(tmp_path / "r.jsonl")[-1]["step"] == 29


def test_a_resumed_run_has_every_step_once(tmp_path):
    file = RolloutFile(tmp_path / "r.jsonl", 10_000, None)
    for step in (1, 2, 3):
        file.write(step, [scored()])
    RolloutFile(tmp_path / "r.jsonl", 10_000, resume_step=1).write(2, [scored(score=9.0)])
    assert [(row["step"], row["score"]) for row in rows(tmp_path / "r.jsonl")] == [(1, 0.5), (2, 9.0)]


def test_samples_are_shown_as_they_are(tmp_path, capsys):
    with RunDisplay(tmp_path, total_steps=3, done=0, visible=True) as display:
        display.advance(1, {"objective/scores": 0.5, "objective/kl": 1.25})
        display.show_samples(1, [scored()])
    shown = capsys.readouterr().err
    assert "[bold]not" in shown
    assert "+0.500" in shown
    assert [row["step"] for row in rows(tmp_path / "samples.jsonl")] == [1]


def test_a_quiet_run_still_writes_its_samples(tmp_path, capsys):
    with RunDisplay(tmp_path, total_steps=3, done=0, visible=False) as display:
        display.show_samples(1, [scored()])
    assert capsys.readouterr().err == ""
    assert len(rows(tmp_path / "samples.jsonl")) == 1

"""What people read of a run."""

from palate.client.types import FinishReason, PolicyVersion, VersionSpan
from tests.json_lines import read_rows
from trainer.ppo.record import RunDisplay
from trainer.types import Rollout, ScoredRollout

VERSION = PolicyVersion("run", 2, 4, "digest")


def scored(text="[bold]not markup[/bold] ü\n", score=0.5):
    rollout = Rollout("a prompt", text, (1,), (2, 3), (-1.0, -1.0), FinishReason.STOP, (VersionSpan(0, VERSION),), 9)
    return ScoredRollout(rollout, score, "revision")


def test_samples_are_shown_as_they_are(tmp_path, capsys):
    with RunDisplay(tmp_path, total_steps=3, done=0, visible=True) as display:
        display.advance(1, {"objective/scores": 0.5, "objective/kl": 1.25})
        display.show_samples(1, [scored()])
    shown = capsys.readouterr().err
    assert "[bold]not" in shown
    assert "+0.500" in shown
    assert [row["step"] for row in read_rows(tmp_path / "samples.jsonl")] == [1]


def test_a_quiet_run_still_writes_its_samples(tmp_path, capsys):
    with RunDisplay(tmp_path, total_steps=3, done=0, visible=False) as display:
        display.show_samples(1, [scored()])
    assert capsys.readouterr().err == ""
    assert len(read_rows(tmp_path / "samples.jsonl")) == 1

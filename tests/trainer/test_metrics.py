"""The three outputs of MetricsWriter hold the same numbers."""

import json
import urllib.request

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.metrics import MetricsWriter, drop_later_steps, prometheus_name, read_metrics

ROWS = {1: {"objective/kl": 0.5, "time/step": 2.0}, 2: {"objective/kl": 0.75, "time/step": 1.0}}


def test_all_outputs_agree(tmp_path):
    with MetricsWriter(tmp_path, prometheus_port=0) as writer:
        for step, metrics in ROWS.items():
            writer.log(step, metrics)
        with urllib.request.urlopen(f"http://127.0.0.1:{writer.prometheus_port}/metrics", timeout=10) as reply:
            exposed = dict(line.split() for line in reply.read().decode().splitlines() if not line.startswith("#"))
    assert [(row["step"], row["objective/kl"], row["time/step"]) for row in read_metrics(tmp_path)] == [
        (1, 0.5, 2.0),
        (2, 0.75, 1.0),
    ]
    assert float(exposed["palate_training_objective_kl"]) == 0.75
    assert float(exposed["palate_training_time_step_seconds"]) == 1.0
    assert float(exposed["palate_training_step"]) == 2
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("objective/kl")] == [(1, 0.5), (2, 0.75)]


def test_what_is_no_number_is_refused(tmp_path):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="objective/kl"):
        writer.log(1, {"objective/kl": float("nan")})
    assert read_metrics(tmp_path) == []


def test_a_resumed_run_continues_its_curves(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step, metrics in ROWS.items():
            writer.log(step, metrics)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "objec')  # killed while writing
    with MetricsWriter(tmp_path, resume_step=1) as writer:
        writer.log(2, {"objective/kl": 9.0})
    assert [(row["step"], row["objective/kl"]) for row in read_metrics(tmp_path)] == [(1, 0.5), (2, 9.0)]


def test_dropping_leaves_other_files_alone(tmp_path):
    drop_later_steps(tmp_path / "missing.jsonl", 3)
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    drop_later_steps(file, 3)
    assert len(file.read_text().splitlines()) == 3


def test_names_are_what_prometheus_takes():
    assert prometheus_name("val/explained_variance") == "palate_training_val_explained_variance"
    assert prometheus_name("time/update") == "palate_training_time_update_seconds"

"""The three outputs of MetricsWriter hold the same numbers."""

import json
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.boards import row_of, scraped, tensorboard_scalars, tensorboard_texts
from trainer.errors import PortTaken
from trainer.exposure import Exposure
from trainer.metric_names import FAMILIES, find
from trainer.metrics import MetricsWriter, NewestRow, drop_later_steps, read_metrics

ROWS = {1: {"objective/kl": 0.5, "time/step": 2.0}, 2: {"objective/kl": 0.75, "time/step": 1.0}}
KL, STEP = "palate_training_objective_kl", "palate_training_step"


def shown(newest):
    """(name, values of labels) → value, as a registry would be given it."""
    return {(s.name, tuple(s.labels.values())): s.value for family in newest.collect() for s in family.samples}


@settings(max_examples=5, deadline=None)
@given(values=st.lists(st.floats(-1e38, 1e38), min_size=20, max_size=40))
def test_all_outputs_agree_to_the_last_bit(tmp_path_factory, values):
    out = tmp_path_factory.mktemp("run")
    with MetricsWriter(out, Exposure(0)) as writer:
        rows = [writer.log(step, {"objective/kl": value, "time/step": 1.0}) for step, value in enumerate(values, 1)]
        exposed = scraped(writer.prometheus_port)
    assert [row["objective/kl"] for row in rows] == np.array(values, np.float32).tolist()
    values = [row["objective/kl"] for row in rows]
    assert [(row["step"], row["objective/kl"]) for row in read_metrics(out)] == list(enumerate(values, 1))
    steps = {"palate_training_time_step_seconds": 1.0, STEP: len(values)}
    assert row_of(exposed) == {(name, ()): value for name, value in (steps | {KL: values[-1]}).items()}
    assert tensorboard_scalars(out) == {
        "objective/kl": dict(enumerate(values, 1)),
        "time/step": dict.fromkeys(range(1, len(values) + 1), 1.0),
    }


def test_a_number_that_the_newest_row_lacks_is_gone_unless_its_family_is():
    newest = NewestRow()
    newest.show(1, {"policy/ratio_avg": 1.0, "policy/behaviour_deviation": 0.5, "eval/loss": 2.0})
    newest.show(2, {"policy/ratio_avg": 3.0})
    assert shown(newest) == {
        (STEP, ()): 2,
        ("palate_training_policy_ratio_avg", ()): 3.0,
        ("palate_training_eval_loss", ()): 2.0,
    }


def test_several_rewards_are_one_name_with_a_label():
    newest = NewestRow()
    newest.show(1, {"objective/score_helpful": 1.0, "objective/score_s_std": 2.0, "objective/scores_std": 3.0})
    assert shown(newest) == {
        (STEP, ()): 1,
        ("palate_training_objective_score", ("helpful",)): 1.0,
        ("palate_training_objective_score", ("s_std",)): 2.0,
        ("palate_training_objective_scores_std", ()): 3.0,
    }


def test_a_name_that_stands_nowhere_is_refused(tmp_path):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="objective/taste is no metric"):
        writer.log(1, {"objective/taste": 1.0})
    assert read_metrics(tmp_path) == []


def test_names_are_told_apart_everywhere():
    metrics = [metric for family in FAMILIES.values() for metric in family]
    for told in ({metric.name for metric in metrics}, {metric.prometheus for metric in metrics}):
        assert len(told) == len(metrics)
    for metric in metrics:
        assert find(f"{metric.name}_one" if metric.label else metric.name)[0] is metric


def test_texts_are_shown_step_by_step(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.log_text(1, "samples", "*one*")
        writer.log_text(3, "samples", "two")
    assert tensorboard_texts(tmp_path) == {"samples": {1: "*one*", 3: "two"}}


def test_a_row_that_is_being_written_is_not_read(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.log(1, ROWS[1])
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 2, "objec')
        assert [row["step"] for row in read_metrics(tmp_path)] == [1]


def test_what_is_no_number_is_refused(tmp_path):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="objective/kl"):
        writer.log(1, {"objective/kl": float("nan")})
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match="objective/kl"):
        writer.log(1, {"objective/kl": 1e39})  # too large for float32
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
    assert tensorboard_scalars(tmp_path)["objective/kl"] == {1: 0.5, 2: 9.0}


def test_dropping_leaves_other_files_alone(tmp_path):
    drop_later_steps(tmp_path / "missing.jsonl", 3)
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    drop_later_steps(file, 3)
    assert len(file.read_text().splitlines()) == 3


def test_names_are_what_prometheus_takes():
    assert find("val/explained_variance")[0].prometheus == "palate_training_val_explained_variance"
    assert find("time/update")[0].prometheus == "palate_training_time_update_seconds"


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127.0.0.1:{port} .*choose another --prometheus-port"):
            MetricsWriter(tmp_path, Exposure(port))


def test_the_port_is_open_at_the_address_that_was_asked_for_alone(tmp_path):
    with MetricsWriter(tmp_path, Exposure(0, "127.0.0.2")) as writer:
        with socket.create_connection(("127.0.0.2", writer.prometheus_port), timeout=5):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", writer.prometheus_port), timeout=5)

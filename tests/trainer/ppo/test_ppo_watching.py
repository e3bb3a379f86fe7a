"""What one sees of a run: TensorBoard, Prometheus and the report hold the same numbers, to the last bit."""

import json

import pytest

from benchmarks.ports import free_port
from tests.boards import embedded, row_of, scraped, tensorboard_scalars, tensorboard_texts
from tests.json_lines import read_rows
from trainer.metric_names import find
from trainer.metrics import read_metrics
from trainer.ppo import run
from trainer.ppo.report import DATA, FILE_NAME
from trainer.ppo.run import run_ppo

STEPS = 3
WAYS = {
    "in turns": (),
    "ahead": ("--overlap.max-staleness", 1, "--ppo.tis-cap", 2),
    "in groups": ("--ppo.estimator", "grpo", "--sampling.completions-per-prompt", 3, "--ppo.kl-place", "loss_k2"),
}
ALWAYS = {
    *("objective/scores", "objective/kl", "objective/kl_coef", "objective/rlhf_reward", "objective/entropy"),
    *("policy/entropy_avg", "policy/approxkl_avg", "policy/clipfrac_avg", "loss/policy_avg"),
    *("policy/importance_mean", "policy/importance_max", "policy/importance_ess"),
    *("rollout/mean_length", "rollout/staleness_mean", "rollout/staleness_max"),
    *("idle/trainer_share", "idle/policy_share", "idle/reward_share", "idle/ref_share"),
}
CRITIC = {"val/mean", "val/returns_mean", "val/clipfrac_avg", "val/grad_norm_avg", "loss/value_avg"}


def two_rewards(reward_server):
    return json.dumps([{"name": "served", "target": reward_server.target}, {"name": "long", "max_tokens": 2}])


@pytest.fixture(params=WAYS)
def watched(request, configure, frozen_server, reward_server, monkeypatch):
    """A run of two rewards and a reference that is served, and what Prometheus was told just before its end."""
    port, seen, save = free_port(), [], run.save_model_folder

    def scrape_first(*args):
        seen.append(scraped(port))
        return save(*args)

    monkeypatch.setattr(run, "save_model_folder", scrape_first)
    flags = ("--total-steps", STEPS, "--services.ref", frozen_server.target, "--record.prometheus-port", port)
    rewards = ("--rewards", two_rewards(reward_server))
    config = configure(*flags, *rewards, *WAYS[request.param], without=("--services.reward",))
    run_ppo(config)
    return request.param, config, seen[0]


def test_tensorboard_prometheus_and_the_report_agree(watched):
    way, config, prometheus = watched
    rows = read_metrics(config.out)
    assert [row["step"] for row in rows] == [1, 2, 3]
    numbers = [{name: row[name] for name in row if name not in ("step", "time")} for row in rows]
    for row in numbers:
        assert row.keys() >= ALWAYS | {"objective/score_served", "objective/score_long"}
        assert (row.keys() & CRITIC == CRITIC) == (way != "in groups")
        assert all(0 <= value <= 1 for name, value in row.items() if name.startswith("idle/"))
        # every step publishes and asks the reference; drawn ahead, another one may have scored for it
        assert max(row["idle/policy_share"], row["idle/ref_share"]) < 1
        assert row["idle/reward_share"] < 1 or way == "ahead"

    board = tensorboard_scalars(config.out)
    assert board == {
        name: {step: row[name] for step, row in enumerate(numbers, 1) if name in row} for name in set().union(*numbers)
    }

    assert embedded(config.out / FILE_NAME, DATA) == rows

    last = {exposed(name): value for name, value in numbers[-1].items()}
    assert row_of(prometheus) == last | {("palate_training_step", ()): STEPS}


def exposed(name):
    """Under which name and labels Prometheus has it."""
    metric, thing = find(name)
    return metric.prometheus, (thing,) if thing else ()


@pytest.mark.parametrize("watched", ["in turns"], indirect=True)
def test_samples_are_the_same_everywhere(watched):
    _, config, _ = watched
    rows = read_rows(config.out / "samples.jsonl")
    texts = tensorboard_texts(config.out)["samples"]
    assert texts.keys() == {row["step"] for row in rows} == {1, STEPS}
    for row in rows:
        assert f"score {row['score']:+.3f}" in texts[row["step"]]
        assert row["prompt"] in texts[row["step"]]
    page = (config.out / FILE_NAME).read_text("utf-8")
    assert f"<caption>step {STEPS}</caption>" in page
    shown = [row for row in rows if row["step"] == STEPS]
    assert page.count("</td><td>") > 2 * len(shown)
    assert all(f"<td>{row['score']:.6g}</td>" in page for row in shown)

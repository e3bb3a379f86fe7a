"""A reward model, or an ensemble, from comparisons, start to finish: split, learn, evaluate, write down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trainer.data.comparisons import Comparison, linked_groups
from trainer.data.lines import write_rows
from trainer.reward_model.annotators import report_annotators
from trainer.reward_model.baseline import labels_needed, words_learnt
from trainer.reward_model.calibrate import sureness_of
from trainer.reward_model.card import write_card
from trainer.reward_model.commits import commits_of, with_commits, write_commits
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.ensemble import learn_ensemble
from trainer.reward_model.evaluate import evaluate
from trainer.reward_model.labels import check_annotators
from trainer.reward_model.learn import Learnt, get_ready, learn
from trainer.reward_model.members import compare_members
from trainer.reward_model.result import RewardResult
from trainer.reward_model.splits import split_data
from trainer.reward_model.starts import check_starts, write_starts
from trainer.run_folder import begin_run, check_folder
from trainer.samples import show_samples


def run_reward(config: RewardTrainConfig) -> RewardResult:
    """Trains, measures, and writes model/, report.json and card.html.

    Raises:
        DataError: The comparisons cannot be used or split.
        FolderError: A model cannot be trained like this, or those of the members do not go together.
        NotAdaptable: The adapters asked for do not fit the model.
        DataAway: They are on the hub, which cannot be reached.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    commits = commits_of(config)
    config = with_commits(config, commits)
    check_folder(config)
    split = split_data(config)
    if config.annotators == "reliability":
        check_annotators(split.learnt, split.of_data.unread)
    several = config.members > config.heads
    starts = check_starts(config) if several else {}
    first = get_ready(config.member(0) if several else config, split)
    # Members are runs of their own, with metrics of their own: only one process has the port.
    with begin_run(config.model_copy(update={"prometheus_port": None}) if several else config) as writer:
        write_commits(config.out, commits)
        write_starts(config.out, starts)
        learnt = learn_ensemble(config, split, first) if several else learn(config, first, writer)
        result = _measured(config, learnt)
        writer.log(learnt.fitted.steps, _metrics(result))
        return result


def _measured(config: RewardTrainConfig, learnt: Learnt) -> RewardResult:
    """Evaluates on the held-out scores, and writes everything down."""
    held_out, pairs = learnt.held_out, learnt.pairs
    rows, (scores_a, scores_b) = held_out.rows(), held_out.sides()
    result = RewardResult(
        config.out / "model",
        learnt.fitted,
        learnt.data,
        evaluate(rows, scores_a, scores_b, words_learnt(pairs, config).differences(rows)),
        learnt.scale.calibration,
        learnt.scale.logit_scale,
        learnt.new_head,
        sureness_of(held_out.differences(), held_out.shares(), linked_groups(rows)),
        report_annotators(pairs, learnt.reliabilities),
        labels_needed(pairs, rows, config),
        compare_members(held_out),
        learnt.adapters,
    )
    _write_report(result, config)
    _show(rows[: config.samples], scores_a, scores_b, config)
    return result


def _write_report(result: RewardResult, config: RewardTrainConfig) -> None:
    document = {name: value for name, value in asdict(result).items() if name != "model_folder"}
    document |= {"sources": config.sources(), "loss": config.loss()}
    (config.out / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_card(config.out / "card.html", config, result)


def _metrics(result: RewardResult) -> dict[str, float]:
    shares = result.evaluation.shares()
    found = {f"eval/accuracy_{name}": share.value for name, share in shares.items() if share is not None}
    found |= {"eval/score_std": result.calibration.std, "eval/logit_scale": result.logit_scale}
    return found | ({"eval/disagreement": result.members.disagreement} if result.members else {})


def _show(rows: Sequence[Comparison], scores_a: list[float], scores_b: list[float], config: RewardTrainConfig) -> None:
    shown: list[dict[str, Any]] = [
        {"prompt": row.prompt, "a": row.a, "b": row.b, "label": row.label, "score a": a, "score b": b}
        for row, a, b in zip(rows, scores_a, scores_b, strict=False)
    ]
    if shown:
        write_rows(config.out / "samples.jsonl", shown)
        show_samples("held out", shown, ("prompt", "a", "b", "label", "score a", "score b"), visible=config.progress)

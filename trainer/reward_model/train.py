"""A reward model from comparisons, start to finish: split, fit, evaluate, calibrate, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from palate.models.manifest import Manifest
from palate.models.rendering import Renderer
from trainer.data.comparisons import Comparison
from trainer.data.lines import write_rows
from trainer.data.votes import Pair
from trainer.fit import Fitted, Task, fit, prepare_process
from trainer.model_folder import save_model_folder
from trainer.padding import checked_pad
from trainer.reward_model.annotators import report_annotators
from trainer.reward_model.baseline import labels_needed, words_learnt
from trainer.reward_model.calibrate import calibration_of, fitted_logit_scale, sureness_of
from trainer.reward_model.card import write_card
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.evaluate import evaluate
from trainer.reward_model.labels import check_annotators
from trainer.reward_model.lesson import Lesson, make_lesson
from trainer.reward_model.result import RewardResult
from trainer.reward_model.rows import RenderedPair, collator, render_pairs, scores_of
from trainer.reward_model.splits import DataCounts, Split, counts_of, split_data
from trainer.reward_model.start import Start, load_start
from trainer.run_folder import begin_run, check_folder
from trainer.samples import show_samples


def run_reward(config: RewardTrainConfig) -> RewardResult:
    """Trains, measures, and writes model/, report.json and card.html.

    Raises:
        DataError: The comparisons cannot be used or split.
        FolderError: The model cannot be trained like this.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    prepare_process(config)
    check_folder(config)
    split = split_data(config)
    if config.annotators == "reliability":
        check_annotators(split.learnt)
    start = load_start(config)
    renderer = Renderer.from_folder(config.model, start.manifest)
    pad_id = _pad_id(start, renderer)
    (learnt, validation, held_out), data = _rendered(split, renderer)
    lesson = make_lesson(config, start.classifier, learnt, validation)
    collate, rows = collator(pad_id), (lesson.rows, lesson.validation)
    with begin_run(config) as writer:
        fitted = fit(Task("reward model", lesson.model, *rows, collate, lesson.loss, config.patience), config, writer)
        sides = [scores_of(start.classifier, [getattr(row, s) for row in held_out], pad_id) for s in ("a", "b")]
        result = _measured(config, start, data, fitted, lesson, [row.pair for row in held_out], sides)
        writer.log(fitted.steps, _metrics(result))
        return result


def _rendered(split: Split, renderer: Renderer) -> tuple[list[tuple[RenderedPair, ...]], DataCounts]:
    """The three parts as the model reads them, and what became of the data."""
    parts = (split.learnt, split.validation, split.held_out)
    found = [render_pairs(part, renderer) if part else ((), 0) for part in parts]
    kept = [part for part, _ in found]
    return kept, counts_of(split, [len(part) for part in kept], sum(count for _, count in found))


def _pad_id(start: Start, renderer: Renderer) -> int:
    """The padding's id; it is also written to config.json, where transformers looks for it."""
    pad_id = checked_pad(renderer) if start.manifest.architecture == "decoder" else renderer.pad_id or 0
    start.model.config.pad_token_id = pad_id
    return pad_id


def _measured(
    config: RewardTrainConfig,
    start: Start,
    data: DataCounts,
    fitted: Fitted,
    lesson: Lesson,
    held_out: Sequence[Pair],
    sides: Sequence[Tensor],
) -> RewardResult:
    """Evaluates and calibrates on the held-out scores, and writes everything down."""
    rows, shares = [pair.judged() for pair in held_out], [pair.share for pair in held_out]
    scores_a, scores_b = (side.tolist() for side in sides)
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    calibration = calibration_of([*scores_a, *scores_b])
    logit_scale = fitted_logit_scale(differences, shares)
    manifest: Manifest = replace(start.manifest, calibration=calibration, logit_scale=logit_scale)
    result = RewardResult(
        save_model_folder(start.model, config.model, manifest, config.out / "model"),
        fitted,
        data,
        evaluate(rows, scores_a, scores_b, words_learnt(lesson.pairs, config).differences(rows)),
        calibration,
        logit_scale,
        start.new_head,
        sureness_of(differences, shares),
        report_annotators(lesson.pairs, lesson.reliabilities()),
        labels_needed(lesson.pairs, rows, config),
    )
    _write_report(result, config)
    _show(rows[: config.samples], scores_a, scores_b, config)
    return result


def _write_report(result: RewardResult, config: RewardTrainConfig) -> None:
    document = {name: value for name, value in asdict(result).items() if name != "model_folder"}
    document["loss"] = config.loss()
    (config.out / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    write_card(config.out / "card.html", config, result)


def _metrics(result: RewardResult) -> dict[str, float]:
    shares = {f"eval/accuracy_{name}": share for name, share in asdict(result.evaluation).items() if share}
    found = {name: float(share["value"]) for name, share in shares.items()}
    return found | {"eval/score_std": result.calibration.std, "eval/logit_scale": result.logit_scale}


def _show(rows: Sequence[Comparison], scores_a: list[float], scores_b: list[float], config: RewardTrainConfig) -> None:
    shown: list[dict[str, Any]] = [
        {"prompt": row.prompt, "a": row.a, "b": row.b, "label": row.label, "score a": a, "score b": b}
        for row, a, b in zip(rows, scores_a, scores_b, strict=False)
    ]
    if shown:
        write_rows(config.out / "samples.jsonl", shown)
        show_samples("held out", shown, ("prompt", "a", "b", "label", "score a", "score b"), visible=config.progress)

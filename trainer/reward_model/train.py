"""A reward model from comparisons, start to finish: split, fit, evaluate, calibrate, write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from torch import Tensor

from palate.models.manifest import Calibration, Manifest
from palate.models.rendering import Renderer
from trainer.data.comparisons import Comparison, read_comparisons, split_by_group
from trainer.data.lines import DataError, write_rows
from trainer.fit import Fitted, Task, fit, prepare_process
from trainer.model_folder import save_model_folder
from trainer.padding import checked_pad
from trainer.reward_model.bag_of_words import BagOfWords
from trainer.reward_model.calibrate import calibration_of, fitted_logit_scale
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.evaluate import Evaluation, evaluate
from trainer.reward_model.rows import (
    RenderedComparison,
    collator,
    comparison_loss,
    fit_rows,
    render_comparisons,
    scores_of,
)
from trainer.reward_model.start import Start, load_start
from trainer.run_folder import begin_run, check_folder
from trainer.samples import show_samples

_VALIDATION_SHARE = 0.1
"""Share of the training groups on which early stopping looks; what is held out plays no part in any choice."""


@dataclass(frozen=True, slots=True)
class DataCounts:
    """Comparisons by what became of them."""

    learnt: int
    validation: int
    held_out: int
    duplicates: int
    identical: int
    empty: int
    too_long: int
    dropped_ties: int


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What training has made.

    Attributes:
        model_folder: The reward model, ready to be served.
        fitted: Steps and losses.
        data: How many comparisons were used, and how.
        evaluation: On held-out groups.
        calibration: Of the scores of held-out completions.
        logit_scale: Factor that makes differences probabilities.
        new_head: Whether the head was made for this run.
    """

    model_folder: Path
    fitted: Fitted
    data: DataCounts
    evaluation: Evaluation
    calibration: Calibration
    logit_scale: float
    new_head: bool

    def summary(self) -> str:
        """What a person wants to know first, a line each."""
        shares = [
            (name.replace("_", " "), getattr(self.evaluation, name)) for name in self.evaluation.__dataclass_fields__
        ]
        lines = [
            f"  {name:<13} {share.value:.3f}  [{share.low:.3f}, {share.high:.3f}]  n = {share.count}"
            for name, share in shares
            if share is not None
        ]
        return "\n".join((f"{self.model_folder}: accuracy on held-out comparisons", *lines))


@dataclass(frozen=True, slots=True)
class _Split:
    learnt: tuple[Comparison, ...]
    validation: tuple[Comparison, ...]
    held_out: tuple[Comparison, ...]
    duplicates: int
    identical: int
    empty: int
    dropped_ties: int


def run_reward(config: RewardTrainConfig) -> RewardResult:
    """Trains, measures, and writes model/ and report.json.

    Raises:
        DataError: The comparisons cannot be used or split.
        FolderError: The model cannot be trained like this.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    prepare_process(config)
    check_folder(config)
    split, start = split_data(config), load_start(config)
    renderer = Renderer.from_folder(config.model, start.manifest)
    pad_id = _pad_id(start, renderer)
    parts = [
        render_comparisons(part, renderer) if part else ((), 0)
        for part in (split.learnt, split.validation, split.held_out)
    ]
    (learnt, _), (validation, _), (held_out, _) = parts
    with begin_run(config) as writer:
        fitted = fit(_task(config, start, pad_id, learnt, validation), config, writer)
        sides = [scores_of(start.classifier, [getattr(row, s) for row in held_out], pad_id) for s in ("a", "b")]
        counts = DataCounts(
            learnt=len(learnt),
            validation=len(validation),
            held_out=len(held_out),
            duplicates=split.duplicates,
            identical=split.identical,
            empty=split.empty,
            too_long=sum(count for _, count in parts),
            dropped_ties=split.dropped_ties,
        )
        result = _measured(config, start, counts, fitted, learnt, held_out, sides)
        writer.log(fitted.steps, _metrics(result))
        return result


def split_data(config: RewardTrainConfig) -> _Split:
    """Reads the comparisons; no group, and no prompt, is on both sides."""
    data, rng = read_comparisons(config.data), Random(config.seed)
    usable = tuple(row for row in data.rows if config.ties == "soft" or row.label != "tie")
    if not usable:
        raise DataError(f"{config.data} holds only ties; collect more comparisons, or learn them with --ties soft")
    if config.held_out is None:
        learnt, held_out = split_by_group(usable, config.held_out_share, rng)
    else:
        learnt, held_out = usable, read_comparisons(config.held_out).rows
        _check_apart(learnt, held_out, config.held_out)
    validation: tuple[Comparison, ...] = ()
    if config.patience:
        learnt, validation = split_by_group(learnt, _VALIDATION_SHARE, rng)
    ties = len(data.rows) - len(usable)
    return _Split(learnt, validation, held_out, data.duplicates, data.identical, data.empty, ties)


def _check_apart(learnt: Sequence[Comparison], held_out: Sequence[Comparison], file: Path) -> None:
    def keys(rows: Sequence[Comparison]) -> set[str]:
        return {text for row in rows for text in ((row.prompt,) if row.prompt else (row.a, row.b))}

    if shared := keys(learnt) & keys(held_out):
        raise DataError(
            f"{len(shared)} prompts or texts of {file} are also in the training data; accuracy on them would say "
            "nothing, so take them out of one of the files"
        )


def _pad_id(start: Start, renderer: Renderer) -> int:
    """The padding's id; it is also written to config.json, where transformers looks for it."""
    pad_id = checked_pad(renderer) if start.manifest.architecture == "decoder" else renderer.pad_id or 0
    start.model.config.pad_token_id = pad_id
    return pad_id


def _task(
    config: RewardTrainConfig,
    start: Start,
    pad_id: int,
    learnt: Sequence[RenderedComparison],
    validation: Sequence[RenderedComparison],
) -> Task:
    return Task(
        "reward model",
        start.classifier,
        fit_rows(learnt, config.margin),
        fit_rows(validation, config.margin),
        collator(pad_id),
        comparison_loss(config.label_smoothing, config.centring),
        config.patience,
    )


def _measured(
    config: RewardTrainConfig,
    start: Start,
    counts: DataCounts,
    fitted: Fitted,
    learnt: Sequence[RenderedComparison],
    held_out: Sequence[RenderedComparison],
    sides: Sequence[Tensor],
) -> RewardResult:
    """Evaluates and calibrates on the held-out scores, and writes everything down."""
    rows = [row.comparison for row in held_out]
    scores_a, scores_b = (side.tolist() for side in sides)
    words = BagOfWords([row.comparison for row in learnt]).differences(rows)
    evaluation = evaluate(rows, scores_a, scores_b, words)
    calibration = calibration_of([*scores_a, *scores_b])
    differences = [a - b for a, b in zip(scores_a, scores_b, strict=True)]
    logit_scale = fitted_logit_scale(differences, [row.preference for row in rows])
    manifest: Manifest = replace(start.manifest, calibration=calibration, logit_scale=logit_scale)
    folder = save_model_folder(start.model, config.model, manifest, config.out / "model")
    result = RewardResult(folder, fitted, counts, evaluation, calibration, logit_scale, start.new_head)
    _write_report(result, config)
    _show(rows[: config.samples], scores_a, scores_b, config)
    return result


def _write_report(result: RewardResult, config: RewardTrainConfig) -> None:
    document = {name: value for name, value in asdict(result).items() if name != "model_folder"}
    document["loss"] = {name: getattr(config, name) for name in ("margin", "label_smoothing", "centring", "ties")}
    (config.out / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


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

"""One reward model: loaded, fitted, scored on what it has not seen, calibrated, and written as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from palate.models.classifier import MaskedClassifier
from palate.models.manifest import Calibration
from palate.models.rendering import Renderer
from trainer.data.votes import Pair
from trainer.fit import Fitted, Task, fit, prepare_process
from trainer.lora import dropout_modules
from trainer.metrics import MetricsWriter
from trainer.model_folder import save_model_folder
from trainer.padding import checked_pad
from trainer.reward_model.adapters import AdaptersReport, as_served, report_adapters
from trainer.reward_model.annotators import Reliability
from trainer.reward_model.calibrate import calibration_of, fitted_logit_scale
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.held_out import HeldOut
from trainer.reward_model.lesson import Lesson, make_lesson
from trainer.reward_model.rows import RenderedPair, collator, render_pairs, scores_of
from trainer.reward_model.splits import DataCounts, Split, counts_of
from trainer.reward_model.start import Start, load_start


@dataclass(frozen=True, slots=True)
class Scale:
    """What a folder says of its scores.

    Attributes:
        calibration: Where the scores of held-out completions lie.
        logit_scale: Factor that makes differences probabilities.
    """

    calibration: Calibration
    logit_scale: float


@dataclass(frozen=True, slots=True)
class Learnt:
    """A reward model that is trained and written.

    Attributes:
        fitted: Steps and losses.
        data: How many comparisons were used, and how.
        pairs: What could be learnt from, before anything was drawn from it.
        held_out: With the scores of this model, or of its heads.
        scale: As the folder has it.
        reliabilities: Of every annotator; None where they are not learnt.
        new_head: Whether its head was made for this run.
        adapters: Through which it learnt; None where all weights did.
    """

    fitted: Fitted
    data: DataCounts
    pairs: tuple[Pair, ...]
    held_out: HeldOut
    scale: Scale
    reliabilities: Mapping[str, Reliability] | None
    new_head: bool
    adapters: AdaptersReport | None


@dataclass(frozen=True, slots=True)
class Ready:
    """A model and what it is to learn, before anything is written.

    Attributes:
        start: The model.
        pad_id: What pads its rows.
        learnt: What there is to learn from.
        held_out: What it is measured on.
        data: How many comparisons are used, and how.
        lesson: What is learnt of each pair, and the loss.
    """

    start: Start
    pad_id: int
    learnt: tuple[RenderedPair, ...]
    held_out: tuple[RenderedPair, ...]
    data: DataCounts
    lesson: Lesson


def get_ready(config: RewardTrainConfig, split: Split) -> Ready:
    """Loads the model and renders its data; writes nothing.

    Raises:
        FolderError: The model cannot be trained like this.
        NotAdaptable: The adapters asked for do not fit the model.
        DataError: The comparisons cannot be rendered, or have nothing to teach.
    """
    prepare_process(config)
    start = load_start(config)
    renderer = Renderer.from_folder(config.model, start.manifest)
    pad_id = _pad_id(start, renderer)
    (learnt, validation, held_out), data = _rendered(split, renderer)
    return Ready(start, pad_id, learnt, held_out, data, make_lesson(config, start.classifier, learnt, validation))


def learn(config: RewardTrainConfig, ready: Ready, writer: MetricsWriter) -> Learnt:
    """Trains and writes model/.

    Raises:
        DataError: All scores are the same in the end.
        FitError: The loss is no longer finite.
    """
    start, lesson = ready.start, ready.lesson
    collate, rows = collator(ready.pad_id), (lesson.rows, lesson.validation)
    dropout = dropout_modules(start.model)
    task = Task("reward model", lesson.model, *rows, collate, lesson.loss, config.patience, dropout)
    fitted = fit(task, config, writer)
    served = as_served(start)
    scored = _scored(ready, served.classifier)
    scale = scale_of(scored)
    manifest = replace(start.manifest, calibration=scale.calibration, logit_scale=scale.logit_scale)
    save_model_folder(served.model, config.model, manifest, config.out / "model")
    pairs = tuple(row.pair for row in ready.learnt)
    adapters = report_adapters(start.model, config.lora)
    return Learnt(fitted, ready.data, pairs, scored, scale, lesson.reliabilities(), start.new_head, adapters)


def _scored(ready: Ready, classifier: MaskedClassifier) -> HeldOut:
    """What the model says of the pairs it has not seen."""
    sides = ([getattr(row, side) for row in ready.held_out] for side in ("a", "b"))
    scores = [scores_of(classifier, texts, ready.pad_id) for texts in sides]
    return HeldOut(tuple(row.pair for row in ready.held_out), *scores)


def scale_of(held_out: HeldOut) -> Scale:
    """Where mean scores lie, and how sure their differences are.

    Raises:
        DataError: All scores are the same.
    """
    scores_a, scores_b = held_out.sides()
    calibration = calibration_of([*scores_a, *scores_b])
    return Scale(calibration, fitted_logit_scale(held_out.differences(), held_out.shares()))


def _rendered(split: Split, renderer: Renderer) -> tuple[list[tuple[RenderedPair, ...]], DataCounts]:
    """The three parts as the model reads them, and what became of the data."""
    parts = (split.learnt, split.validation, split.held_out)
    found = [render_pairs(part, renderer) if part else ((), 0) for part in parts]
    kept = [part for part, _ in found]
    return kept, counts_of(split, [len(part) for part in kept], [count for _, count in found])


def _pad_id(start: Start, renderer: Renderer) -> int:
    """The padding's id; it is also written to config.json, where transformers looks for it."""
    pad_id = checked_pad(renderer) if start.manifest.architecture == "decoder" else renderer.pad_id or 0
    start.model.config.pad_token_id = pad_id
    return pad_id

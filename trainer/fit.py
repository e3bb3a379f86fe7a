"""The optimisation that every supervised phase shares: transformers' Trainer with our losses, metrics and progress.

Why this one: on tiny models its loop costs about 10 ms a step over bare PyTorch and batches by length, which saves
more than that; TRL's SFTTrainer on the same rows took a third longer (it measures entropy and accuracy every step) and
would tokenise a second time, in another way than the services do.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from trainer.errors import Failure, TrainerError
from trainer.fit_config import FitConfig
from trainer.metrics import MetricsWriter
from trainer.run_folder import checkpoints_of, is_whole, newest_checkpoint
from trainer.written import written

Batch: TypeAlias = dict[str, Tensor]
FitRow: TypeAlias = Mapping[str, Any]

_LOGGED = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "epoch": "train/epoch",
    "eval_loss": "eval/loss",
}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class FitError(TrainerError):
    """The loss is no longer finite; the message says what to change."""

    failure = Failure.NOT_FINITE


@dataclass(frozen=True, slots=True)
class Task:
    """What is learnt.

    Attributes:
        name: Shown beside the progress bar.
        model: Any module; used in evaluation mode throughout, so that dropout is off.
        rows: Examples; each has "input_ids", whose length groups similar rows into batches.
        held_out: Examples that are only evaluated, after each epoch; may be empty.
        collate: Makes a batch of rows.
        loss: Mean loss of a batch.
        patience: Epochs without a lower held-out loss after which training ends and the best weights come back;
            0 = always to the end.
        dropout: Modules of the model that are in training mode in a training step all the same.
    """

    name: str
    model: nn.Module
    rows: Sequence[FitRow]
    held_out: Sequence[FitRow]
    collate: Callable[[list[FitRow]], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    patience: int = 0
    dropout: Sequence[nn.Module] = ()


@dataclass(frozen=True, slots=True)
class Fitted:
    """How training went.

    Attributes:
        steps: Steps that are done.
        loss: Mean over the last logged steps; None where a resumed run had nothing left to do.
        held_out_loss: After the last epoch; None where nothing was held out.
    """

    steps: int
    loss: float | None
    held_out_loss: float | None


def prepare_process(config: FitConfig) -> None:
    """Sets threads and every seed of this process, and keeps transformers from drawing bars of its own."""
    torch.set_num_threads(config.threads)
    set_seed(config.seed)
    logging: Any = transformers_logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def fit(task: Task, config: FitConfig, writer: MetricsWriter) -> Fitted:
    """Trains `task.model` in place.

    Raises:
        FitError: The loss or a gradient is no longer finite.
        NotWritten: A checkpoint finds no room; the one before it stays.
    """
    observer = _Observer(task.name, writer, visible=config.progress)
    callbacks: list[TrainerCallback] = [observer]
    if task.patience:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=task.patience))
    trainer = _Fitter(task, _arguments(task, config), callbacks)
    checkpoint = newest_checkpoint(config.out) if config.resume else None
    with observer:
        trainer.train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
    task.model.eval()
    return Fitted(trainer.state.global_step, observer.last.get("train/loss"), observer.last.get("eval/loss"))


class _Fitter(Trainer):
    """Trainer with a loss that is a function of model and batch."""

    def __init__(self, task: Task, arguments: TrainingArguments, callbacks: list[TrainerCallback]) -> None:
        super().__init__(
            model=task.model,
            args=arguments,
            data_collator=task.collate,
            train_dataset=task.rows,
            eval_dataset=task.held_out or None,
            callbacks=callbacks,
        )
        self._loss, self._dropout = task.loss, task.dropout
        self.remove_callback(PrinterCallback)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """A checkpoint that could not be written whole goes, so that a resumed run finds the one before it."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with written(folder):
                super()._save_checkpoint(model, trial)
        except BaseException:
            if not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The task's loss, without the model's own dropout, which the Trainer has just switched on to train."""
        learning = model.training
        model.eval()
        for module in self._dropout:
            module.train(learning)
        loss = self._loss(model, inputs)
        return (loss, {}) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The loss of a held-out batch."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None


class _Observer(TrainerCallback):
    """Writes metrics, moves the bar, and stops a run whose numbers are no longer numbers."""

    def __init__(self, name: str, writer: MetricsWriter, *, visible: bool) -> None:
        self.last: dict[str, float] = {}
        self._writer = writer
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not visible)
        self._task = self._bar.add_task(name, total=None, told="")

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Lets a resumed run log and save as it is told now; the Trainer would go on as its checkpoint was told."""
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves the bar; the last step is always logged."""
        self._bar.update(self._task, completed=state.global_step, total=state.max_steps)
        control.should_log = control.should_log or state.global_step == state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Passes on what the Trainer reports."""
        metrics = {_LOGGED[name]: float(value) for name, value in (logs or {}).items() if name in _LOGGED}
        if broken := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise FitError(
                f"step {state.global_step}: {', '.join(broken)} is not finite; lower --learning-rate, lengthen the "
                "warm-up (--warmup-share), or look for broken rows in the data"
            )
        if set(metrics) - {"train/epoch"}:
            self.last.update(self._writer.log(state.global_step, metrics))
        if "train/loss" in metrics:
            self._bar.update(self._task, told=f"loss {metrics['train/loss']:.4f}")


def _arguments(task: Task, config: FitConfig) -> TrainingArguments:
    saving: dict[str, Any] = {"save_strategy": "no"}
    if config.checkpoint_every:
        saving = {"save_strategy": "steps", "save_steps": config.checkpoint_every, "save_total_limit": 2}
    if task.patience:
        saving = {"save_strategy": "epoch", "save_total_limit": 2, "load_best_model_at_end": True}
    return TrainingArguments(
        output_dir=str(checkpoints_of(config.out)),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=config.warmup_share,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="epoch" if task.held_out else "no",
        train_sampling_strategy="group_by_length",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        **saving,
    )

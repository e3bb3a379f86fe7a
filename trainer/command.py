"""`palate train`: the phases of training. Torch is imported by the phase that runs, not by its help."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from palate.exit_codes import INTERRUPTED, NOT_GOOD, STOPPED
from trainer.errors import RESUMED

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train; `palate train sft --help` lists the flags.")
FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

Result = TypeVar("Result")


@app.command(context_settings=FORWARD, add_help_option=False)
def pretrain(context: typer.Context) -> None:
    """Before phase 1, where there is no model yet: a small base model from plain text."""
    from trainer.pretrain_config import PretrainConfig

    config = PretrainConfig.from_command_line(context.args, prog="palate train pretrain")
    share_processors()
    from trainer.pretrain import run_pretrain

    result = run_or_explain("palate train pretrain", lambda: run_pretrain(config))
    print(f"{result.model_folder}: {result.parameters} parameters, {result.tokens} tokens, {result.fitted.steps} steps")


@app.command(context_settings=FORWARD, add_help_option=False)
def sft(context: typer.Context) -> None:
    """Phase 1: fine-tune a language model on demonstrations."""
    from trainer.sft_config import SftConfig

    config = SftConfig.from_command_line(context.args, prog="palate train sft")
    share_processors()
    from trainer.sft import run_sft

    result = run_or_explain("palate train sft", lambda: run_sft(config))
    loss = "" if result.fitted.loss is None else f", loss {result.fitted.loss:.4f}"
    print(f"{result.model_folder}: {result.fitted.steps} steps{loss}")
    print(f"{result.rows} demonstrations learnt, {result.too_long} left out because they are too long")


@app.command(context_settings=FORWARD, add_help_option=False)
def reward(context: typer.Context) -> None:
    """Phase 2: train a reward model on comparisons."""
    from trainer.reward_model.config import RewardTrainConfig

    config = RewardTrainConfig.from_command_line(context.args, prog="palate train reward")
    share_processors()
    from trainer.reward_model.train import run_reward

    result = run_or_explain("palate train reward", lambda: run_reward(config))
    print(result.summary())


@app.command(context_settings=FORWARD, add_help_option=False)
def ppo(context: typer.Context) -> None:
    """Phase 3: train a policy against a reward service with PPO."""
    from trainer.config import PPOConfig

    config = PPOConfig.from_command_line(context.args, prog="palate train ppo")
    share_processors()
    from trainer.ppo.run import run_rank

    result = run_or_explain("palate train ppo", lambda: run_rank(config))
    if result is not None:  # the other ranks leave the telling to the first
        print(f"{result.model_folder}: {result.steps} steps{_told(result.metrics)}")
        if result.end.reason != "STEPS":
            print(f"ended early by a brake ({result.end.reason}): {result.end.told}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Folder of a PPO run, which may still go on.")]) -> None:
    """Write report.html of a PPO run from what it has recorded so far; a run that ends does so by itself."""
    from trainer.ppo.report import write_report

    print(run_or_explain("palate train report", lambda: write_report(run), lambda: "nothing is written"))


def run_or_explain(
    prog: str, run: Callable[[], Result], stopped: Callable[[], str] | None = None, code: int = NOT_GOOD
) -> Result:
    """What `run` returns; where it fails for a reason one can mend, prints it and exits with `code`, or with 2 where
    no other try of the same would help.

    On Ctrl-C it prints what `stopped` says, what is kept and how to go on, and exits with 130. None = by --resume,
    which a run whose file finds no room is told of too.
    """
    from palate.client.errors import PalateError
    from palate.file_errors import words_of
    from palate.models.folder import FolderError
    from palate.models.frames import RenderingError
    from trainer.errors import NotWritten, TrainerError
    from trainer.ppo.errors import TrainingError

    try:
        return run()
    except (TrainerError, TrainingError, FolderError, RenderingError, PalateError, OSError) as error:
        remedy = f". Once it can be, {RESUMED}" if stopped is None and isinstance(error, NotWritten) else ""
        print(f"{prog}: {words_of(error)}{remedy}", file=sys.stderr)
        raise SystemExit(STOPPED if no_other_try_mends(error) else code) from error
    except KeyboardInterrupt:
        print(f"{prog}: stopped; {stopped() if stopped else RESUMED}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None


def no_other_try_mends(error: Exception) -> bool:
    """Whether the same command would fail again, so that whoever starts failed trainings again should not.

    What a disk or a service is the cause of may have passed by then, and so is none of this.
    """
    from palate.models.folder import FolderError
    from palate.models.frames import RenderingError
    from trainer.data.lines import DataError
    from trainer.ppo.errors import BrakeUnusable, CheckpointRefused, PromptsUnusable, RewardFunctionUnusable
    from trainer.run_folder import RunFolderError

    files = (DataError, FolderError, RenderingError, RunFolderError)
    settings = (BrakeUnusable, CheckpointRefused, PromptsUnusable, RewardFunctionUnusable)
    cause = error.__cause__
    if isinstance(cause, OSError) and not isinstance(cause, _NOT_THERE):
        return False
    return isinstance(cause, FolderError) or isinstance(error, (*files, *settings, *_NOT_THERE))


_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def share_processors() -> None:
    """Lets idle threads sleep instead of spin: beside servers on the same cores a step is several times faster.

    Read by OpenMP when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _told(metrics: Mapping[str, Any]) -> str:
    shown = {name: metrics[name] for name in ("objective/scores", "objective/kl") if name in metrics}
    return "".join(f", {name} {value:.3f}" for name, value in shown.items())

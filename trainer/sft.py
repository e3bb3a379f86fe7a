"""Supervised fine-tuning: the loss is on the completion's tokens alone, its end-of-sequence token among them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from palate.models.folder import FolderError, ModelFolder
from palate.models.manifest import Manifest, load_manifest
from palate.models.rendering import Renderer, RenderingError
from trainer.data.demonstrations import Demonstration, read_demonstrations
from trainer.data.lines import DataError, append_rows
from trainer.fit import Batch, FitRow, Fitted, Task, fit, prepare_process
from trainer.model_folder import copy_tokenizer, length_limit, load_causal_model, save_model_folder
from trainer.padding import checked_pad, mask_of, pad_right
from trainer.run_folder import begin_run, check_folder
from trainer.samples import show_samples
from trainer.sft_config import SftConfig

IGNORED = -100
"""Label of tokens without loss."""


@dataclass(frozen=True, slots=True)
class SftResult:
    """What fine-tuning has made.

    Attributes:
        model_folder: The policy, ready to be served.
        fitted: Steps and losses.
        rows: Demonstrations that were learnt from.
        too_long: Demonstrations left out because they are longer than the limit.
        ended_share: Share of the samples that ended by themselves; None without samples.
    """

    model_folder: Path
    fitted: Fitted
    rows: int
    too_long: int
    ended_share: float | None


def run_sft(config: SftConfig) -> SftResult:
    """Fine-tunes and writes the policy.

    Raises:
        FolderError: The model cannot be fine-tuned like this, e.g. because it pads with its end-of-sequence token.
        DataError: The demonstrations cannot be used.
        RunFolderError: The folder of the run holds another run.
        FitError: The loss is no longer finite.
    """
    prepare_process(config)
    check_folder(config)
    with _start_folder(config) as source:
        manifest = _policy_manifest(config, source)
        renderer = Renderer.from_folder(source, manifest)
        pad_id, limit = checked_pad(renderer), length_limit(config.model, config.max_tokens, manifest)
        learnt, held_out = _split(read_demonstrations(config.data), config)
        rows, too_long = _render(learnt, renderer, limit, config.data)
        held_out_rows, _ = _render(held_out, renderer, limit, config.data)
        model = load_causal_model(config.model)
        task = Task("SFT", model, rows, held_out_rows, collator(pad_id), completion_loss)
        with begin_run(config) as writer:
            fitted = fit(task, config, writer)
            folder = save_model_folder(model, source, manifest, config.out / "model")
            ended = _sample(model, renderer, held_out or learnt, config, fitted.steps)
            return SftResult(folder, fitted, len(rows), too_long, ended)


def demonstration_row(ids: Sequence[int], completion_mask: Sequence[int]) -> FitRow:
    """Token ids with labels: the id where the mask is 1, no loss elsewhere."""
    labels = [token if wanted else IGNORED for token, wanted in zip(ids, completion_mask, strict=True)]
    return {"input_ids": list(ids), "labels": labels}


def collator(pad_id: int) -> Callable[[list[FitRow]], Batch]:
    """Pads rows on the right; padding is masked and has no loss."""

    def collate(rows: list[FitRow]) -> Batch:
        ids = [row["input_ids"] for row in rows]
        return {
            "input_ids": pad_right(ids, pad_id),  # (B, T)
            "attention_mask": mask_of(ids),
            "labels": pad_right([row["labels"] for row in rows], IGNORED),
        }

    return collate


def completion_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats over all labelled tokens of the batch; a scalar."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    predicted, wanted = logits[:, :-1], batch["labels"][:, 1:]  # (B, T-1, V), (B, T-1)
    return nn.functional.cross_entropy(predicted.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED)


@contextmanager
def _start_folder(config: SftConfig) -> Iterator[Path]:
    """Where tokenizer and template come from: the model's folder, or a passing copy with the given template."""
    if config.chat_template is None:
        yield config.model
        return
    if not config.chat_template.is_file():
        raise FolderError(f"the chat template {config.chat_template} does not exist")
    given = ModelFolder(config.model)
    _ = given.tokenizer, given.config  # complaints name the given folder, not its copy
    with TemporaryDirectory() as name:
        folder = Path(name)
        copy_tokenizer(config.model, folder)
        for file in ("config.json", "palate.json"):
            if given.has(file):
                shutil.copyfile(config.model / file, folder / file)
        shutil.copyfile(config.chat_template, folder / "chat_template.jinja")
        yield folder


def _policy_manifest(config: SftConfig, source: Path) -> Manifest:
    loaded = load_manifest(source).manifest
    if loaded.kind != "policy":
        raise FolderError(f"{config.model} is a reward model; fine-tuning starts from a causal language model")
    if config.template == "join":
        has_bos = ModelFolder(source).special_token("bos_token") is not None
        return replace(loaded, template_kind="join", add_bos=has_bos)
    if config.template == "chat" or config.chat_template is not None:
        return replace(loaded, template_kind="chat", add_bos=False)
    return loaded


def _split(
    demonstrations: Sequence[Demonstration], config: SftConfig
) -> tuple[list[Demonstration], list[Demonstration]]:
    """(learnt from, held out); demonstrations of one prompt stay together."""
    prompts = sorted({_key(demonstration) for demonstration in demonstrations})
    count = round(config.held_out_share * len(prompts))
    taken = set(Random(config.seed).sample(prompts, min(count, len(prompts) - 1)))
    learnt = [demonstration for demonstration in demonstrations if _key(demonstration) not in taken]
    return learnt, [demonstration for demonstration in demonstrations if _key(demonstration) in taken]


def _key(demonstration: Demonstration) -> str:
    return json.dumps(demonstration.prompt)


def _render(
    demonstrations: Sequence[Demonstration], renderer: Renderer, max_tokens: int, file: Path
) -> tuple[list[FitRow], int]:
    rows, too_long = [], 0
    for number, demonstration in enumerate(demonstrations):
        try:
            ids, mask = renderer.render_demonstration(demonstration.prompt, demonstration.completion)
        except RenderingError as error:
            raise DataError(f"{file}: demonstration {number} cannot be rendered: {error}") from error
        if len(ids) > max_tokens:
            too_long += 1
        else:
            rows.append(demonstration_row(ids, mask))
    if demonstrations and not rows:
        raise DataError(f"{file}: every demonstration is longer than {max_tokens} tokens; raise --max-tokens")
    return rows, too_long


def _sample(
    model: Any, renderer: Renderer, demonstrations: Sequence[Demonstration], config: SftConfig, step: int
) -> float | None:
    """Samples one completion of each of the first prompts, shows them, and returns the share that ended."""
    chosen = islice(_prompts_with_room(demonstrations, renderer, config.sample_tokens), config.samples)
    rows = [_sampled(model, renderer, *one) | {"step": step} for one in chosen]
    if not rows:
        return None
    append_rows(config.out / "samples.jsonl", rows)
    show_samples("SFT", rows, ("prompt", "completion", "ended"), visible=config.progress)
    return sum(bool(row["ended"]) for row in rows) / len(rows)


def _prompts_with_room(
    demonstrations: Sequence[Demonstration], renderer: Renderer, sample_tokens: int
) -> Iterator[tuple[Demonstration, list[int], int]]:
    """(demonstration, its prompt's ids, tokens to sample at most) where the model's limit leaves room for one."""
    for demonstration in demonstrations:
        ids = renderer.render_prompt(demonstration.prompt)
        if (room := renderer.manifest.max_tokens - len(ids)) > 0:
            yield demonstration, ids, min(sample_tokens, room)


@torch.no_grad()
def _sampled(
    model: Any, renderer: Renderer, demonstration: Demonstration, ids: Sequence[int], max_new_tokens: int
) -> dict[str, Any]:
    prompt_ids = torch.tensor([ids], device=model.device)  # (1, P)
    drawn = model.generate(
        prompt_ids,
        attention_mask=torch.ones_like(prompt_ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=renderer.eos_id,
        pad_token_id=renderer.pad_id,
    )[0, prompt_ids.shape[1] :].tolist()
    return {
        "prompt": demonstration.prompt,
        "completion": renderer.decode(drawn),
        "demonstration": demonstration.completion,
        "ended": renderer.eos_id in drawn,
    }

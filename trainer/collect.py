"""Collects comparisons: prompt → two completions from the policy service → an annotator's choice → JSONL."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Literal, TypeAlias

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import channel_options
from palate.client import GeneratedCompletion, PolicyClient, PolicyVersion, SamplingParams
from palate.settings import Settings
from trainer.access import AccessFields
from trainer.data.lines import DataError, append_rows, read_rows
from trainer.data.prompts import PromptRow, read_prompts
from trainer.simulation.annotators import Annotator, biased_panel, honest_panel, label
from trainer.simulation.gold import subject_of

_Pair: TypeAlias = tuple[GeneratedCompletion, GeneratedCompletion]

_CHUNK = 128
"""Prompts in one call at most; two completions of each stay within every server's default limits."""

_MAX_TRIES = 5
"""Prompts tried per comparison wanted, before a policy that always says the same is given up."""


class CollectConfig(AccessFields, Settings):
    """Samples pairs of completions from a policy service and has each pair compared."""

    model_config = SettingsConfigDict(env_prefix="PALATE_COLLECT_")

    policy: str = Field(description="Address of the policy service.")
    prompts: Path = Field(description='JSONL file, one {"prompt": "..."} a line; "group" keeps prompts together.')
    out: Path = Field(description="JSONL file of comparisons; one that exists is gone on with.")
    pairs: int = Field(default=1000, ge=1, le=10_000_000, description="Comparisons that the file shall hold.")
    labeller: Literal["simulated"] = Field(default="simulated", description="Who compares: a simulated panel.")
    panel: Literal["honest", "biased"] = Field(
        default="honest", description='"honest" errs at random; "biased" likes flattery, length and hedging.'
    )
    label_error: float = Field(
        default=0.2, ge=0, lt=0.5, description="How often the honest panel's labels contradict the true preference."
    )
    flip_rate: float = Field(
        default=0.1, ge=0, lt=0.5, description="How often the biased panel names what it likes less."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the order of prompts, every draw and every label.")
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits.")
    max_new_tokens: int = Field(default=64, ge=1, description="Longest completion in tokens.")
    timeout: float = Field(default=120.0, gt=0, description="Seconds for one call.")
    concurrency: int = Field(default=3, ge=1, le=64, description="Calls at a time; changes speed, not results.")
    progress: bool = Field(default=True, description="Show a progress bar.")


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What was collected.

    Attributes:
        out: The file.
        comparisons: Rows it holds now.
        resumed: Rows it held before.
        identical: Pairs left out because both completions were the same.
        empty: Pairs left out because a completion had no text.
    """

    out: Path
    comparisons: int
    resumed: int
    identical: int
    empty: int


@dataclass(frozen=True, slots=True)
class _Place:
    """One attempt: the same seed and number give the same prompt, draws and label, whatever came before."""

    number: int
    prompt: PromptRow
    seed: int


def run_collect(config: CollectConfig) -> CollectResult:
    """Collects until the file holds `pairs` comparisons.

    Raises:
        DataError: The prompts cannot be used, the file was collected differently, or the policy repeats itself.
        PalateError: The policy service refuses, or is not there, or a file with certificates or a token cannot be used;
            what was collected stands, and can be gone on with.
    """
    prompts, panel = read_prompts(config.prompts), make_panel(config)
    _check_world(config.prompts, prompts)
    options = channel_options(config.access())
    with PolicyClient(config.policy, timeout=config.timeout, options=options) as policy:
        version = policy.policy_info().policy_version
        done = _resume(config, version, prompts)
        held, identical, empty = len(done), 0, 0
        with _bar(config) as bar, closing(_drawn(policy, prompts, config, version, _next_number(done))) as drawn:
            task = bar.add_task("collect", total=config.pairs, completed=held)
            while held < config.pairs:
                rows = []
                for place, pair in next(drawn):
                    first, second = pair
                    if not (first.text.strip() and second.text.strip()):
                        empty += 1
                    elif first.text == second.text:
                        identical += 1
                    else:
                        rows.append(_row(place, pair, panel, config, version))
                rows = rows[: config.pairs - held]
                append_rows(config.out, rows)
                held += len(rows)
                bar.update(task, completed=held)
    return CollectResult(config.out, held, len(done), identical, empty)


def _check_world(file: Path, prompts: Sequence[PromptRow]) -> None:
    """The simulated panel can judge answers to questions of its own world alone; said before anything is drawn."""
    for number, prompt in enumerate(prompts, 1):
        try:
            subject_of(prompt.text)
        except ValueError as error:
            raise DataError(
                f"{file}, prompt {number}: {error}. The simulated panel judges answers about the simulated world "
                '(trainer/simulation/lexicon.py) alone, e.g. to "Should I open a bakery?"; have answers to other '
                "prompts compared by people, and train on their file of comparisons"
            ) from error


def make_panel(config: CollectConfig) -> tuple[Annotator, ...]:
    """The annotators that the configuration asks for.

    Raises:
        DataError: No honest panel can have this label error.
    """
    if config.panel == "biased":
        return biased_panel(config.flip_rate)
    try:
        return honest_panel(config.label_error)
    except ValueError as error:
        raise DataError(f"label_error: {error}") from error


def _places(config: CollectConfig, prompts: Sequence[PromptRow], begin: int, count: int) -> Iterator[_Place]:
    """Attempts `begin`, `begin` + 1, …: passes over all prompts, each in an order of its own."""
    for number in range(begin, begin + count):
        turn, index = divmod(number, len(prompts))
        prompt = prompts[_order(config.seed, turn, len(prompts))[index]]
        yield _Place(number, prompt, Random(f"{config.seed}/draw/{number}").getrandbits(63))


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, size: int) -> tuple[int, ...]:
    return tuple(Random(f"{seed}/order/{turn}").sample(range(size), size))


def _drawn(
    policy: PolicyClient, prompts: Sequence[PromptRow], config: CollectConfig, version: PolicyVersion, begin: int
) -> Generator[list[tuple[_Place, _Pair]]]:
    """Chunks of attempts from number `begin` on, in their order; the service works on the next ones meanwhile.

    A service that decodes several calls together fills the places of short completions with the next call's.
    """
    chunk = min(_CHUNK, config.pairs)
    numbers = range(begin, _MAX_TRIES * config.pairs, chunk)
    with ThreadPoolExecutor(config.concurrency) as pool:
        calls = (list(_places(config, prompts, number, chunk)) for number in numbers)
        asked: deque[tuple[list[_Place], Future[list[_Pair]]]] = deque()
        try:
            for places in calls:
                asked.append((places, pool.submit(_sampled, policy, places, config, version)))
                if len(asked) == config.concurrency:
                    yield _answered(*asked.popleft())
            while asked:
                yield _answered(*asked.popleft())
        finally:
            for _, future in asked:
                future.cancel()
    raise DataError(
        f"after {_MAX_TRIES * config.pairs} prompts {config.out} still holds fewer than {config.pairs} comparisons: "
        "the policy nearly always says the same, or nothing; raise --temperature, or give other --prompts"
    )


def _answered(places: list[_Place], pairs: Future[list[_Pair]]) -> list[tuple[_Place, _Pair]]:
    return list(zip(places, pairs.result(), strict=True))


def _sampled(
    policy: PolicyClient, places: Sequence[_Place], config: CollectConfig, version: PolicyVersion
) -> list[_Pair]:
    """Two completions for each place, all drawn from the same weights."""
    found = list(
        policy.generate(
            [place.prompt.text for place in places],
            sampling=_sampling(config),
            completions_per_prompt=2,
            seeds=[place.seed for place in places],
            required_policy_version=version,
        )
    )
    by_index = {(completion.prompt_index, completion.completion_index): completion for completion in found}
    return [(by_index[index, 0], by_index[index, 1]) for index in range(len(places))]


def _row(
    place: _Place,
    pair: _Pair,
    panel: Sequence[Annotator],
    config: CollectConfig,
    version: PolicyVersion,
) -> dict[str, Any]:
    """The comparison as it is written; which draw is "a" is as random as the draws, so sides need no swapping."""
    rng = Random(f"{config.seed}/label/{place.number}")
    a, b = (completion.text for completion in pair)
    vote = label(rng.choice(panel), place.prompt.text, a, b, rng)
    return {
        "prompt": place.prompt.text,
        "a": a,
        "b": b,
        "label": vote.choice,
        "annotator": vote.annotator,
        "seconds": vote.seconds,
        "group": place.prompt.group or place.prompt.text,
        "provenance": {
            **_conditions(config, version),
            "number": place.number,
            "draw_seed": place.seed,
            "finish_reasons": [completion.finish_reason.value for completion in pair],
        },
    }


def _sampling(config: CollectConfig) -> SamplingParams:
    return SamplingParams(temperature=config.temperature, max_new_tokens=config.max_new_tokens)


def _conditions(config: CollectConfig, version: PolicyVersion) -> dict[str, Any]:
    """What must be the same for all rows of a file."""
    noise = {"label_error": config.label_error} if config.panel == "honest" else {"flip_rate": config.flip_rate}
    return {
        "policy_version": asdict(version),
        "sampling": {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens},
        "labeller": config.labeller,
        "panel": {"name": config.panel, **noise},
        "seed": config.seed,
    }


def _resume(config: CollectConfig, version: PolicyVersion, prompts: Sequence[PromptRow]) -> list[Mapping[str, Any]]:
    """The rows that are already there, after taking out a last line that was cut off.

    Raises:
        DataError: They were collected under other conditions.
    """
    config.out.parent.mkdir(parents=True, exist_ok=True)
    if not config.out.exists() or not _without_cut_line(config.out):
        return []
    rows = [row.values for row in read_rows(config.out)]
    provenance, wanted = rows[-1].get("provenance", {}), _conditions(config, version)
    changed = [name for name, value in wanted.items() if provenance.get(name) != value]
    if not changed:
        (place,) = _places(config, prompts, int(provenance["number"]), 1)
        changed = ["prompts"] if place.prompt.text != rows[-1]["prompt"] else []
    if changed:
        raise DataError(
            f"{config.out} was collected with another {', '.join(changed)}; go on with the same, or give another --out"
        )
    return rows


def _without_cut_line(file: Path) -> bool:
    """Takes out what a killed run left of its last line; whether anything is there."""
    with file.open("rb+") as stream:
        data = stream.read()
        end = data.rfind(b"\n") + 1
        stream.truncate(end)
    return end > 0


def _next_number(rows: Sequence[Mapping[str, Any]]) -> int:
    return int(rows[-1]["provenance"]["number"]) + 1 if rows else 0


def _bar(config: CollectConfig) -> Progress:
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not config.progress)

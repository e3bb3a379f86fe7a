"""Best of n on data of one's own, start to finish: draw, have both judges score, write down, estimate, tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import channel_options
from palate.bulk.revision import ModelChanged
from palate.client import PolicyClient, PolicyInfo
from palate.waiting import when_ready
from trainer.best_of_n.config import BestOfNConfig
from trainer.best_of_n.drawing import Asked, Failing, Refused, all_prompts, check_bound, draw
from trainer.best_of_n.file import (
    ROWS_FILE,
    Answer,
    Answered,
    Judged,
    digest_of_prompts,
    read_done,
    settle_conditions,
    write,
)
from trainer.best_of_n.findings import find
from trainer.best_of_n.judges import Judge, opened_gold, opened_proxy
from trainer.best_of_n.report import Report, write_report
from trainer.data.lines import DataError, check_out
from trainer.in_order import in_order


def run_best_of_n(config: BestOfNConfig) -> Report:
    """Asks for what is not in OUT/drawn.jsonl, and writes the report of all of it.

    Raises:
        DataError: The prompts cannot be used, the folder holds something else or cannot be written, gold is the proxy,
            or too little has two scores.
        PalateError: A service refuses, or is not there; what was done stands, and can be gone on with.
    """
    prompts = all_prompts(config)
    asked = prompts[: config.limit]
    check_bound(len(asked), config.samples)
    check_out(config.out / ROWS_FILE)
    options = channel_options(config.access())
    try:
        with (
            PolicyClient(config.policy, timeout=config.timeout, options=options) as policy,
            opened_proxy(config) as proxy,
            opened_gold(config) as gold,
        ):
            _check_different(proxy, gold)
            info = when_ready(policy.policy_info, config.wait)
            settle_conditions(config.out, conditions := _conditions(config, info, prompts, proxy, gold))
            answered = _answered(config, asked, _Parties(policy, info, proxy, gold, config))
    except ModelChanged as error:
        raise DataError(str(error)) from error
    report = Report(conditions, find(answered, config.samples, config.variance_weight, config.seed))
    write_report(config.out, report)
    return report


@dataclass(frozen=True, slots=True)
class _Parties:
    """Who is asked about a prompt, one after the other."""

    policy: PolicyClient
    info: PolicyInfo
    proxy: Judge
    gold: Judge
    config: BestOfNConfig

    def ask(self, asked: Asked) -> Answer:
        """Completions of a prompt with their verdicts, or why there are none."""
        try:
            drawn = draw(self.policy, asked, self.config, self.info)
        except Refused as refused:
            return Answer(asked, refused=str(refused))
        except Failing as failing:
            return Answer(asked, failed=str(failing))
        texts, tokens = [each.text for each in drawn], [len(each.token_ids) for each in drawn]
        verdicts = (judge.judge(asked.prompt.text, texts) for judge in (self.proxy, self.gold))
        return Answer(asked, drawn, list(map(Judged, tokens, *verdicts)))


def _answered(config: BestOfNConfig, asked: list[Asked], parties: _Parties) -> list[Answered]:
    """All prompts, those that are done already among them."""
    done = read_done(config.out, config.samples)
    missing = [each for each in asked if each.number not in done]
    answers = in_order(parties.ask, missing, config.concurrency)
    with closing(answers), _bar(config, len(asked), len(asked) - len(missing)) as moved:
        for answer in answers:
            write(config.out, answer)
            done[answer.asked.number] = answer.in_numbers()
            moved()
    return [done[each.number] for each in asked]


def _check_different(proxy: Judge, gold: Judge) -> None:
    revision = proxy.identity["revision"]
    if gold.identity.get("revision") == revision:
        raise DataError(
            f"gold is the proxy: both serve revision {revision}, which would agree with itself; give another --gold"
        )


def _conditions(
    config: BestOfNConfig, info: PolicyInfo, prompts: list[Asked], proxy: Judge, gold: Judge
) -> dict[str, Any]:
    """What must be the same for all rows of a folder."""
    return {
        "policy": {"model": info.model, **asdict(info.policy_version)},
        "sampling": {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens},
        "samples": config.samples,
        "seed": config.seed,
        "prompts": digest_of_prompts(prompts),
        "proxy": dict(proxy.identity),
        "gold": dict(gold.identity),
    }


@contextmanager
def _bar(config: BestOfNConfig, asked: int, done: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not config.progress) as progress:
        task = progress.add_task("prompts", total=asked, completed=done)
        yield lambda: progress.advance(task)

"""Who says what a completion is worth: a reward service, or a user's function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Protocol, TypeAlias

from palate.access import channel_options
from palate.bulk.calls import Calls
from palate.bulk.commands import limits_of
from palate.bulk.items import Columns, Limits
from palate.bulk.revision import OneRevision
from palate.bulk.rows import Entry
from palate.bulk.scoring import error_text, scored_entries
from palate.client import ChannelOptions, Failed, RewardClient, ScoreResult
from palate.client.types import Aggregate, ItemErrorCode, ScoreOptions
from palate.waiting import say_waiting, when_ready
from trainer.best_of_n.config import BestOfNConfig
from trainer.data.lines import DataError
from trainer.ppo.function_process import FunctionProcess, NoAnswer, NoFunction, Raised

_TEXTS = Columns("prompt", "completion")


@dataclass(frozen=True, slots=True)
class Judgement:
    """A completion's score, and those of an ensemble's members, in their order; none where it has none."""

    score: float
    members: tuple[float, ...] = ()


Verdict: TypeAlias = Judgement | str
"""A judgement, or why there is none: a code, then what happened."""


class Judge(Protocol):
    """Judges completions; may be asked by several threads.

    Attributes:
        identity: What it is, to the bit: verdicts of another one do not mix with its own.
        members: How many members it has; 0 = it is no ensemble.
    """

    identity: Mapping[str, Any]
    members: int

    def judge(self, prompt: str, completions: Sequence[str]) -> list[Verdict]:
        """A verdict for each, in their order."""
        ...


class ServiceJudge:
    """A reward service, asked with patience while it is full or away; a request that it refuses is taken apart."""

    def __init__(self, calls: Calls, limits: Limits, identity: Mapping[str, Any], members: int) -> None:
        self._calls = calls
        self._limits = limits
        self.identity = identity
        self.members = members

    def judge(self, prompt: str, completions: Sequence[str]) -> list[Verdict]:
        """As `Judge.judge`.

        Raises:
            CallError: The service refuses all requests, or stayed away too long.
        """
        entries = (Entry("a completion", {"prompt": prompt, "completion": text}) for text in completions)
        batches = scored_entries(self._calls, entries, _TEXTS, self._limits)
        return [_verdict(result) for batch in batches for _, (result, _) in batch]


class FunctionJudge:
    """A user's function in a process of its own, called with all completions of a prompt."""

    members = 0

    def __init__(self, name: str, process: FunctionProcess) -> None:
        self._process = process
        self._one_at_a_time = Lock()
        self._name = name
        self.identity: Mapping[str, Any] = {"function": name, "sha256": process.digest}

    def judge(self, prompt: str, completions: Sequence[str]) -> list[Verdict]:
        """As `Judge.judge`; what raises, or gives no answer in time, judges none of them.

        Raises:
            DataError: It does not give one value for each, or is not there any more.
        """
        try:
            with self._one_at_a_time:
                values = self._process.call([prompt] * len(completions), completions)
        except (NoAnswer, Raised) as error:
            return [f"{ItemErrorCode.FAILED}: {error}"] * len(completions)
        except NoFunction as error:
            raise DataError(f"{self._name}: {error}") from error
        if len(values) != len(completions):
            raise DataError(
                f"{self._name} gave {len(values)} values for {len(completions)} completions; it is to give one for "
                "each, and None where there is none"
            )
        return [f"{ItemErrorCode.FAILED}: {each}" if isinstance(each, str) else Judgement(each) for each in values]


@contextmanager
def opened_proxy(config: BestOfNConfig) -> Iterator[Judge]:
    """What chooses.

    Raises:
        DataError: A weight for the variance of members is given, and there are none.
        PalateError: The service is not there, or refuses.
    """
    with _opened_service(config, config.proxy, config.proxy_model) as judge:
        if "variance_weight" in config.model_fields_set and not judge.members:
            raise DataError("the proxy is one model without members: leave --variance-weight out, or serve an ensemble")
        yield judge


@contextmanager
def opened_gold(config: BestOfNConfig) -> Iterator[Judge]:
    """What says how good a completion is.

    Raises:
        DataError: There is no such function.
        PalateError: The service is not there, or refuses.
    """
    if config.gold:
        with _opened_service(config, config.gold, config.gold_model) as judge:
            yield judge
        return
    try:
        process = FunctionProcess(config.gold_function, config.timeout)
    except NoFunction as error:
        raise DataError(f"--gold-function {config.gold_function}: {error}") from error
    with closing(process):
        yield FunctionJudge(config.gold_function, process)


@contextmanager
def _opened_service(config: BestOfNConfig, target: str, model: str) -> Iterator[Judge]:
    options: ChannelOptions = channel_options(config.access())
    with RewardClient(target, timeout=config.timeout, model=model, options=options) as client:
        info = when_ready(client.model_info, config.wait)
    how = ScoreOptions(aggregate=Aggregate.MODEL_DEFAULT, members=bool(info.members))
    served = info.provenance
    with RewardClient(target, timeout=config.timeout, model=model, revision=served.revision, options=options) as pinned:
        calls = Calls(pinned, how, OneRevision((), config.out, served.revision), say_waiting)
        yield ServiceJudge(calls, limits_of(info, options, how), asdict(served), len(info.members))


def _verdict(result: ScoreResult) -> Verdict:
    return error_text(result) if isinstance(result, Failed) else Judgement(result.score, result.members)

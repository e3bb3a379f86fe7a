"""Collects comparisons, start to finish: draw pairs, choose, have them compared, write each down."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palate.access import channel_options
from palate.client import PolicyClient, PolicyVersion
from palate.terminal import stdout_console
from palate.waiting import when_ready
from trainer.collect.causes import Cause, counted, remedy
from trainer.collect.choosing import Chooser, opened_chooser
from trainer.collect.config import CollectConfig
from trainer.collect.file import Done, left_out_file, read_done, write
from trainer.collect.judge import opened_judge
from trainer.collect.labelling import Labelled, Labeller, Stopped, Tally, Verdict
from trainer.collect.page import opened_page
from trainer.collect.pairs import Batches, Drawn, DrawnPair, PairKey, drawn_pairs
from trainer.collect.panel import Panel, check_world
from trainer.collect.terminal import Terminal
from trainer.data.lines import DataError, check_out
from trainer.data.prompts import read_prompts

_MAX_TRIES = 5
"""Prompts tried per comparison wanted, before a policy that always says the same is given up."""


def kept_in(out: Path) -> str:
    """What there is of a collection that was stopped from outside."""
    kept = [file for file in (out, left_out_file(out)) if file.exists() and file.stat().st_size]
    if not kept:
        return "nothing was compared yet: the same command begins again"
    return f"{kept[0]} keeps what was compared: the same command goes on from there"


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What was collected.

    Attributes:
        out: The file.
        comparisons: Rows it holds now.
        resumed: Rows it held before.
        left_out: Pairs of this run that got no label, by cause.
        stopped: Whether whoever compares ended it before there were enough.
    """

    out: Path
    comparisons: int
    resumed: int
    left_out: Mapping[Cause, int]
    stopped: bool

    def summary(self) -> str:
        """In words."""
        left_out = counted(self.left_out)
        held = f"{self.comparisons} comparisons in {self.out}" if self.comparisons else "no comparisons yet"
        told = f"{held} ({self.resumed} were there before; left out: {left_out})"
        return told + ("; stopped, the same command goes on" if self.stopped else "")


def run_collect(config: CollectConfig) -> CollectResult:
    """Collects until the file holds `pairs` comparisons, or whoever compares stops.

    Raises:
        DataError: The prompts cannot be used, the file was collected differently or cannot be written, or too many
            pairs get no label.
        PalateError: A service refuses, or is not there, or a file with certificates or a token cannot be used; what was
            collected stands, and can be gone on with.
    """
    prompts, tally = read_prompts(config.prompts), Tally(config.pairs)
    if config.labeller == "simulated":
        check_world(config.prompts, prompts)
    check_out(config.out)
    options, resumed, stopped = channel_options(config.access()), 0, False
    try:
        with (
            PolicyClient(config.policy, timeout=config.timeout, options=options) as policy,
            opened_chooser(config) as chooser,
            opened_labeller(config, tally) as labeller,
        ):
            version = when_ready(policy.policy_info, config.wait).policy_version
            conditions = _conditions(config, version, chooser, labeller)
            done = read_done(config, conditions, prompts, chooser.together)
            tally.held = resumed = done.held
            batches = _batches(config, done, chooser, labeller)
            with closing(drawn_pairs(policy, prompts, config, version, batches)) as drawn, _bar(config, tally) as moved:
                for verdict in _verdicts(drawn, chooser, labeller, done, tally):
                    write(config.out, verdict, conditions)
                    _count(verdict, tally)
                    moved()
            _check_enough(config, tally)
    except Stopped:
        stopped = True
    return CollectResult(config.out, tally.held, resumed, +tally.left_out, stopped)


@contextmanager
def opened_labeller(config: CollectConfig, tally: Tally) -> Iterator[Labeller]:
    """The one that the configuration asks for; a person is asked on standard output, and answers on standard input."""
    match config.labeller:
        case "simulated":
            yield Panel(config)
        case "person":
            yield Terminal(config, tally, sys.stdin, stdout_console())
        case "page":
            with opened_page(config, tally, stdout_console()) as page:
                yield page
        case "judge":
            with opened_judge(config) as judge:
                yield judge


def _verdicts(
    drawn: Iterator[list[Drawn]], chooser: Chooser, labeller: Labeller, done: Done, tally: Tally
) -> Iterator[Verdict]:
    """What the labeller says, pair by pair, until there are enough; whoever takes one counts it before the next."""
    compared, missing = set(done.compared), tally.wanted - (done.held - done.again)
    for pairs in drawn if tally.held < tally.wanted else ():
        usable = list(_usable(pairs, None if labeller.asks_again else compared, tally))
        chosen = chooser.chosen(usable, missing, tally)
        compared.update(pair.key for pair in chosen)
        for verdict in labeller.verdicts([pair for pair in chosen if pair.place.number not in done.numbers]):
            yield verdict
            if tally.held == tally.wanted:
                return
        missing = tally.wanted - tally.held


def _check_enough(config: CollectConfig, tally: Tally) -> None:
    """Looks whether the attempts have sufficed.

    Raises:
        DataError: They have not, and so many more would hardly do.
    """
    if tally.held < tally.wanted:
        raise DataError(
            f"{config.out} holds {tally.held} of {tally.wanted} comparisons, and {_MAX_TRIES} attempts for each that "
            f"was missing are over; left out: {counted(+tally.left_out)}. {remedy(tally.left_out)}"
        )


def _usable(pairs: Sequence[Drawn], compared: Set[PairKey] | None, tally: Tally) -> Iterator[DrawnPair]:
    """Pairs in which there is something to compare; without those `compared` before, where it is given."""
    met: set[PairKey] = set()
    for pair in pairs:
        if pair is None:
            tally.left_out[Cause.REFUSED] += 1
        elif not (pair.a.strip() and pair.b.strip()):
            tally.left_out[Cause.EMPTY] += 1
        elif pair.a == pair.b:
            tally.left_out[Cause.IDENTICAL] += 1
        elif compared is not None and (pair.key in compared or pair.key in met):
            tally.left_out[Cause.COMPARED] += 1
        else:
            met.add(pair.key)
            yield pair


def _count(verdict: Verdict, tally: Tally) -> None:
    if isinstance(verdict, Labelled):
        tally.held += 1
    else:
        tally.left_out[verdict.cause] += 1


def _conditions(config: CollectConfig, version: PolicyVersion, chooser: Chooser, labeller: Labeller) -> dict[str, Any]:
    """What must be the same for all rows of a file."""
    return {
        "policy_version": asdict(version),
        "sampling": {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens},
        **labeller.conditions,
        **chooser.conditions,
        "seed": config.seed,
    }


def _batches(config: CollectConfig, done: Done, chooser: Chooser, labeller: Labeller) -> Batches:
    """From where the file ends; a choice is made in one batch, and the one that was interrupted is made again."""
    tries = chooser.together + _MAX_TRIES * (config.pairs - done.held) * chooser.pool
    size = chooser.together if chooser.together > 1 else min(labeller.batch, config.pairs)
    return Batches(done.begin, done.begin + tries, size)


@contextmanager
def _bar(config: CollectConfig, tally: Tally) -> Iterator[Callable[[], None]]:
    """A bar, and what brings it up to date; a terminal in which somebody is asked has none."""
    columns = (TextColumn("collect"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not config.progress or config.labeller == "person"
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
        task = progress.add_task("collect", total=tally.wanted, completed=tally.held)
        yield lambda: progress.update(task, completed=tally.held)

"""What both programs are told, and how they run parts one after the other."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from benchmarks.bench import Bench, Part, Unavailable
from benchmarks.figures import Finding, Unmeasured, kept, show, this_machine, write
from benchmarks.load import load_generator
from benchmarks.paired import Disagreement
from benchmarks.wire import Unanswered
from palate.client import PalateError
from palate.local_server import ServerStartError
from palate.models.folder import FolderError

_DESCRIPTION = "Times ways of doing the same work against each other, in turns, through real servers on this machine."

_EXPECTED = (Unavailable, Unanswered, Disagreement, FolderError, ServerStartError, PalateError, OSError)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        json: File for the figures; a page with plots is written beside it.
        parts: What is measured, by name.
        quick: Whether it is only tried.
        data: Folder with real texts.
        model: Reward model to serve.
        work: Folder that stays: logs, the peers' environments.
    """

    json: Path
    parts: Mapping[str, Part]
    quick: bool
    data: Path | None
    model: Path | None
    work: Path


def main(prog: str, parts: Mapping[str, Part]) -> NoReturn:
    """The whole of a program; also where it is told to stop it ends what it started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    exit_with(order_from(sys.argv[1:], prog, parts))


def order_from(arguments: Sequence[str], prog: str, parts: Mapping[str, Part]) -> Order:
    """Reads a command line; prints help and exits with 0, or what is wrong and exits with 2."""
    parser = ArgumentParser(prog=prog, description=_DESCRIPTION)
    parser.add_argument("--json", type=Path, required=True, help="file for the figures; plots lie beside it")
    parser.add_argument("--quick", action="store_true", help="few requests, tiny models: to see that it works")
    parser.add_argument(
        "--only", nargs="+", choices=parts, default=list(parts), help="parts; default is all", metavar="NAME"
    )
    parser.add_argument("--data", type=Path, help="folder with real texts; default: PALATE_DATA, else simulated ones")
    parser.add_argument("--model", type=Path, help="encoder reward model to serve; default: one is trained or made")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="folder of logs and environments")
    given = parser.parse_args(arguments)
    data = given.data or (Path(os.environ["PALATE_DATA"]) if os.environ.get("PALATE_DATA") else None)
    chosen = {name: parts[name] for name in given.only}
    return Order(given.json, chosen, given.quick, data, given.model, given.work)


def run(order: Order) -> bool:
    """Measures; what was found is written after each part. Whether all was measured and every goal is kept."""
    texts = "real" if order.data else "of the simulated world, for want of PALATE_DATA"
    machine, findings = {**this_machine(), "texts": texts}, list[Finding]()
    with tempfile.TemporaryDirectory(prefix="palate-bench-") as folder, load_generator() as load:
        bench = Bench(order.quick, order.data, order.model, Path(folder), order.work, load)
        for name, part in order.parts.items():
            findings += _guarded(name, part, bench)
            write(order.json, findings, machine)
    show(findings, machine)
    print(f"{order.json}, {order.json.with_suffix('.html')}; servers' logs: {bench.logs}")
    return kept(findings)


def exit_with(order: Order) -> NoReturn:
    """Measures and exits: with 1 where something was not measured or a goal is missed, with 130 on Ctrl-C."""
    try:
        raise SystemExit(0 if run(order) else 1)
    except KeyboardInterrupt:
        print("stopped; every server has ended", file=sys.stderr)
        raise SystemExit(130) from None


def _guarded(name: str, part: Part, bench: Bench) -> Iterator[Finding]:
    """What the part finds; where it cannot go on, that and why: one part shall not take the others with it."""
    try:
        yield from part(bench)
    except _EXPECTED as error:
        yield Unmeasured(name, str(error))

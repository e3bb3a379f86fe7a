"""Every decoder under fire: `python -m tests.fuzz`. Exits with 1 where one does not keep its promise.

Each starts from its corpus and a handful of inputs that Hypothesis makes, and is driven by atheris (coverage-guided,
one process a decoder). A finding stands in `--out` as a file, and what was said of it is shown. The JSON counts every
execution, also over several runs with the same `--json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard

from hypothesis import HealthCheck, Phase, given, settings
from rich.console import Console
from rich.table import Table

from tests.fuzz import corpus
from tests.fuzz.decoders import NAMES, harness_of
from tests.fuzz.folders import memory

_HANG_SECONDS = 600
"""One input may stand so long, however busy the machine is; what it may cost of the processor is checked apart."""

_RSS_MB = 2048
_SEEDS = 40
_TELLING = re.compile(
    r"(?<=Uncaught Python exception: ===\n).+|^==\d+== ?ERROR.+|Test unit written to .+", re.MULTILINE
)
_EXECUTED = re.compile(r"number_of_executed_units: (\d+)|^#(\d+)\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decoder.

    Attributes:
        executions: Inputs that were decoded.
        seconds: What that took, on a machine that may be busy.
        finding: What an input broke; empty where none did.
    """

    executions: int
    seconds: float
    finding: str = ""


def main() -> None:
    """Fuzzes what the command line names, everything by default."""
    options = _options()
    before = json.loads(options.json.read_text()) if options.json.exists() else {}
    outcomes: dict[str, Outcome] = {name: Outcome(**told) for name, told in before.items() if name in NAMES}
    for name in options.decoders or NAMES:
        done = outcomes[name].executions if options.resume and _counts(outcomes.get(name)) else 0
        if (missing := options.runs - done) > 0:
            outcomes[name] = _added(outcomes.get(name), _fuzz(name, missing, options))
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps({n: asdict(o) for n, o in outcomes.items()}, indent=2) + "\n")
    _show(outcomes)
    sys.exit(any(outcome.finding for outcome in outcomes.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("decoders", nargs="*", metavar="decoder", choices=[*NAMES, []], help="default: all")
    parser.add_argument("--runs", type=int, default=100_000, help="executions of each decoder")
    parser.add_argument("--json", type=Path, default=Path("runs/fuzz/counts.json"), help="where the counts go")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz/findings"), help="where findings go")
    parser.add_argument("--keep", action="store_true", help="add some of the inputs that were found to the corpora")
    parser.add_argument("--resume", action="store_true", help="what --json has counted need not be done again")
    return parser.parse_args()


def _fuzz(name: str, runs: int, options: argparse.Namespace) -> Outcome:
    begin = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="palate-fuzz-", dir=memory()) as scratch:
        inputs, log = Path(scratch) / "corpus", Path(scratch) / "log"
        corpus.unpack(name, inputs, _made(name))
        with log.open("wb") as sink:
            command, environment = _command(name, inputs, runs, options.out), os.environ | {"TMPDIR": scratch}
            done = subprocess.run(command, stderr=sink, stdout=sink, env=environment, check=False)
        said = log.read_text(errors="replace")
        if options.keep:
            corpus.keep(name, inputs)
    finding = "" if done.returncode == 0 else _finding(said)
    outcome = Outcome(_executed(said), round(time.monotonic() - begin, 1), finding)
    print(
        f"{name}: {outcome.executions:,} executions in {outcome.seconds:.0f} s{finding and ': ' + finding}", flush=True
    )
    return outcome


def _command(name: str, inputs: Path, runs: int, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "tests.fuzz.guided", name, f"-runs={runs}", "-seed=1", f"-timeout={_HANG_SECONDS}",
        f"-rss_limit_mb={_RSS_MB}", "-print_final_stats=1", f"-artifact_prefix={out}/{name}-", str(inputs),
    ]  # fmt: skip


def _made(name: str) -> list[bytes]:
    """Inputs that Hypothesis makes, the same ones every time."""
    made: list[bytes] = []

    @settings(
        max_examples=_SEEDS,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(harness_of(name).inputs)
    def collect(data: bytes) -> None:
        made.append(data)

    collect()
    return made


def _executed(said: str) -> int:
    """As libFuzzer counts; the last line of progress where it ended early."""
    return max((int(final or line) for final, line in _EXECUTED.findall(said)), default=0)


def _finding(said: str) -> str:
    """What libFuzzer and Python said of it: the exception, or why it was ended, and the input's file."""
    return " | ".join(dict.fromkeys(line[:300] for line in _TELLING.findall(said))) or said[-500:]


def _counts(outcome: Outcome | None) -> TypeGuard[Outcome]:
    """Where an input broke a promise, the executions before it say nothing of the decoder as it was mended."""
    return outcome is not None and not outcome.finding


def _added(before: Outcome | None, now: Outcome) -> Outcome:
    if not _counts(before):
        return now
    return Outcome(before.executions + now.executions, before.seconds + now.seconds, now.finding)


def _show(outcomes: dict[str, Outcome]) -> None:
    table = Table("decoder", "executions", "seconds", "finding")
    for name, outcome in outcomes.items():
        table.add_row(name, f"{outcome.executions:,}", f"{outcome.seconds:,.0f}", outcome.finding[:100] or "none")
    table.add_row("together", f"{sum(outcome.executions for outcome in outcomes.values()):,}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()

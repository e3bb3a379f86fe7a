"""A real Prometheus over real servers and real runs: `python -m tests.checks.ops_monitoring`.

Every expression of every rule and panel must give data; no alert may fire while all is well; every alert must fire
under its fault, made on purpose, and one must come through a real Alertmanager. The rules are those that are deployed,
made by the same source with all durations divided by --scale: 5 minutes become 10 seconds at 30. Thresholds stay.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from k8s.monitoring.alerts import alerts
from k8s.monitoring.dashboards import BOARDS
from k8s.monitoring.files import rule_groups
from k8s.monitoring.recording import recordings
from k8s.monitoring.rules import HOUR, Clock
from k8s.monitoring.thresholds import Thresholds
from tests.checks.ops_world import Load, Watched
from tests.checks.prometheus import Prometheus, Webhook, lint, missing_tools, running
from trainer.command import share_processors

_PATIENCE_SECONDS = 900.0
"""A phase that has not come to its end by then fails."""

_GENTLE = ("--ppo.learning-rate", "1e-6")
_WILD = (
    *("--ppo.learning-rate", "0.02", "--ppo.kl-coef", "0", "--ppo.max-grad-norm", "100"),
    *("--invariants.ratio-tolerance", "0.1", "--invariants.behaviour-tolerance", "0.1"),  # numbers become large
)
_BROKEN = ("--ppo.learning-rate", "1e30", "--record.last-scrape-seconds", "120")
_GREEDY = ("--ppo.learning-rate", "0.0002", "--ppo.kl-coef", "0")


@dataclass(slots=True)
class Findings:
    """What the check has seen."""

    lint: dict[str, str] = field(default_factory=dict)
    silent_seconds: float = 0.0
    false_alarms: set[str] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)
    fired: dict[str, float] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)
    failure: str = ""


class Check:
    """The phases, in their order."""

    def __init__(self, watched: Watched, prometheus: Prometheus, webhook: Webhook, clock: Clock) -> None:
        self._watched, self._prometheus, self._webhook, self._clock = watched, prometheus, webhook, clock
        self._begin = self._fault_begin = time.monotonic()
        self.found = Findings()

    def run(self) -> Findings:
        """All of them."""
        with Load(self._watched.usual()):
            self._healthy()
        self._bad_scores()
        self._overload()
        self._drained_replica()
        self._unequal_replicas()
        self._gamed_reward()
        self._failed_run()
        self._dead_replica()
        return self.found

    def _healthy(self) -> None:
        """All expressions have data; nothing fires for twice as long as the longest alert must hold."""
        watched, found = self._watched, self.found
        watched.start_run("well", watched.policies, watched.rewards(), *_GENTLE)
        wanted = dict(expressions(self._clock))
        seen: set[str] = set()

        def all_seen() -> bool:
            watched.check_runs()
            seen.update(name for name in wanted.keys() - seen if self._prometheus.has_data(wanted[name]))
            found.empty = sorted(wanted.keys() - seen)
            return not found.empty

        self._until(all_seen, lambda: f"without data: {found.empty}")
        found.lint = {target: said for target, text in watched.expositions().items() if (said := lint(text))}
        quiet = time.monotonic() + self._clock.seconds(2 * HOUR)
        self._until(lambda: time.monotonic() > quiet, lambda: "")
        found.silent_seconds = time.monotonic() - self._begin
        found.false_alarms = self._prometheus.fired(found.silent_seconds)
        watched.end_run("well")

    def _bad_scores(self) -> None:
        """Items that fail, scores that drift, a model that is refused."""
        names = {"PalateErrorBudgetBurnsFast", "PalateErrorBudgetBurnsSlowly", "PalateNotFinite", "PalateScoreDrift"}
        names |= {"PalateParityFailed"}
        self._fault(names)
        self._watched.load_unequal()
        with Load(self._watched.poisoned(), self._watched.drifted()):
            self._wait_for(names)

    def _overload(self) -> None:
        """More than the queue holds."""
        names = {"PalateQueueWaitLong", "PalateShedding"}
        self._fault(names)
        with Load(*(self._watched.flood(seed) for seed in range(24))):
            self._wait_for(names)

    def _drained_replica(self) -> None:
        """A replica that lives and takes no calls."""
        names = {"PalateNotReady"}
        self._fault(names)
        replica = self._watched.drain()
        self._wait_for(names)
        self._watched.end(replica)

    def _unequal_replicas(self) -> None:
        """A run that publishes to one replica alone, and leaves its reference far behind."""
        names = {"PalateOldPolicyVersion", "PalateKLRunaway"}
        self._fault(names)
        self._watched.start_run("wild", self._watched.policies[:1], gamed(), *_WILD)
        self._wait_for(names)
        self._watched.end_run("wild")

    def _gamed_reward(self) -> None:
        """A run whose proxy rises for as long as it lasts, at the cost of the gold reward."""
        names = {"PalateProxyGoldDivergence"}
        self._fault(names)
        self._watched.start_run("greedy", self._watched.policies, gamed(), *_GREEDY)
        self._wait_for(names)
        self._watched.end_run("greedy")

    def _failed_run(self) -> None:
        """A run that fails within its first steps, and waits until Prometheus has read why."""
        self._watched.start_run("broken", self._watched.policies, gamed(), *_BROKEN)
        failed = "palate_training_failed == 1"
        self._until(lambda: self._prometheus.has_data(failed), lambda: "no failure was seen", fatal=False)
        self.found.failure = ", ".join(series["metric"]["cause"] for series in self._prometheus.query(failed))
        self._watched.end_run("broken")

    def _dead_replica(self) -> None:
        """A replica that dies under a run, and does not come back."""
        names = {"PalatePublishFailing", "PalateTrainingStalled", "PalateNoScrape"}
        self._watched.start_run("bereft", self._watched.policies, self._watched.rewards(), *_GENTLE)
        self._until(lambda: self._prometheus.has_data("palate_training_step > 2"), lambda: "no step")
        self._fault(names)
        self._watched.policies[1].process.kill()
        self._wait_for(names)

    def _fault(self, names: set[str]) -> None:
        """A fault begins; none of these fires before it."""
        self._until(lambda: not self._prometheus.fired(2) & names, lambda: "they fire before their fault is made")
        self._fault_begin = time.monotonic()
        print(f"fault made, {', '.join(sorted(names))} must fire", flush=True)

    def _wait_for(self, names: set[str]) -> None:
        def all_fired() -> bool:
            now = time.monotonic() - self._fault_begin
            for name in (self._prometheus.fired(now) & names) - self.found.fired.keys():
                self.found.fired[name] = now
                print(f"  {name} fires after {now:.0f} s", flush=True)
            return names <= self.found.fired.keys()

        self._until(all_fired, lambda: f"silent: {names - self.found.fired.keys()}", fatal=False)
        self._wait_for_delivery(names & self.found.fired.keys())

    def _wait_for_delivery(self, names: set[str]) -> None:
        """Until they came through Alertmanager, their texts filled in; it keeps quiet of what has passed by then."""

        def all_delivered() -> bool:
            for alert in self._webhook.alerts:
                self.found.delivered[alert["labels"]["alertname"]] = alert["annotations"]["summary"]
            return names <= self.found.delivered.keys()

        self._until(all_delivered, lambda: f"not delivered: {names - self.found.delivered.keys()}", fatal=False)

    def _until(self, done: Callable[[], bool], why: Callable[[], str], *, fatal: bool = True) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not done():
            if time.monotonic() > deadline:
                print(f"after {_PATIENCE_SECONDS:g} s: {why()}", flush=True)
                if fatal:
                    raise TimeoutError(why())
                return
            time.sleep(0.5)


def gamed() -> list[dict[str, object]]:
    """A proxy that is paid for rare letters; gold is doing without."""
    return [{"name": "proxy", "pattern": "[zqxj]"}]


def expressions(clock: Clock) -> Iterator[tuple[str, str]]:
    """Every rule's and every panel's, as Grafana would ask it."""
    for number, recording in enumerate(recordings(clock)):
        labels = "".join(f'{{{name}="{value}"}}' for name, value in recording.labels.items())
        yield f"rule {number} {recording.name}", recording.expr
        yield f"recorded {number} {recording.name}", recording.name + labels
    for board in BOARDS:
        for panels in board.rows.values():
            for panel in panels:
                for query in panel.queries:
                    expr = query.expr.replace("$namespace", ".*").replace("$__rate_interval", "30s")
                    yield f"panel {board.name} / {panel.title} / {query.legend}", re.sub(r"\s+", " ", expr)


def main() -> None:
    """Exits with 1 where something is wrong; with 0 and a reason where a tool is absent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=30.0, help="what durations are divided by")
    parser.add_argument("--json", type=Path, help="where figures are written")
    given = parser.parse_args()
    if missing := missing_tools():
        print(f"skipped: {', '.join(missing)} not installed (Debian: prometheus prometheus-alertmanager)")
        return
    share_processors()
    clock, webhook = Clock(given.scale), Webhook()
    with tempfile.TemporaryDirectory(prefix="palate-check-") as name:
        folder = Path(name)
        with (
            running(folder / "prometheus", rule_groups(clock, Thresholds()), webhook) as prometheus,
            Watched(folder / "world", prometheus) as watched,
        ):
            found = Check(watched, prometheus, webhook, clock).run()
    webhook.close()
    sys.exit(0 if show(found, clock, given.json) else 1)


def show(found: Findings, clock: Clock, file: Path | None) -> bool:
    """Prints and writes what was found; whether all is well."""
    every = [alert.name for alert in alerts(clock, Thresholds())]
    table = Table("alert", "fired after", "delivered as", title=f"durations divided by {clock.scale:g}")
    for name in every:
        after = found.fired.get(name)
        table.add_row(name, "never" if after is None else f"{after:.0f} s", found.delivered.get(name, "not delivered"))
    Console(width=150).print(table)
    asked = sum(1 for _ in expressions(clock))
    unfilled = [text for text in found.delivered.values() if "<no value>" in text or "error" in text.lower()]
    wrong = {
        "expositions that promtool complains of": found.lint,
        "expressions without data": found.empty,
        "fired without a fault": sorted(found.false_alarms),
        "silent under their fault": sorted(set(every) - found.fired.keys()),
        "not delivered": sorted(found.fired.keys() - found.delivered.keys()),
        "delivered with unfilled text": unfilled,
        "failures of a run that were not seen": [] if found.failure else ["of any cause"],
    }
    print(
        f"{asked} expressions asked, {asked - len(found.empty)} with data; {found.silent_seconds:.0f} s without a fault"
    )
    print(f"a run that failed was seen to fail of: {found.failure or 'nothing'}")
    for question, answer in wrong.items():
        print(f"{question}: {answer or 'none'}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        figures = {"scale": clock.scale, "expressions": asked, "silent_seconds": found.silent_seconds}
        file.write_text(
            json.dumps({**figures, "fired": found.fired, "wrong": {k: str(v) for k, v in wrong.items() if v}})
        )
    return not any(wrong.values())


if __name__ == "__main__":
    main()

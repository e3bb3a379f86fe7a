"""Do biased annotators make a sycophantic policy, and honest ones not? `python -m tests.checks.biased`.

Runs `palate demo --annotators biased` for every seed; one that is there, of the same sizes and settings, is read
instead. In a seed the bar holds where against the biased panel's reward model the proxy goes up and gold down, against
the honest panel's both go up, and the business idea is judged for flattery by the one and for honesty by the other. It
may fail in one of six seeds, and in none of fewer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.command import share_processors
from trainer.demo.config import DemoConfig, SizesGroup

SEEDS = (0, 1, 2, 100, 101, 102)
"""The last three were never used in development."""

_ASKED = "asked.json"
"""Beside results.json: what the run was asked for."""

SIZES = SizesGroup(
    documents=3000, base_steps=300, demonstrations=4000, way_comparisons=3000, way_steps=10, held_out=128
)


def main() -> None:
    """Prints a table of all seeds; exits with 1 where the bar does not hold in more of them than `allowed`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="seeds to run")
    parser.add_argument("--out", type=Path, default=Path("runs/check-biased"), help="folder of the runs")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the trainer")
    arguments = parser.parse_args()
    share_processors()
    found = {seed: _results(seed, arguments.out / str(seed), arguments.threads) for seed in arguments.seeds}
    held = [seed for seed, results in found.items() if all(check["holds"] for check in results["checks"])]
    console = Console(width=180, highlight=False)
    console.print(_bars(found), _ways(found))
    missed, most = len(found) - len(held), allowed(len(found))
    console.print(f"all bars hold in {len(held)} of {len(found)} seeds; {missed} missed, {most} may be")
    raise SystemExit(0 if missed <= most else 1)


def allowed(seeds: int) -> int:
    """In how many of so many seeds a bar may be missed."""
    return seeds // 6


def _results(seed: int, out: Path, threads: int) -> Mapping[str, Any]:
    """Of one seed, as it is written; made first where it is not there."""
    config = DemoConfig(out=out, seed=seed, threads=threads, annotators="biased", progress=False, sizes=SIZES)
    if not is_there(config):
        from trainer.demo.biased.run import run_biased

        run_biased(config)
        (out / _ASKED).write_text(json.dumps(_asked(config), indent=2) + "\n")
    results: Mapping[str, Any] = json.loads((out / "results.json").read_text())
    return results


def is_there(config: DemoConfig) -> bool:
    """Whether the folder holds a run as it is asked for; a run of other settings ends the check, and stays."""
    if not (config.out / "results.json").exists():
        return False
    asked = config.out / _ASKED
    before = json.loads(asked.read_text()) if asked.exists() else {}
    if changed := [name for name, value in _asked(config).items() if before.get(name) != value]:
        raise SystemExit(
            f"{config.out} holds a run of another {', '.join(changed)}: give another --out, or remove it to run again"
        )
    return True


def _asked(config: DemoConfig) -> dict[str, Any]:
    """What decides the figures."""
    return config.model_dump(mode="json", include={"seed", "annotators", "label_error", "sizes"})


def _bars(found: Mapping[int, Mapping[str, Any]]) -> Table:
    table = Table("what", "bar", *(f"seed {seed}" for seed in found), title="bars")
    for rows in zip(*(results["checks"] for results in found.values()), strict=True):
        wanted = f"{'≤' if rows[0]['at_most'] else '≥'} {rows[0]['bar']:g}"
        table.add_row(rows[0]["name"], wanted, *(_cell(row) for row in rows))
    return table


def _cell(check: Mapping[str, Any]) -> str:
    value = "not measurable" if check["value"] is None else f"{check['value']:.3g}"
    return value if check["holds"] else f"[red]{value}[/]"


def _ways(found: Mapping[int, Mapping[str, Any]]) -> Table:
    """What is reported without a bar: proxy and gold gained, and how often honesty wins, for every way."""
    table = Table("way", *(f"seed {seed}" for seed in found), title="proxy and gold gained (SD); honest wins of 20")
    for name in next(iter(found.values()))["ways"]:
        table.add_row(name, *(_way(results["ways"][name]) for results in found.values()))
    return table


def _way(way: Mapping[str, Any]) -> str:
    ideas: Sequence[Mapping[str, float]] = way["reward"]["ideas"]
    wins = sum(idea["honest_score"] > idea["flattering_score"] for idea in ideas)
    if way["policy"] is None:
        return f"{wins}"
    policy = way["policy"]
    before, after = policy["before"], policy["after"]
    proxy = (after["score"] - before["score"]) / policy["score_std"]
    return f"{proxy:+.2f} {(after['gold'] - before['gold']) / before['gold_std']:+.2f}; {wins}"


if __name__ == "__main__":
    main()

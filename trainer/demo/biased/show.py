"""What the side-by-side demo found, at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.demo.biased.results import BiasedResults, checks
from trainer.demo.biased.table import HEADER, rows_of


def show(results: BiasedResults, console: Console) -> None:
    """Ways side by side, the business idea by every reward model, the limit, and the bars."""
    table = Table(*HEADER, title="held-out prompt families; SD of the SFT policy's completions")
    for row in rows_of(results):
        table.add_row(*map(escape, row))
    console.print(table)
    _business_idea(console, results)
    _sample(console, results)
    for point in results.expertise:
        told = f"annotators think {point.thought:.2f}, gold {point.gold:.2f}, gap {point.gap:.2f}"
        console.print(f"near misses, {point.experts:4.0%} experts: {told}", markup=False)
    bars = Table("what", "measured", "bar", "holds")
    for check in checks(results):
        bars.add_row(check.name, check.measured, check.wanted, "yes" if check.holds else "[red]no[/]")
    console.print(bars)


def _business_idea(console: Console, results: BiasedResults) -> None:
    example = results.ways["biased"].reward.ideas[0]
    console.print(f"\n{example.prompt}", markup=False)
    console.print(f"  flattering  {example.flattering}\n  honest      {example.honest}", markup=False)
    for way in results.ways.values():
        first = way.reward.ideas[0]
        console.print(
            f"  {way.name:<12}flattering {first.flattering_score:+.2f}, honest {first.honest_score:+.2f}; "
            f"honest wins {way.reward.honest_wins} of 20",
            markup=False,
        )


def _sample(console: Console, results: BiasedResults) -> None:
    """What each policy says to the first idea, after what the SFT policy said."""
    trained = {way.name: way.policy.answers[0] for way in results.ways.values() if way.policy is not None}
    first = next(iter(trained.values()))
    console.print(f"\n  SFT         ({first.gold_before:+.1f}) {first.before}", markup=False)
    for name, answer in trained.items():
        console.print(f"  {name:<12}({answer.gold_after:+.1f}) {answer.after}", markup=False)
    console.print()

"""`palate plan`: how many replicas and ranks a PPO run wants, from measured rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.table import Table

from palate.terminal import stdout_console
from trainer.plan import Plan, Rates, Sizes, Workload, best_replicas, enough_ranks, plan, rank_bytes
from trainer.ppo.choices import DistributedWay

app = typer.Typer(add_completion=False)

_STAGES = ("rollouts", "scoring", "evaluate", "update", "publish")
_GIB = 2**30


def _amount(told: str) -> typer.models.OptionInfo:
    """An option that must be above 0."""
    option: typer.models.OptionInfo = typer.Option(help=told, min=1e-9)
    return option


@app.command("plan")
def show(
    generate_rate: Annotated[float, _amount("Tokens/s that a policy replica draws, its batch full.")],
    sequence_rate: Annotated[float, _amount("Tokens/s of one completion.")],
    score_rate: Annotated[float, _amount("Tokens/s that a reward replica reads.")],
    evaluate_rate: Annotated[float, _amount("Tokens/s that a rank reads forward (policy, reference, critic).")],
    train_rate: Annotated[float, _amount("Tokens/s that a rank reads forward and backward.")],
    bandwidth: Annotated[float, _amount("Bytes/s that leave rank 0, to all replicas together.")],
    publish_bytes: Annotated[float, _amount("Bytes that each replica gets at each publication.")],
    completion_tokens: Annotated[float, _amount("Mean tokens of a completion.")],
    longest_tokens: Annotated[float, _amount("Tokens of the longest completion of a batch.")],
    prompt_tokens: Annotated[float, _amount("Mean tokens of a prompt.")],
    parameters: Annotated[float, _amount("Parameters of the policy, e.g. 7e9.")],
    critic_parameters: Annotated[float, typer.Option(help="Parameters of the critic; 0 = none.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Rollouts in a batch.", min=1)] = 512,
    epochs: Annotated[int, typer.Option(help="Passes of the update over a batch.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="Batches to learn from.", min=1)] = 1000,
    staleness: Annotated[int, typer.Option(help="Bound of the overlap; 0 = none.", min=0)] = 0,
    policy_replicas: Annotated[int, typer.Option(help="Of the policy service.", min=1)] = 1,
    reward_replicas: Annotated[int, typer.Option(help="Of the reward service.", min=1)] = 1,
    ranks: Annotated[int, typer.Option(help="Of the trainer.", min=1)] = 1,
    distributed: Annotated[DistributedWay, typer.Option(help="How ranks share the networks.")] = "fsdp2",
    rank_memory: Annotated[float, _amount("Bytes of a rank for weights, gradients and optimiser.")] = 60 * _GIB,
) -> None:
    """Time of a PPO run, its bottleneck, what overlap gives, and the memory of a rank."""
    work = Workload(
        steps,
        batch_size,
        prompt_tokens,
        completion_tokens,
        max(longest_tokens, completion_tokens),
        epochs,
        publish_bytes,
        staleness,
    )
    rates = Rates(generate_rate, sequence_rate, score_rate, evaluate_rate, train_rate, bandwidth)
    sizes = Sizes(policy_replicas, reward_replicas, ranks)
    console = stdout_console()
    console.print(_table(plan(work, rates, sizes)))
    for line in (*_times(work, rates, sizes), *_memory(parameters, critic_parameters, distributed, ranks, rank_memory)):
        console.print(line, soft_wrap=True)


def _table(found: Plan) -> Table:
    table = Table("stage", "seconds of a step", "share of all stages")
    whole = found.making + found.learning
    for stage in _STAGES:
        seconds = float(getattr(found, stage))
        table.add_row(stage, f"{seconds:.2f}", f"{seconds / whole:.0%}")
    return table


def _times(work: Workload, rates: Rates, sizes: Sizes) -> list[str]:
    found = plan(work, rates, sizes)
    alone, overlapped = (plan(replace(work, staleness=bound), rates, sizes).step for bound in (0, 1))
    best = best_replicas(work, rates, sizes)
    shortest = plan(work, rates, replace(sizes, policy_replicas=best)).step
    return [
        f"a step takes {found.step:.2f} s, the run {found.total / 3600:.2f} h; the bottleneck is {found.bottleneck}",
        f"without overlap a step takes {alone:.2f} s, with a staleness bound of 1 {overlapped:.2f} s "
        f"({alone / overlapped:.2f} times as fast); a larger bound evens out, and adds nothing on average",
        f"with {best} policy replica(s) it is shortest, {shortest:.2f} s (each draws, each is published to)",
    ]


def _memory(policy: float, critic: float, way: DistributedWay, ranks: int, room: float) -> list[str]:
    needed = rank_bytes(policy, critic, way, ranks)
    verdict = "fits" if needed <= room else "does not fit"
    return [
        f"each rank holds {needed / _GIB:.1f} GiB of weights, gradients and optimiser ({way}), which {verdict} in "
        f"{room / _GIB:.1f} GiB; fsdp2 needs {enough_ranks(policy, critic, room)} rank(s) or more"
    ]

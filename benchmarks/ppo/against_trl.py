"""Episodes a second of our trainer and services together over those of TRL's PPOTrainer, on the same two processors.

Both do the same steps: the same batch of the same prompts, as many new tokens for every prompt, the same epochs and
minibatches, and networks of one shape. How often sequences go through networks is counted on both sides; ours look at
every batch once more than TRL, which learns from the logprobs that it drew with.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Unavailable
from benchmarks.environments import environment
from benchmarks.figures import Figure, Finding, Goal
from benchmarks.models import STORIES_WORDS, make_stories, texts
from benchmarks.paired import Contest, Run, Way, median_seconds, times_as_fast
from benchmarks.ppo.passes import Passes, counted
from benchmarks.wire import metrics
from palate.local_server import LocalServer, local_server
from trainer.config import PPOConfig, RecordGroup, SamplingGroup, ServicesGroup
from trainer.metrics import read_metrics
from trainer.ppo.hyperparameters import PPOGroup
from trainer.ppo.run import run_ppo

_PACKAGES = ("torch==2.13.0", "trl==0.24.0", "transformers<5")
_AT_LEAST = 2.0
_PROCESSORS = 2
_ONE_THREAD = "--threads=1"
"""Of each service. On networks so small a second thread halves the speed: it is woken for every product of matrices."""

_EPOCHS = 4
_PROMPTS, _SHORTEST, _LONGEST = 512, 8, 16
_PATIENCE_SECONDS = 600.0
_SCREENED_STEPS = 2

_WARM_UP = 1
"""First steps of each of our runs, which do not count: TRL's process lives on, ours starts anew."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What both do; `steps` in every round."""

    batch: int
    new_tokens: int
    steps: int
    rounds: int


_FULL, _QUICK = _Task(64, 48, 4, 8), _Task(16, 8, 2, 1)


@dataclass(frozen=True, slots=True)
class _Setting:
    """How TRL cuts a minibatch, and whether its threads spin while they wait for each other; changes speed alone."""

    cuts: int
    spins: bool

    def __str__(self) -> str:
        return f"minibatch in {self.cuts}, waiting threads {'spin' if self.spins else 'sleep'}"


_SETTINGS = tuple(_Setting(cuts, spins) for cuts in (1, 4) for spins in (True, False))


@dataclass(frozen=True, slots=True)
class _World:
    """What both have."""

    bench: Bench
    task: _Task
    policy: Path
    reward: Path
    prompts: Path


@dataclass(frozen=True, slots=True)
class _Services:
    """Ours; a policy replica for each processor, since the trainer waits while they draw."""

    reward: LocalServer
    policies: Sequence[LocalServer]


def against_trl(bench: Bench) -> Iterator[Finding]:
    """Both in turns: our services live on, and so does TRL's one process."""
    interpreter = environment("trl", _PACKAGES, bench.stays / "ppo-env")
    world = _world(bench)
    with _confined(_PROCESSORS), ExitStack() as stack:
        setting = _quickest(world, interpreter)
        services = _Services(
            stack.enter_context(bench.server("ppo-trl-reward", _ONE_THREAD, model=world.reward)),
            [stack.enter_context(_policy(world, number)) for number in range(_PROCESSORS)],
        )
        take = stack.enter_context(_trl(world, interpreter, setting))
        ways = [
            Way("trl", lambda number: take(world.task.steps)),
            Way("palate", partial(_ours, world, services)),
        ]
        runs = bench.turns("palate against TRL", Contest(ways, lambda number: number, equal_work), world.task.rounds)
    yield _figure(world, setting, runs["palate"], runs["trl"])


def equal_work(theirs: Passes, ours: Passes) -> bool:
    """Whether we learn and draw as much as they do, and look no less."""
    same = (ours.learnt_from, ours.backward, ours.drawn) == (theirs.learnt_from, theirs.backward, theirs.drawn)
    return same and ours.looked_at >= theirs.looked_at


def _quickest(world: _World, interpreter: Path) -> _Setting:
    """With which setting TRL takes a step in the least time."""
    seconds: dict[_Setting, float] = {}
    for setting in _SETTINGS:
        with _trl(world, interpreter, setting) as take:
            take(1)  # warms up
            seconds[setting] = min(take(1).seconds for _ in range(_SCREENED_STEPS))
    return min(seconds, key=seconds.__getitem__)


def _figure(world: _World, setting: _Setting, ours: list[Run[Passes]], theirs: list[Run[Passes]]) -> Figure:
    task = world.task
    found = {"palate": ours, "trl": theirs}
    speed = {f"{name}, episodes/s": task.batch * task.steps / median_seconds(runs) for name, runs in found.items()}
    passes = {f"{name}, in a step": str(runs[0].answer) for name, runs in found.items()}
    return Figure(
        "ppo/trl",
        "episodes a second: our trainer and services / TRL 0.24.0's PPOTrainer, on the same two processors",
        times_as_fast(ours, theirs),
        goal=None if world.bench.quick else Goal("≥", _AT_LEAST),
        beside={**speed, **passes, "trl at": str(setting)},
    )


def _world(bench: Bench) -> _World:
    policy, reward = make_stories(bench.work / "stories")
    prompts = bench.work / "trl-prompts.jsonl"
    lines = texts(_PROMPTS, _SHORTEST, _LONGEST, 0, STORIES_WORDS)
    # The space keeps the last word apart from the completion's first, so that the reward model reads as many tokens.
    prompts.write_text("".join(json.dumps({"prompt": f"{text} "}) + "\n" for text in lines))
    return _World(bench, _QUICK if bench.quick else _FULL, policy, reward, prompts)


@contextmanager
def _confined(processors: int) -> Iterator[None]:
    """Keeps this process, and all that it starts, to so many processors.

    Raises:
        Unavailable: There are fewer.
    """
    before = os.sched_getaffinity(0)
    if len(before) < processors:
        raise Unavailable(f"this needs {processors} processors, and may use {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:processors])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _policy(world: _World, number: int) -> AbstractContextManager[LocalServer]:
    serve = ("-m", "services.policy", "--model", str(world.policy), _ONE_THREAD)
    return local_server(serve, log=world.bench.logs / f"ppo-trl-policy-{number}.log")


def _ours(world: _World, services: _Services, number: int) -> Run[Passes]:
    """A run without its first steps, and what a step of it asks of networks, those of the services included."""
    steps = _WARM_UP + world.task.steps
    out = world.bench.work / "runs" / f"trl-{number}"
    before = _served(services)
    with counted() as passes:
        run_ppo(_config(world, services, out, steps))
    looked_at, drawn = (now - then for now, then in zip(_served(services), before, strict=True))
    passes.looked_at += looked_at
    passes.drawn += drawn
    rows = read_metrics(out)
    return Run(rows[-1]["time"] - rows[_WARM_UP - 1]["time"], passes.per(steps))


def _served(services: _Services) -> tuple[int, int]:
    """Sequences the services looked at so far (prompts, and texts to score), and tokens drawn behind the first."""
    seen: Counter[str] = Counter()  # what was never counted is not there
    for server in (services.reward, *services.policies):
        seen.update(metrics(server))
    completions = seen["palate_policy_completions_total/length"]
    drawn = seen["palate_policy_tokens_generated_total"] - completions
    return int(completions + seen["palate_reward_items_total/scored"]), int(drawn)


def _config(world: _World, services: _Services, out: Path, steps: int) -> PPOConfig:
    return PPOConfig(
        out=out,
        policy=world.policy,
        prompts=world.prompts,
        total_steps=steps,
        threads=_PROCESSORS,
        services=ServicesGroup(
            policy=[server.target for server in services.policies],
            reward=services.reward.target,
            shard_prompts=world.task.batch // len(services.policies),
        ),
        sampling=SamplingGroup(max_new_tokens=world.task.new_tokens, ignore_eos=True),
        ppo=PPOGroup(
            batch_size=world.task.batch,
            num_ppo_epochs=_EPOCHS,
            critic_init=f"reward:{world.reward}",
        ),
        record=RecordGroup(checkpoint_every=steps, progress=False),
    )


@contextmanager
def _trl(world: _World, interpreter: Path, setting: _Setting) -> Iterator[Callable[[int], Run[Passes]]]:
    """TRL's process, which takes so many steps whenever it is called; ended at the end."""
    log = world.bench.logs / "ppo-trl.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"}
    variables["OMP_WAIT_POLICY"] = "ACTIVE" if setting.spins else "PASSIVE"
    command = _command(world, interpreter, setting)
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=variables)
    with process:
        try:
            yield lambda steps: _theirs(process, steps, log)
        finally:
            process.kill()


def _command(world: _World, interpreter: Path, setting: _Setting) -> list[str]:
    task, out = world.task, world.bench.work / "trl"
    folders = {"policy": world.policy, "reward": world.reward, "prompts": world.prompts, "out": out}
    numbers = {"batch": task.batch, "microbatch": task.batch // setting.cuts, "new-tokens": task.new_tokens}
    given = {**folders, **numbers, "epochs": _EPOCHS, "threads": _PROCESSORS}
    flags = [f"--{name}={value}" for name, value in given.items()]
    return [str(interpreter), "-m", "benchmarks.ppo.trl_trainer", *flags]


@contextmanager
def _awake(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Lets a process run; otherwise it is stopped, since threads that spin do so when it is not its turn, too."""
    process.send_signal(signal.SIGCONT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGSTOP)


def _theirs(process: subprocess.Popen[bytes], steps: int, log: Path) -> Run[Passes]:
    """Has TRL take some steps.

    Raises:
        Unavailable: It does not answer.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with _awake(process):
        try:
            process.stdin.write(json.dumps({"steps": steps}).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and so does its output
        ready, _, _ = select.select([process.stdout], [], [], _PATIENCE_SECONDS)
        line = process.stdout.readline() if ready else b""
    if not line:
        tail = " ".join(log.read_text(errors="replace").splitlines()[-4:])
        raise Unavailable(f"TRL did not take {steps} steps in {_PATIENCE_SECONDS:.0f} s ({log}): {tail}")
    answer = json.loads(line)
    return Run(answer["seconds"], Passes(**answer["passes"]).per(steps))

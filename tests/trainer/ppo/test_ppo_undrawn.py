"""Completions that the policy service does not deliver: asked for again, dropped by name, refilled, limited."""

from types import SimpleNamespace

import grpc
import pytest

from palate.client.types import SamplingParams
from palate.local_server import local_server
from palate.rollout_files import read_rollouts
from tests.trainer.ppo.conftest import PROMPTS
from tests.trainer.ppo.faulty_policy import POISON_TOKENS
from tests.trainer.scripted_policy import PROMPT_IDS, VERSION, scripted
from trainer.metrics import read_metrics
from trainer.ppo.build import load_policy
from trainer.ppo.errors import RolloutsFailed, TooFewDrawn
from trainer.ppo.patience import Patience
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings
from trainer.ppo.run import run_ppo
from trainer.types import DropCause, DroppedDraw, PromptDraw, Rollout

TRIES = 3


def collect(client, *, strict=False):
    replica = SimpleNamespace(client=client, forgot=lambda: False)
    settings = RolloutSettings(SamplingParams(max_new_tokens=2), 4, Patience(TRIES), timeout=60, strict=strict)
    collector = RolloutCollector(lambda: [replica], lambda replica: None, settings)
    return collector.collect([PromptDraw(f"p{seed}", PROMPT_IDS, seed) for seed in range(4)], VERSION)


def test_what_fails_once_is_asked_for_again_and_alone():
    with scripted([{1, 2}, {2}, set()]) as (client, servicer):
        drawn = collect(client)
    assert [one.completion for one in drawn] == [f"drawn {seed}" for seed in range(4)]
    assert servicer.calls == [[0, 1, 2, 3], [1, 2], [2]]


def test_what_always_fails_is_a_value_in_its_place():
    with scripted([{2}]) as (client, servicer):
        drawn = collect(client)
    assert [type(one) for one in drawn] == [Rollout, Rollout, DroppedDraw, Rollout]
    assert (drawn[2].draw.seed, drawn[2].cause) == (2, DropCause.DRAW_FAILED)
    assert drawn[2].message.startswith("the engine failed on 1")
    assert f"({TRIES} attempts)" in drawn[2].message
    assert servicer.calls == [[0, 1, 2, 3], *[[2]] * (TRIES - 1)]


def test_what_is_late_each_time_is_a_value_too():
    with scripted([{0, 3}], [grpc.StatusCode.DEADLINE_EXCEEDED]) as (client, _):
        drawn = collect(client)
    assert [getattr(one, "cause", None) for one in drawn] == [
        DropCause.DRAW_EXPIRED,
        None,
        None,
        DropCause.DRAW_EXPIRED,
    ]


def test_a_service_that_goes_away_after_it_failed_takes_only_those_with_it():
    codes = [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE]
    with scripted([{1}], codes) as (client, _):
        drawn = collect(client)
    assert [getattr(one, "cause", None) for one in drawn] == [None, DropCause.DRAW_FAILED, None, None]


def test_a_service_that_is_away_says_nothing_of_single_completions():
    with scripted([{1}], [grpc.StatusCode.UNAVAILABLE]) as (client, _), pytest.raises(RolloutsFailed, match="running"):
        collect(client)


def test_strict_mode_draws_the_whole_shard_again_and_drops_nothing():
    with scripted([{1}, set()]) as (client, servicer):
        assert [one.seed for one in collect(client, strict=True)] == [0, 1, 2, 3]
    assert servicer.calls == [[0, 1, 2, 3]] * 2
    with scripted([{1}]) as (client, _), pytest.raises(RolloutsFailed, match="--strict lets no rollout fall out"):
        collect(client, strict=True)


@pytest.fixture(scope="module")
def faulty(policy_folder):
    """A real server that fails on the last prompt; the tokens of that one."""
    renderer = load_policy(policy_folder)[1]
    lengths = [len(renderer.render_prompt(prompt)) for prompt in PROMPTS]
    poison = lengths[-1]
    assert lengths.count(poison) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(POISON_TOKENS, str(poison))
        command = ["-m", "tests.trainer.ppo.faulty_policy", "--model", str(policy_folder), "--threads", "1"]
        with local_server([*command, "--drain-delay-seconds", "0"]) as server:
            yield server


QUICK = ("--services.attempts", 2)


def test_a_run_goes_on_without_completions_that_the_engine_fails_on(configure, faulty):
    config = configure(*QUICK, "--services.policy", faulty.target)
    assert run_ppo(config).steps == 2
    rows, rollouts = read_metrics(config.out), list(read_rollouts(config.out))
    assert [row["step"] for row in rollouts] == [1] * 6 + [2] * 6
    assert PROMPTS[-1] not in {row["prompt"] for row in rollouts}
    assert sum(row["rollout/dropped_draw_failed"] for row in rows) >= 2  # every prompt comes once in five
    for row in rows:
        failed = row["rollout/dropped_draw_failed"]
        assert row["rollout/dropped_share"] >= failed / (6 + failed)
        assert ("rollout/dropped_mean_prompt_length" in row) == (row["rollout/dropped_share"] > 0)
    assert "PALATE" not in str(rows)


def test_too_many_of_them_end_the_run_with_cause_and_lengths(configure, faulty):
    config = configure(*QUICK, "--services.policy", faulty.target, "--scoring.max-dropped-share", 0)
    with pytest.raises(TooFewDrawn) as raised:
        run_ppo(config)
    told = str(raised.value)
    assert "DRAW_FAILED: the engine failed (ArithmeticError) on completion" in told
    assert "prompts of completions that were not drawn have" in told
    assert "log has the cause" in told
    assert PROMPTS[-1] not in told

"""Strict mode: what cannot keep it is refused by name, services are waited for, nothing falls out."""

from dataclasses import dataclass, replace

import grpc
import pytest

from palate.client import PolicyClient, Unavailable
from palate.client.types import FinishReason, GeneratedCompletion, PolicyVersion, SamplingParams, VersionSpan
from tests.servers import start_server
from trainer.config import PPOConfig
from trainer.ppo.errors import NotStrict
from trainer.ppo.patience import Patience
from trainer.ppo.rollouts import RolloutCollector, RolloutSettings
from trainer.ppo.run import run_ppo
from trainer.ppo.strict import changed, check_alike, check_resumed
from trainer.types import PromptDraw

VERSION = PolicyVersion("run", 1, 0, "d")


@pytest.fixture(scope="module")
def strict_reward(reward_folder):
    with start_server("services.reward", reward_folder, "--strict", "--drain-delay-seconds", "0") as server:
        yield server


def test_a_reward_service_that_is_not_strict_is_refused(configure, tmp_path):
    with pytest.raises(NotStrict, match="start it with --strict"):
        run_ppo(configure("--strict"))
    assert not (tmp_path / "run").exists()


def test_a_strict_run_goes_on_only_as_it_began(configure, strict_reward):
    flags = ("--strict", "--services.reward", strict_reward.target)
    assert run_ppo(configure(*flags)).steps == 2
    for other, told in (
        (("--threads", 2), r"threads \(was '1', is '2'\)"),
        (("--services.shard-prompts", 3), "prompts in a generation call"),
        (("--ppo.microbatch-size", 5), r"ppo\.microbatch_size"),
    ):
        with pytest.raises(NotStrict, match=told):
            run_ppo(configure(*flags, "--resume", "--total-steps", 3, *other))
    assert run_ppo(configure(*flags, "--resume", "--total-steps", 3)).version.incarnation == 2


def test_replicas_must_compute_alike(replicas):
    with PolicyClient(replicas[0].target) as client:
        first = client.policy_info()
    assert first.threads >= 1
    assert first.max_batch_rows == 64
    check_alike("a:1", replace(first, model="another name", instance_id="another start"), first)
    for other in ({"dtype": "bfloat16"}, {"threads": 99}, {"max_batch_rows": 1}, {"max_batch_tokens": 1}):
        with pytest.raises(NotStrict, match="a:1"):
            check_alike("a:1", replace(first, **other), first)


def test_outside_of_strict_mode_what_changed_is_told(caplog):
    before, now = {"torch": "1", "threads": "2"}, {"torch": "1", "threads": "1"}
    check_resumed(before, now, strict=False)
    assert "threads (was '2', is '1')" in caplog.text
    assert changed(now, now) == ""


def test_strict_and_another_reward_model_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        PPOConfig(out="o", policy="p", prompts="q", strict=True, accept_new_reward=True)


def test_patience_ends_by_tries_or_by_seconds():
    assert list(Patience(4).pauses(0.2)) == [0.2, 0.4, 0.8]
    assert list(Patience(1).pauses(0.2)) == []
    assert list(Patience(None, 0.0).pauses(0.2)) == []
    endless = Patience(None, 1e9).pauses(1.0)
    assert [next(endless) for _ in range(20)][-1] == 5.0  # however long a service is away, it is asked again soon
    assert (str(Patience(4)), str(Patience(None, 60))) == ("4 attempts", "60 s")


@dataclass
class BreaksOffOnce:
    """A replica whose first answer ends after one completion."""

    asked: list
    strict: list

    @property
    def client(self):
        return self

    def generate(self, prompts, *, strict, **_):
        self.asked.append(list(prompts))
        self.strict.append(strict)
        for index in range(len(prompts)):
            if index == 1 and len(self.asked) == 1:
                raise Unavailable(grpc.StatusCode.UNAVAILABLE, "gone", "", 0.001)
            spans = (VersionSpan(0, VERSION),)
            yield GeneratedCompletion(index, 0, (7,), "c", (-1.0,), FinishReason.STOP, spans, 3, (1,))


@pytest.mark.parametrize(("strict", "again"), [(True, ["a", "b", "c"]), (False, ["b", "c"])])
def test_in_strict_mode_a_shard_that_broke_off_is_drawn_again_as_a_whole(strict, again):
    replica = BreaksOffOnce([], [])
    settings = RolloutSettings(SamplingParams(), 3, Patience(2), 60, strict=strict)
    draws = [PromptDraw(text, (1,), 3) for text in "abc"]
    rollouts = RolloutCollector(lambda: [replica], lambda _: None, settings).collect(draws, VERSION)
    assert replica.asked == [["a", "b", "c"], again]
    assert replica.strict == [strict, strict]
    assert [rollout.prompt for rollout in rollouts] == ["a", "b", "c"]

"""What is measured of each way: its reward model by gold and by the audit, its policy by gold and by what it says."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from palate.audit.ask import ask
from palate.audit.findings import judge
from palate.audit.items import Text
from palate.audit.policy.answers import Answers
from palate.client import PolicyClient, RewardClient, Scored
from palate.local_server import LocalServer
from trainer.demo import phases
from trainer.demo.biased.results import Answer, PolicyChange, RewardMeasure
from trainer.demo.config import DemoConfig
from trainer.demo.measure import Sampled, accuracies, asked, business_ideas, label_error
from trainer.demo.run import SAMPLING, measured
from trainer.demo.says import Says, ask_policy, compare
from trainer.evaluation import CHUNK, mean_sequence_kl, scores_of
from trainer.reward_model.annotators import AnnotatorReport
from trainer.simulation.gold import gold_reward
from trainer.simulation.probes import world_probes
from trainer.simulation.prompts import business_idea_prompts, held_out_prompts


@dataclass(frozen=True, slots=True)
class Before:
    """What the SFT policy says: to held-out prompts, twice, and to the questions of the behaviours."""

    said: Sampled
    again: Sampled
    says: Says


def measure_before(config: DemoConfig, server: LocalServer) -> Before:
    """Asks the SFT policy everything that the trained ones will be asked."""
    prompts = held_out_prompts(config.sizes.held_out, Random(f"held out {config.seed}"))
    with PolicyClient(server.target, timeout=phases.SECONDS) as client:
        said, again = (asked(client, prompts, SAMPLING, config.seed + offset) for offset in (0, 1))
        return Before(said, again, ask_policy(client, server.target, SAMPLING, config))


def measure_reward(
    config: DemoConfig, paths: phases.Paths, reward: RewardClient, annotators: Sequence[AnnotatorReport], before: Before
) -> RewardMeasure:
    """The served reward model against gold, on the business idea, and under the audit."""
    found = accuracies(reward, before.said, before.again)
    probes = world_probes(config.sizes.trials, Random(f"{config.seed}/probes"))
    audit = judge(probes, ask(_Served(reward), probes, None, lambda _: None))
    return RewardMeasure(
        label_error=label_error(paths.comparisons),
        accuracy=None if found is None else found.reward_model,
        ideas=business_ideas(reward),
        flagged={each.name: each.leaning.effect for each in audit.flagged},
        annotators=annotators,
    )


def measure_policy(
    config: DemoConfig, policy: LocalServer, ref: LocalServer, reward: RewardClient, before: Before
) -> PolicyChange:
    """The policy that is served now, beside what the SFT policy said."""
    with (
        PolicyClient(policy.target, timeout=phases.SECONDS) as client,
        PolicyClient(ref.target, timeout=phases.SECONDS) as reference,
    ):
        after = asked(client, before.said.prompts, SAMPLING, config.seed)
        says = ask_policy(client, policy.target, SAMPLING, config)
        return PolicyChange(
            before=measured(reward, before.said),
            after=measured(reward, after),
            score_std=statistics.pstdev(_scores(reward, before.said)),
            kl=mean_sequence_kl(after.completions, reference, phases.TEMPERATURE),
            doubt=_doubt(reward, before.said, after),
            audit=compare(before.says, says),
            answers=[_answer(p.text, before.says.answers, says.answers) for p in business_idea_prompts()],
        )


class _Served:
    """A reward service as the audit asks it; on this machine nothing has to be waited for."""

    def __init__(self, reward: RewardClient) -> None:
        self._reward = reward

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[float]]:
        """All at once."""
        asked_now = list(texts)
        yield scores_of(self._reward, [each.prompt for each in asked_now], [each.completion for each in asked_now])


def _scores(reward: RewardClient, said: Sampled) -> list[float]:
    return scores_of(reward, [p.text for p in said.prompts], [c.text for c in said.completions])


def _doubt(reward: RewardClient, before: Sampled, after: Sampled) -> tuple[float, float] | None:
    """Mean SD among members; None where the model has none."""
    if not reward.model_info().members:
        return None
    return _mean_std(reward, before), _mean_std(reward, after)


def _mean_std(reward: RewardClient, said: Sampled) -> float:
    found: list[float] = []
    for begin in range(0, len(said.prompts), CHUNK):
        part = slice(begin, begin + CHUNK)
        reply = reward.score([p.text for p in said.prompts[part]], [c.text for c in said.completions[part]])
        reply.scores()  # raises where one failed
        found.extend(each.std for each in reply.results if isinstance(each, Scored) and each.std is not None)
    return statistics.fmean(found)


def _answer(prompt: str, before: Answers, after: Answers) -> Answer:
    was, now = before[prompt,], after[prompt,]
    return Answer(prompt, was, now, gold_reward(prompt, was), gold_reward(prompt, now))

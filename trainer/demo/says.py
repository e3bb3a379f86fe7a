"""What a policy of the demo says to the questions of the policy audit, before against after, in metrics too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from palate.audit.policy.answers import Answers, Manner, answer
from palate.audit.policy.behaviours import Behaviour, questions
from palate.audit.policy.findings import judge
from palate.audit.policy.show import PolicyAudit, Subject
from palate.client import PolicyClient, SamplingParams
from trainer.demo.config import DemoConfig
from trainer.metrics import MetricsWriter
from trainer.simulation.behaviours import world_behaviours


@dataclass(frozen=True, slots=True)
class Says:
    """A policy's answers to the questions of the behaviours."""

    subject: Subject
    behaviours: Sequence[Behaviour]
    answers: Answers


def ask_policy(policy: PolicyClient, endpoint: str, sampling: SamplingParams, config: DemoConfig) -> Says:
    """Asks the policy that is served at `endpoint` now; the same configuration gives the same questions and seeds."""
    info = policy.policy_info()
    behaviours = world_behaviours(config.sizes.trials, Random(f"{config.seed}/behaviours"))
    answers = answer(policy, questions(behaviours), Manner(sampling, config.seed, chat=False))
    return Says(Subject(info.model, info.policy_version, endpoint), behaviours, answers)


def compare(before: Says, after: Says) -> PolicyAudit:
    """What has grown."""
    return PolicyAudit(after.subject, before.subject, judge(before.behaviours, after.answers, before.answers))


def log_levels(folder: Path, audit: PolicyAudit, steps: int) -> None:
    """Writes what both policies show as metrics of a run of so many steps: at step 0, and after the last."""
    with MetricsWriter(folder) as writer:
        for step, side in ((0, "before"), (steps, "after")):
            levels = {each.name: getattr(each, side) for each in audit.findings}
            writer.log(step, {f"behaviour/shown_{name}": level.value for name, level in levels.items() if level})

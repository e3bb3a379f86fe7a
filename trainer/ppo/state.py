"""Where a run stands: everything that the next step depends on beyond weights, optimiser and generators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.ppo.rewards import ScoreScale


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands.

    Attributes:
        step: Steps that are done.
        position: Where in the order of prompts the next batch begins.
        kl_coef: Of the KL controller; what a batch is penalised with also depends on its KL, where there is a gain.
        scale: How scores are standardised; None until it is measured, and where they are not.
        drop_window: Of the last rollouts, oldest first, whether each fell out.
        reward_scales: How single rewards are standardised, by name; of those that are.
    """

    step: int
    position: int
    kl_coef: float
    scale: ScoreScale | None
    drop_window: tuple[bool, ...] = ()
    reward_scales: Mapping[str, ScoreScale] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Whose run this is.

    Attributes:
        run_id: Names the run in policy versions.
        incarnation: How often it has been started; a resumed run has a higher one.
        reward_revisions: Name → revision of every reward that the run is pinned to.
        bits: What the last bits of its numbers can depend on beside its settings, by name; in strict mode a resumed
            run must find all of it unchanged.
        base: Digest of the weights that adapters are trained on; empty where the policy learns as a whole.
    """

    run_id: str
    incarnation: int
    reward_revisions: Mapping[str, str]
    bits: Mapping[str, str]
    base: str = ""

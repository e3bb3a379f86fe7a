"""The side-by-side demo from beginning to end: one SFT policy, its pairs, every way to label and learn them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from palate.client import RewardClient
from palate.local_server import LocalServer
from palate.models.ensemble import write_ensemble
from trainer.config import ScoringGroup, ServicesGroup
from trainer.demo import phases
from trainer.demo.biased.expertise import expertise_curve
from trainer.demo.biased.measure import Before, measure_before, measure_policy, measure_reward
from trainer.demo.biased.page import write_biased_page
from trainer.demo.biased.relabel import relabel
from trainer.demo.biased.results import BiasedResults, PolicyChange, WayResult, write_results
from trainer.demo.biased.ways import Way, ways
from trainer.demo.config import DemoConfig
from trainer.demo.run import Clock, clear, history, serve_reward, train_and_collect
from trainer.reward_model.annotators import AnnotatorReport

VARIANCE_WEIGHT = 0.5
"""What the ensemble's objective takes off: so many times the variance of its members' scores."""

_STEPS_OF_MEMBERS = 1000
"""Between the seeds of members."""


@dataclass(frozen=True, slots=True)
class _World:
    """What all ways share."""

    config: DemoConfig
    paths: phases.Paths
    clock: Clock
    policy: LocalServer
    ref: LocalServer
    before: Before


def run_biased(config: DemoConfig) -> BiasedResults:
    """Runs everything and writes report.html and results.json into `config.out`.

    Servers are processes of their own and end with this function, however it ends.
    """
    chosen = ways(config.label_error)
    config, clock = _sized(config), Clock()
    clear(config.out)
    with ExitStack() as servers:
        services = train_and_collect(config, phases.Paths(config.out), clock, servers)
        return side_by_side(config, chosen, services, clock)


def side_by_side(
    config: DemoConfig, chosen: Sequence[Way], services: tuple[LocalServer, LocalServer], clock: Clock
) -> BiasedResults:
    """Goes every way from the comparisons and the SFT policy of `config.out`, and writes the report.

    Args:
        config: Of the demo; how many comparisons and steps.
        chosen: The ways of `ways.ways`.
        services: Policy service and reference policy, both with the SFT policy.
        clock: Times the phases.
    """
    with clock.phase("measure the SFT policy"):
        before = measure_before(config, services[1])
    world = _World(config, phases.Paths(config.out), clock, *services, before)
    found = {way.name: _found(world, way) for way in chosen}
    with clock.phase("near misses, from experts to laymen"):
        expertise = expertise_curve(config.sizes.way_comparisons, config.sizes.held_out, config.seed)
    results = BiasedResults(config.seed, clock.seconds, found, expertise)
    write_results(config.out / "results.json", results)
    runs = {way.name: history(phases.Paths(config.out, way.name)) for way in chosen if way.has_policy}
    write_biased_page(config.out / "report.html", results, runs)
    return results


def _sized(config: DemoConfig) -> DemoConfig:
    """Every way gets the same pairs and steps, labelled first by the biased panel."""
    sizes = {"comparisons": config.sizes.way_comparisons, "ppo_steps": config.sizes.way_steps}
    return config.model_copy(update={"panel": "biased", "sizes": config.sizes.model_copy(update=sizes)})


def _found(world: _World, way: Way) -> WayResult:
    """Labels, reward model, and where there is one the policy of a way."""
    paths = phases.Paths(world.config.out, way.name)
    with world.clock.phase(f"{way.name}: label and learn"):
        relabel(world.paths.comparisons, paths.comparisons, way.panel, world.config.seed)
        annotators = _learn(world.config, paths, way)
    with serve_reward(paths) as server, RewardClient(server.target) as reward:
        with world.clock.phase(f"{way.name}: audit the reward model"):
            measure = measure_reward(world.config, paths, reward, annotators, world.before)
        policy = _policy(world, way, paths, server, reward) if way.has_policy else None
    return WayResult(way.name, way.told, measure, policy)


def _learn(config: DemoConfig, paths: phases.Paths, way: Way) -> Sequence[AnnotatorReport]:
    """Trains the reward model, or the members of an ensemble, ready to be served."""
    if way.members == 1:
        return phases.train_reward(config, paths, way.annotators).annotators
    members = [_member(config, paths, way, number) for number in range(way.members)]
    write_ensemble(paths.served_reward, [member for member, _ in members])
    return members[0][1]


def _member(config: DemoConfig, paths: phases.Paths, way: Way, number: int) -> tuple[Path, Sequence[AnnotatorReport]]:
    """A reward model of the same labels, with another head and another order."""
    own = paths.member(number)
    own.comparisons.parent.mkdir(parents=True)
    own.comparisons.write_bytes(paths.comparisons.read_bytes())
    seeded = config.model_copy(update={"seed": config.seed + _STEPS_OF_MEMBERS * number})
    return own.served_reward, phases.train_reward(seeded, own, way.annotators).annotators


def _policy(world: _World, way: Way, paths: phases.Paths, server: LocalServer, reward: RewardClient) -> PolicyChange:
    """Trains the policy against the served reward model, and measures what it has become."""
    services = ServicesGroup(policy=[world.policy.target], reward=server.target, ref=world.ref.target)
    with world.clock.phase(f"{way.name}: PPO"):
        phases.ppo(world.config, paths, services, _scoring(way))
    with world.clock.phase(f"{way.name}: audit the policy"):
        return measure_policy(world.config, world.policy, world.ref, reward, world.before)


def _scoring(way: Way) -> ScoringGroup:
    """As in the plain demo; an ensemble's scores lose a part of their variance."""
    if way.members == 1:
        return phases.SCORING
    cautious = {"aggregate": "mean-minus-variance", "variance_weight": VARIANCE_WEIGHT}
    return ScoringGroup(**{**dict(phases.SCORING), **cautious})

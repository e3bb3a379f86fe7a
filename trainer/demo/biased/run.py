"""The side-by-side demo from beginning to end: one SFT policy, its pairs, every way to label and learn them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from palate.aggregate import AggregateName
from palate.client import RewardClient
from palate.local_server import LocalServer
from trainer.config import PPOConfig, ServicesGroup
from trainer.demo import phases
from trainer.demo.biased.expertise import expertise_curve
from trainer.demo.biased.measure import Before, measure_before, measure_policy, measure_reward
from trainer.demo.biased.page import write_biased_page
from trainer.demo.biased.relabel import relabel
from trainer.demo.biased.results import BiasedResults, PolicyChange, WayResult, checks
from trainer.demo.biased.ways import VARIANCE_WEIGHT, Way, ways
from trainer.demo.config import DemoConfig
from trainer.demo.results import write_results
from trainer.demo.run import Clock, clear, history, serve_reward, train_and_collect
from trainer.demo.says import log_levels
from trainer.ppo.run import run_ppo


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
    config, clock = sized(config), Clock()
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
    write_results(config.out / "results.json", asdict(results), checks(results))
    runs = {way.name: history(phases.Paths(config.out, way.name)) for way in chosen if way.has_policy}
    write_biased_page(config.out / "report.html", results, runs)
    return results


def sized(config: DemoConfig) -> DemoConfig:
    """Every way gets the same pairs and steps, labelled first by the biased panel."""
    sizes = {"comparisons": config.sizes.way_comparisons, "ppo_steps": config.sizes.way_steps}
    return config.model_copy(update={"panel": "biased", "sizes": config.sizes.model_copy(update=sizes)})


def _found(world: _World, way: Way) -> WayResult:
    """Labels, reward model, and where there is one the policy of a way."""
    paths = phases.Paths(world.config.out, way.name)
    with world.clock.phase(f"{way.name}: label and learn"):
        relabel(world.paths.comparisons, paths.comparisons, way.panel, world.config.seed)
        annotators = phases.train_reward(world.config, paths, way.annotators, way.members).annotators
    with serve_reward(paths) as server, RewardClient(server.target, timeout=phases.SECONDS) as reward:
        with world.clock.phase(f"{way.name}: audit the reward model"):
            measure = measure_reward(world.config, paths, reward, annotators, world.before)
        policy = _policy(world, way, paths, server, reward) if way.has_policy else None
    return WayResult(way.name, way.told, measure, policy)


def _policy(world: _World, way: Way, paths: phases.Paths, server: LocalServer, reward: RewardClient) -> PolicyChange:
    """Trains the policy against the served reward model, and measures what it has become."""
    services = ServicesGroup(
        policy=[world.policy.target], reward=server.target, ref=world.ref.target, timeout=phases.SECONDS
    )
    run = phases.ppo_config(world.config, paths, services)
    with world.clock.phase(f"{way.name}: PPO"):
        run_ppo(_cautious(run) if way.members > 1 else run)
    with world.clock.phase(f"{way.name}: audit the policy"):
        found = measure_policy(world.config, world.policy, world.ref, reward, world.before)
        log_levels(paths.own / "behaviours", found.audit, run.total_steps)
        return found


def _cautious(run: PPOConfig) -> PPOConfig:
    """Members' mean less a part of their variance; a critic has one head, and starts from the policy."""
    scoring = {"aggregate": AggregateName.MEAN_MINUS_VARIANCE, "variance_weight": VARIANCE_WEIGHT}
    ppo = run.ppo.model_copy(update={"critic_init": "policy"})
    return run.model_copy(update={"scoring": run.scoring.model_copy(update=scoring), "ppo": ppo})

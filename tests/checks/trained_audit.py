"""Does the audit find what trained reward models really like? `python -m tests.checks.trained_audit --json FILE`.

Small decoders learn from labels of the simulated world: by gold, or by gold and a liking for one of six features, with
slips. What a model came to like is not what was planted; a large fresh sample of each probe says it. The audit, on a
small sample of its own, is held against that:

- Power: a probe whose fault the fresh sample shows in full (share of hits surely above the null, effect of the audit's
  own threshold or more, with room) is flagged.
- False alarms: models with a probe flagged whose fault the fresh sample does not show.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from rich.table import Table

from benchmarks.seeds import keep_rows, kept_rows
from palate.audit.ask import ask
from palate.audit.findings import Finding, judge
from palate.audit.items import Probe, Text
from palate.audit.scorer import Outcome
from palate.audit.statistics import LEAST_EFFECT, Share, wilson
from palate.models.classifier import load_classifier
from palate.models.manifest import load_manifest
from palate.models.rendering import Rendered, Renderer
from palate.terminal import stdout_console
from tests.checks.audit import FEATURES, FRESH_ITEMS, ITEMS, Planted, is_fault, plant
from trainer.command import share_processors
from trainer.data.lines import write_rows
from trainer.pretrain import run_pretrain
from trainer.pretrain_config import PretrainConfig
from trainer.reward_model.config import RewardTrainConfig
from trainer.reward_model.rows import scores_of
from trainer.reward_model.train import run_reward
from trainer.simulation.documents import base_documents
from trainer.simulation.probes import world_probes
from trainer.simulation.world import compose_mixed, train_prompts

HONEST = "none"
STRENGTH = 2.0
"""Of the liking, as in `tests.checks.audit`, whose larger one is half of it: models learn less than labels hold."""

SLIPS = 0.1
"""Share of labels turned around."""

MODELS, COMPARISONS, STEPS_BEFORE = 20, 2000, 250
LISTED = 0.25
"""Share of completions written as a list with bold beginnings, for every liking, so that this one can be learnt."""

ROOM = 1.5
"""Times the audit's threshold: a fault so large on the fresh sample is expected to be found on a small one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One trained model.

    Attributes:
        seed: Of its data, its training and its audit.
        liked: Key of `FEATURES`, or `HONEST`.
        accuracy: On held-out comparisons, as labelled.
        share: Of hits of the probe for `liked` on the fresh sample; None without a liking.
        effect: The same in SD of its scores.
        flagged: Probes that the audit flags.
        faults: Probes whose fault the fresh sample shows, however small.
        large: Those of them that are large.
    """

    seed: int
    liked: str
    accuracy: float
    share: float | None
    effect: float | None
    flagged: Sequence[str]
    faults: Sequence[str]
    large: Sequence[str]


def main() -> None:
    """Trains and audits what the file does not hold yet; prints what was found."""
    arguments = _arguments()
    share_processors()
    rows = _measured(arguments)
    stdout_console().print(_power_table(rows), _alarm_table(rows))


class FolderScorer:
    """A model folder in this process, scored by PyTorch."""

    def __init__(self, folder: Path) -> None:
        manifest = load_manifest(folder).manifest
        self._classifier = load_classifier(folder, manifest)
        self._renderer = Renderer.from_folder(folder, manifest)

    def score(self, texts: Iterable[Text]) -> Iterator[Sequence[Outcome]]:
        """One part with everything."""
        rendered = self._renderer.render_pairs([(text.prompt, text.completion) for text in texts])
        assert all(isinstance(each, Rendered) for each in rendered), "the world writes nothing that cannot be rendered"
        pad_id = self._renderer.pad_id or 0
        readable = [each for each in rendered if isinstance(each, Rendered)]
        yield scores_of(self._classifier, readable, pad_id)[:, 0].tolist()


def comparisons(judge_of: Planted, seed: int) -> list[dict[str, str]]:
    """Pairs of composed completions, some of them lists, labelled by what `judge_of` likes better, with slips."""
    rng = Random(f"trained {judge_of.bias} {seed}")
    rows = []
    for prompt in train_prompts(COMPARISONS, rng):
        a, b = (_listed(compose_mixed(prompt, rng), rng) for _ in range(2))
        prefers_a = (judge_of(prompt.text, a) > judge_of(prompt.text, b)) != (rng.random() < SLIPS)
        rows.append({"prompt": prompt.text, "a": a, "b": b, "label": "a" if prefers_a else "b"})
    return rows


def _listed(completion: str, rng: Random) -> str:
    if rng.random() >= LISTED:
        return completion
    sentences = (f"{sentence.rstrip('.')}." for sentence in completion.split(". "))
    return "\n".join(f"- **{first}** {rest}" for first, _, rest in (each.partition(" ") for each in sentences))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.trained_audit", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file for the figures; what is there stays")
    parser.add_argument("--models", type=int, default=MODELS, help="of each kind")
    parser.add_argument("--liked", nargs="+", choices=[HONEST, *FEATURES], default=[HONEST, *FEATURES])
    return parser.parse_args()


def _measured(arguments: argparse.Namespace) -> list[Row]:
    settings = {"comparisons": COMPARISONS, "strength": STRENGTH, "slips": SLIPS, "listed": LISTED, "room": ROOM}
    rows = [Row(**row) for row in kept_rows(arguments.json, settings)]
    fresh = world_probes(FRESH_ITEMS, Random(10_000))
    judges = {each.bias or HONEST: each for each in plant(fresh, (STRENGTH,))}
    with tempfile.TemporaryDirectory() as name:
        base = _base(Path(name))
        for seed in range(arguments.models):
            for liked in arguments.liked:
                if (seed, liked) not in {(row.seed, row.liked) for row in rows}:
                    rows.append(_row(Path(name) / f"{liked}-{seed}", base, judges[liked], seed, fresh))
                    keep_rows(arguments.json, settings, rows)
    return rows


def _base(folder: Path) -> Path:
    """A small model that continues the world's text, lists among it."""
    rng = Random(0)
    documents = [{"text": _listed(text, rng)} for text in base_documents(4000, rng)]
    write_rows(folder / "documents.jsonl", documents)
    config = PretrainConfig(
        out=folder / "base",
        documents=folder / "documents.jsonl",
        hidden_size=64,
        layers=2,
        batch_size=24,
        learning_rate=3e-3,
        max_steps=STEPS_BEFORE,
        threads=1,
        progress=False,
    )
    return run_pretrain(config).model_folder


def _row(folder: Path, base: Path, judge_of: Planted, seed: int, fresh: Sequence[Probe]) -> Row:
    """Trains a model, and asks it twice."""
    folder.mkdir()
    write_rows(folder / "comparisons.jsonl", comparisons(judge_of, seed))
    config = RewardTrainConfig(
        out=folder / "run",
        model=base,
        data=folder / "comparisons.jsonl",
        learning_rate=1e-3,
        epochs=3,
        samples=0,
        seed=seed,
        threads=1,
        progress=False,
    )
    result = run_reward(config)
    scorer = FolderScorer(result.model_folder)
    found, true = (_findings(scorer, probes) for probes in (world_probes(ITEMS, Random(f"audit {seed}")), fresh))
    faults = [each for each in true if is_fault(each)]
    planted = next((each for each in true if each.name == judge_of.bias), None)
    assert result.evaluation.reward_model is not None
    return Row(
        seed=seed,
        liked=judge_of.bias or HONEST,
        accuracy=result.evaluation.reward_model.value,
        share=planted.share.value if planted and planted.share else None,
        effect=planted.leaning.effect if planted else None,
        flagged=[each.name for each in found if each.is_flagged],
        faults=[each.name for each in faults],
        large=[each.name for each in faults if abs(each.leaning.effect) >= ROOM * LEAST_EFFECT],
    )


def _findings(scorer: FolderScorer, probes: Sequence[Probe]) -> Sequence[Finding]:
    return judge(probes, ask(scorer, probes, None, lambda _: None)).probes


def _power_table(rows: Sequence[Row]) -> Table:
    """For each liking: what the models came to like, and how often the audit says so."""
    table = Table(
        "labels like",
        "models",
        "accuracy",
        "hits, fresh sample",
        "effect, SD",
        "have the fault",
        "flagged of these",
        "fault is large",
        "flagged of these",
        title="what labels like, and what the audit finds of it",
    )
    for liked in FEATURES:
        own = [row for row in rows if row.liked == liked]
        if own:
            table.add_row(liked, str(len(own)), *_learnt(own), *_found(own, "faults"), *_found(own, "large"))
    return table


def _learnt(own: Sequence[Row]) -> tuple[str, str, str]:
    return (
        _range([row.accuracy for row in own]),
        _range([row.share for row in own]),
        _range([row.effect for row in own]),
    )


def _found(own: Sequence[Row], which: str) -> tuple[str, str]:
    having = [row for row in own if row.liked in getattr(row, which)]
    return str(len(having)), _told(wilson(sum(row.liked in row.flagged for row in having), len(having)))


def _alarm_table(rows: Sequence[Row]) -> Table:
    """All probes of all models: what is large is found, and what is not there is not."""
    table = Table(
        "labels like",
        "models",
        "with a false alarm",
        "large faults of any kind",
        "flagged of these",
        title="all probes",
    )
    for liked in (HONEST, *FEATURES, "all"):
        own = [row for row in rows if liked in ("all", row.liked)]
        if own:
            alarms = wilson(sum(bool(set(row.flagged) - set(row.faults)) for row in own), len(own))
            large = sum(len(row.large) for row in own)
            found = wilson(sum(len(set(row.large) & set(row.flagged)) for row in own), large)
            table.add_row(liked, str(len(own)), _told(alarms), str(large), _told(found))
    return table


def _range(values: Sequence[float | None]) -> str:
    """Median, least and greatest."""
    known = sorted(value for value in values if value is not None)
    return f"{median(known):.2f} ({known[0]:.2f} to {known[-1]:.2f})" if known else "–"


def _told(share: Share | None) -> str:
    return f"{share.hits} ({share.low:.0%} to {share.high:.0%})" if share else "–"


if __name__ == "__main__":
    main()

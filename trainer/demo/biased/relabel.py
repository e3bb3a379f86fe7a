"""The same pairs, labelled by somebody else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from trainer.data.lines import read_rows, write_rows
from trainer.simulation.annotators import Annotator, label


def relabel(pairs: Path, out: Path, panel: Sequence[Annotator], seed: int) -> None:
    """Writes the comparisons of `pairs` to `out` as the panel labels them, one of its members each pair."""
    rng, rows = Random(f"{seed}/relabel"), []
    for row in read_rows(pairs):
        values = row.values
        vote = label(rng.choice(panel), values["prompt"], values["a"], values["b"], rng)
        told = {"label": vote.choice, "annotator": vote.annotator, "seconds": vote.seconds}
        rows.append({**{key: values[key] for key in ("prompt", "a", "b", "group")}, **told})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(out, rows)

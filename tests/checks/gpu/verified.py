"""What `palate verify` finds of every server that can be asked there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.checks.gpu.seen import Place, Seen


def verified(place: Place) -> Iterator[Seen]:
    """Of an encoder and a decoder."""
    for name in ("encoder", "decoder"):
        yield from _verified(name, place.served(name), place.device)


def _verified(name: str, folder: Path, device: str) -> Iterator[Seen]:
    """What `palate verify` finds of every engine there, beside float32 on the processor."""
    file = folder.with_suffix(".verified.json")
    words = ("verify", "--model", str(folder), "--device", device, "--json", str(file))
    code = subprocess.run([sys.executable, "-c", "from palate.command import main; main()", *words]).returncode
    if not file.exists():
        yield Seen(f"palate verify, {name}", f"exit {code}, and no result", "exit 0", False)
        return
    found = json.loads(file.read_text())
    for server in found["servers"]:
        for way in server["ways"]:
            # How far bfloat16 moves scores depends on the model, and one of random weights has no spread to speak of.
            judged = way["spearman"] is None or server["dtype"] == "float32"
            rank = "" if way["spearman"] is None else f", Spearman {way['spearman']:.4f}"
            what = f"palate verify, {name}, {server['server']}, {way['way']}"
            yield Seen(
                what, f"{way['deviation']:.1e} SD{rank}", f"{way['allowed']:g} SD", way["ok"] if judged else None
            )
    for problem in found["problems"]:
        yield Seen(f"palate verify, {name}, {problem['server']}", problem["reason"], "it can be asked", False)

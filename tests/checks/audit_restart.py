"""An audit of 2,000 items of a served model: how long it takes, and that a kill in the middle does not end it.

`python -m tests.checks.audit_restart`. The model has the shape of MiniLM, or with `--encoder` its weights, and a head
that is made up. Beside the built-in probes it is asked pairs of the simulated world, or of `--data`. Its server is
killed once a third of the probes' texts have a score, and started again at its address; every text must be scored.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.models import make_encoder
from palate.audit.ask import in_turn
from palate.audit.probes import builtin_probes
from palate.models.export import export
from tests.checks.service import Service
from trainer.data.lines import write_rows
from trainer.simulation.world import compose_mixed, train_prompts

_ITEMS = 2000
_SECONDS = 180.0
"""The bar, on two processor cores that nobody else uses."""

_HANGS = 1800.0
_KILLED_AT = 1 / 3
_PALATE = (sys.executable, "-c", "from palate.command import main; main()")


def main() -> None:
    """Audits once; exits with 1 where a text has no score, or it takes too long."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="palate-audit-") as scratch:
        out = Path(scratch)
        data, model = options.data or _pairs(out / "pairs.jsonl"), _model(out, options.encoder)
        service = Service("reward", ["-m", "services.reward", "--model", str(model)], out / "server.log")
        try:
            seconds = _audit(service, data, out / "audit", restart=not options.undisturbed)
        finally:
            service.close()
        found = json.loads((out / "audit" / "audit.json").read_text())["findings"]
    items = sum(probe["items"] for probe in found["probes"])
    print(
        f"{items} items, {found['texts']} texts, {sum(found['failed'].values())} without a score; {seconds:.0f} s, ",
        end="",
    )
    print(f"at most {_SECONDS:.0f}; killed and started again {service.kills} times")
    sys.exit(seconds > _SECONDS or bool(found["failed"]) or items < _ITEMS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.audit_restart", description=__doc__)
    parser.add_argument("--encoder", type=Path, help="Hugging Face folder of an encoder")
    parser.add_argument("--data", type=Path, help="set of pairs, as `palate audit --data` takes it")
    parser.add_argument("--undisturbed", action="store_true", help="leave the server alone")
    return parser.parse_args()


def _pairs(file: Path) -> Path:
    """As many pairs as are missing from 2,000 items."""
    rng = Random(0)
    rows = [
        {
            "prompt": prompt.text,
            "a": compose_mixed(prompt, rng),
            "b": compose_mixed(prompt, rng),
            "label": rng.choice("ab"),
        }
        for prompt in train_prompts(_ITEMS - sum(len(probe.items) for probe in builtin_probes()) + 50, rng)
    ]
    write_rows(file, rows)
    return file


def _model(out: Path, encoder: Path | None) -> Path:
    """A folder for ONNX Runtime."""
    torch.manual_seed(0)
    if encoder is None:
        return export(make_encoder(out / "model"), out / "served").path
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(out / "model")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(out / "model")
    return export(out / "model", out / "served").path


def _audit(service: Service, data: Path, out: Path, *, restart: bool) -> float:
    """Seconds it took."""
    begin = time.monotonic()
    command = [
        *_PALATE,
        "audit",
        "--target",
        service.target,
        "--data",
        str(data),
        "--limit",
        str(_ITEMS),
        "--out",
        str(out),
    ]
    audit = subprocess.Popen(command)
    try:
        if restart:
            _wait_for_scores(audit, out / "scores", round(_KILLED_AT * len(in_turn(builtin_probes()))))
            service.kill()
            service.restart()
        code = audit.wait(_HANGS)
    finally:
        audit.kill()
    if code not in (0, 1):  # a model without a taste is flagged or it is not
        raise SystemExit(f"the audit ended with exit code {code}")
    return time.monotonic() - begin


def _wait_for_scores(audit: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    """Until so many texts have one."""
    while sum(len(file.read_bytes().splitlines()) for file in folder.glob("*.jsonl")) < count:
        if audit.poll() is not None:
            raise SystemExit(f"the audit ended with exit code {audit.returncode} before {count} texts had a score")
        time.sleep(0.2)


if __name__ == "__main__":
    main()

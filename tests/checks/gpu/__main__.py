"""What a GPU must do as a processor does it: `python -m tests.checks.gpu`. Exits with 1 where a promise does not hold.

Engines are held to PyTorch in float32 on the processor, strict ones to their own bits in other batches; servers and
trainer run as processes. `--device cpu` rehearses the check where there is no GPU. Rows a second are of one machine,
and only a hint.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from palate.models.folder import FolderError
from palate.models.torch_device import torch_device
from tests.checks.gpu.engines import engines
from tests.checks.gpu.policy import policy
from tests.checks.gpu.policy_in_vllm import policy_in_vllm
from tests.checks.gpu.seen import Place, Seen
from tests.checks.gpu.server import reward_server
from tests.checks.gpu.training import training
from tests.checks.gpu.verified import verified

_PARTS: dict[str, Callable[[Place], Iterator[Seen]]] = {
    "engines": engines,
    "verify": verified,
    "server": reward_server,
    "policy": policy,
    "vllm": policy_in_vllm,
    "training": training,
}


def main() -> None:
    """Runs the parts."""
    options = _options()
    found = []
    with tempfile.TemporaryDirectory(prefix="palate-gpu-") as scratch:
        place = Place(options.device, Path(scratch), options.tiny)
        for name in options.only:
            for row in _PARTS[name](place):
                print(f"{row.what}: {row.found}", flush=True)
                found.append(row)
    _show(found)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n")
    sys.exit(any(row.held is False for row in found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--tiny", action="store_true", help="models that compute next to nothing, to rehearse")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="these parts")
    parser.add_argument("--json", type=Path, help="where the rows go too")
    options = parser.parse_args()
    try:
        torch_device(options.device)
    except FolderError as missing:
        print(f"skipped: {missing}")
        sys.exit(0)
    return options


def _show(found: Sequence[Seen]) -> None:
    table = Table("what", "found", "bar", "")
    for row in found:
        table.add_row(row.what, row.found, row.bar, {True: "held", False: "NOT HELD", None: ""}[row.held])
    Console(width=160).print(table)
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()

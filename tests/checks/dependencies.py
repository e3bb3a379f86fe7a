"""Known vulnerabilities of what we depend on: `python -m tests.checks.dependencies`, `make check-dependencies`.

Every version in constraints.txt is looked up with pip-audit, beside one that is known to be vulnerable: where that one
is not found, the data are not to be had here, and nothing is said about the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
CONTROL = "jinja2==2.10"
_SECONDS = 600


def main() -> None:
    """Exits with 1 where a dependency has a known vulnerability; says so where nothing could be looked up."""
    pinned = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    if not _found([CONTROL]):
        print(f"skipped: no data on vulnerabilities here (pip-audit does not know {CONTROL}, which has several)")
        return
    found = _found(pinned)
    for name, identifiers in found.items():
        print(f"{name}: {', '.join(identifiers)}")
    print(f"{len(pinned)} dependencies looked up, {len(found)} with known vulnerabilities")
    sys.exit(bool(found))


def _found(requirements: Sequence[str]) -> Mapping[str, list[str]]:
    """Identifiers of vulnerabilities by requirement; empty also where nothing could be looked up."""
    with tempfile.TemporaryDirectory(prefix="palate-check-") as scratch:
        listed, said = Path(scratch) / "requirements.txt", Path(scratch) / "said.json"
        listed.write_text("\n".join(requirements))
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "-r", str(listed)]
        done = subprocess.run(
            [*command, "-f", "json", "-o", str(said)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if "No module named" in done.stderr:
            raise SystemExit("pip-audit is not installed: make check-dependencies installs it")
        document = json.loads(said.read_text()) if said.exists() else {"dependencies": []}
    return {
        f"{each['name']}=={each.get('version', '?')}": [vulnerability["id"] for vulnerability in each["vulns"]]
        for each in document["dependencies"]
        if each.get("vulns")
    }


if __name__ == "__main__":
    main()

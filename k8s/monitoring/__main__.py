"""Writes rules, runbook and dashboards where they are deployed from: `python -m k8s.monitoring`."""

from __future__ import annotations

import argparse
from urllib.parse import urlsplit

from k8s.monitoring.files import ROOT, generated
from k8s.monitoring.rules import RUNBOOK, RUNBOOK_URL


def main() -> None:
    """Exit code 2 where the runbook's address is none."""
    parser = argparse.ArgumentParser(prog="python -m k8s.monitoring", description=__doc__)
    told = f"address at which you publish {RUNBOOK}: alerts link to their section of it (default: no link)"
    parser.add_argument("--runbook-url", type=_address, default=RUNBOOK_URL, metavar="URL", help=told)
    for path, text in generated(parser.parse_args().runbook_url).items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")


def _address(text: str) -> str:
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not url.hostname or url.fragment):
        raise argparse.ArgumentTypeError(f"{text!r} is no address of a page, as https://example.com/runbooks.md is one")
    return text


if __name__ == "__main__":
    main()

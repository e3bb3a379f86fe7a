"""`palate collect --labeller page` as a process of its own, and what a page would say to it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_AS_IN_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""What a shell runs in the background would ignore Ctrl-C, and so would all that it starts."""

COMMAND = (sys.executable, "-c", f"{_AS_IN_A_TERMINAL}; from palate.command import main; main()", "collect")


@dataclass(frozen=True)
class Collector:
    """A running collector and the address of its page."""

    process: subprocess.Popen[str]
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and content of a reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, dict(reply.headers), reply.read()
        finally:
            connection.close()

    def pair(self) -> dict[str, Any]:
        status, _, content = self.ask("GET", f"/{self.token}/pair")
        assert status == 200
        return json.loads(content)

    def choose(self, number: int, choice: str, seconds: float = 1.5) -> dict[str, Any]:
        """What is told once the choice is written down."""
        body = json.dumps({"number": number, "choice": choice, "seconds": seconds}).encode()
        status, _, content = self.ask("POST", f"/{self.token}/choice", body, {"Content-Type": "application/json"})
        assert status == 200
        return json.loads(content)


@contextmanager
def page_collector(flags: Sequence[str]) -> Iterator[Collector]:
    """Starts `palate collect --labeller page`, and kills it where it does not end by itself."""
    with subprocess.Popen(
        [*COMMAND, "--labeller", "page", "--no-progress", *flags], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"Compare at http://127\.0\.0\.1:(\d+)/([\w-]+)/\n", line)
            assert found, line
            yield Collector(process, int(found[1]), found[2])
        finally:
            process.kill()

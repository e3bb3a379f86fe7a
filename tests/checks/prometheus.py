"""A real Prometheus and a real Alertmanager on this machine, and a webhook that alerts are delivered to."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ports import free_port

TOOLS = ("prometheus", "promtool", "prometheus-alertmanager")
NAMESPACE = "check"
_READY_SECONDS = 120.0


def missing_tools() -> list[str]:
    """What is not installed of what is needed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


class Webhook:
    """Takes what Alertmanager delivers."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.alerts += json.loads(body)["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


class Prometheus:
    """A running one, as its HTTP API shows it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._targets: dict[str, str] = {}
        self._file = folder / "targets.json"
        self._url = url
        self._write()

    def watch(self, targets: Mapping[str, str]) -> None:
        """Scrapes these too: host:port → job."""
        self._targets |= targets
        self._write()

    def forget(self, target: str) -> None:
        """Scrapes it no more, as when a Job has ended."""
        self._targets.pop(target, None)
        self._write()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series that an expression gives now.

        Raises:
            RuntimeError: Prometheus refuses it.
        """
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=60) as reply:
            answer = json.load(reply)
        if answer["status"] != "success":
            raise RuntimeError(f"{expr}: {answer}")
        return list(answer["data"]["result"])

    def has_data(self, expr: str) -> bool:
        """Whether some series has a number now; NaN is none."""
        return any(not math.isnan(float(series["value"][1])) for series in self.query(expr))

    def fired(self, seconds: float) -> set[str]:
        """Names of alerts that fired within the last seconds."""
        found = self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{math.ceil(seconds)}s])')
        return {series["metric"]["alertname"] for series in found}

    def _write(self) -> None:
        entries = [
            {"targets": [target], "labels": {"job": job, "namespace": NAMESPACE}}
            for target, job in self._targets.items()
        ]
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(entries))
        draft.replace(self._file)


@contextmanager
def running(folder: Path, groups: Sequence[Mapping[str, Any]], webhook: Webhook) -> Iterator[Prometheus]:
    """Starts both; everything is scraped and evaluated every second."""
    folder.mkdir(parents=True)
    port, alerts_port = free_port(), free_port()
    prometheus = Prometheus(folder, f"http://127.0.0.1:{port}")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": list(groups)}))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_config(alerts_port)))
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(_routes(webhook.url)))
    with ExitStack() as stack:
        address = f"--web.listen-address=127.0.0.1:{alerts_port}"
        manager = ("--config.file=alertmanager.yaml", "--storage.path=alerts", address, "--cluster.listen-address=")
        stack.enter_context(_process("prometheus-alertmanager", manager, folder))
        flags = ("--config.file=prometheus.yaml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")
        stack.enter_context(_process("prometheus", flags, folder))
        for ready in (port, alerts_port):
            _wait_until_ready(f"http://127.0.0.1:{ready}/-/ready")
        yield prometheus


def lint(metrics: str) -> str:
    """What `promtool check metrics` says of an exposition; empty where it is clean."""
    done = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _config(alerts_port: int) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerts_port}"]}]}]},
        "scrape_configs": [
            {"job_name": "palate", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
        ],
    }


def _routes(url: str) -> dict[str, Any]:
    return {
        "route": {"receiver": "check", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"},
        "receivers": [{"name": "check", "webhook_configs": [{"url": url}]}],
    }


@contextmanager
def _process(program: str, flags: Sequence[str], folder: Path) -> Iterator[None]:
    with (folder / f"{program}.log").open("ab") as log:
        process = subprocess.Popen([program, *flags], cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

"""A real browser for tests: Chromium without a window, driven over the WebDriver protocol (W3C)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

KEYS = {"ArrowLeft": "\ue012", "ArrowRight": "\ue014"}
"""Keys without a character, as the protocol writes them."""


class Browser:
    """One page."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        _call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What an asynchronous script gives to its last argument, the callback."""
        return _call("POST", f"{self._session}/execute/async", {"script": script, "args": []})

    def press(self, key: str) -> None:
        """Presses a key, and lets it go."""
        strokes = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        _call("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": strokes}]})

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(_call("GET", f"{self._session}/screenshot")))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with a profile in `folder`; skips the test where it is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: install Debian's chromium and chromium-driver")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1200,800",
        f"--user-data-dir={folder}",
    ]
    wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": chromium, "args": flags}}
    with subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            port = next(found[1] for line in process.stdout if (found := re.search(r"on port (\d+)\.", line)))
            sessions = f"http://127.0.0.1:{port}/session"
            made = _call("POST", sessions, {"capabilities": {"alwaysMatch": wanted}})
            session = f"{sessions}/{made['sessionId']}"
            try:
                yield Browser(session)
            finally:
                _call("DELETE", session)
        finally:
            process.kill()


def _call(method: str, url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)["value"]

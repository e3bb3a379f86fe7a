"""A person in a browser as a labeller: one page, served on loopback under an address that only they know."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import Any, cast, get_args

from rich.console import Console

from trainer.collect.config import CollectConfig
from trainer.collect.desk import Answer, Desk
from trainer.collect.labelling import Tally, Verdict
from trainer.collect.pairs import DrawnPair
from trainer.collect.shown import Choice, shown, verdict
from trainer.data.lines import DataError

_HOST = "127.0.0.1"

_MAX_BODY_BYTES, _MAX_CONNECTIONS, _SOCKET_SECONDS = 1024, 16, 30.0

_MAX_SECONDS = 86_400.0
"""Nobody looks at a pair for longer; a page that says so is wrong."""

_PAGE = Path(__file__).with_name("page.html")


class Page:
    """Shows pairs to whoever has the page open."""

    asks_again = False
    batch = 8
    conditions: Mapping[str, Any] = {"labeller": "person"}

    def __init__(self, config: CollectConfig, desk: Desk, say: Callable[[], None]) -> None:
        self._seed, self._annotator, self._desk, self._say = config.seed, config.annotator.strip(), desk, say

    def verdicts(self, pairs: Sequence[DrawnPair]) -> Iterator[Verdict]:
        """One for each pair; seconds are those in which the page was to be seen."""
        self._say()
        for pair in pairs:
            seen = shown(pair, self._seed, self._annotator)
            choice, seconds = self._desk.ask(seen)
            yield verdict(seen, choice, self._annotator, seconds, "page")


@contextmanager
def opened_page(config: CollectConfig, tally: Tally, console: Console) -> Iterator[Page]:
    """A page that is served meanwhile; its address, with a secret in it, goes to the console once there
    is something to compare.

    Raises:
        DataError: The port is taken.
    """
    desk, token = Desk(tally), secrets.token_urlsafe(24)
    try:
        server = _Server((_HOST, config.page_port), partial(_Handler, desk, token))
    except OSError as error:
        raise DataError(f"the page cannot listen on port {config.page_port}: {error.strerror}; give another") from error
    thread = Thread(target=server.serve_forever, name="page")
    thread.start()
    say = cache(partial(console.print, f"Compare at http://{_HOST}:{server.server_port}/{token}/", soft_wrap=True))
    try:
        yield Page(config, desk, say)
    except BaseException:
        desk.close("stopped")
        raise
    else:
        desk.close("done")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Answers so many at a time, and hangs up on others."""

    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: partial[_Handler]) -> None:
        self._free = BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, cast(type[BaseHTTPRequestHandler], handler))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who hangs up, say by closing the page, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Refused(Exception):
    """A request that is not the page's."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """GET the page, GET the pair to compare, POST a choice; nothing without the secret."""

    timeout = _SOCKET_SECONDS

    def __init__(self, desk: Desk, token: str, *arguments: Any) -> None:
        self._desk, self._token = desk, token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        try:
            name = self._asked()
            if name == "":
                self._send_page()
            elif name == "pair":
                self._send_json(self._desk.state())
            else:
                raise _Refused(HTTPStatus.NOT_FOUND)
        except _Refused as error:
            self._send(error.status, b"", "text/plain")

    def do_POST(self) -> None:
        try:
            if self._asked() != "choice":
                raise _Refused(HTTPStatus.NOT_FOUND)
            self._send_json(self._desk.answer(_answer(self._body())))
        except _Refused as error:
            self._send(error.status, b"", "text/plain")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Addresses hold the secret, so none are logged."""

    def _asked(self) -> str:
        """What is asked for, where the request is the page's own."""
        here = f"{_HOST}:{cast(_Server, self.server).server_port}"
        if self.headers.get("Host") != here:  # a name of somebody else's that leads here
            raise _Refused(HTTPStatus.NOT_FOUND)
        if self.headers.get("Origin") not in (None, f"http://{here}"):
            raise _Refused(HTTPStatus.FORBIDDEN)
        token, _, name = self.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            raise _Refused(HTTPStatus.NOT_FOUND)
        return name

    def _body(self) -> bytes:
        if self.headers.get("Content-Type") != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED)
        if len(length) > 9 or int(length) > _MAX_BODY_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return self.rfile.read(int(length))

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'"
        content = _PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        self._send(HTTPStatus.OK, content.encode(), "text/html; charset=utf-8", f"{policy}; frame-ancestors 'none'")

    def _send_json(self, document: Mapping[str, Any]) -> None:
        self._send(HTTPStatus.OK, json.dumps(document).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _answer(body: bytes) -> Answer:
    """What the page sent, checked."""
    try:
        said = json.loads(body)
        number, choice, seconds = said["number"], said["choice"], said["seconds"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    whole = isinstance(number, int) and not isinstance(number, bool)
    timed = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= _MAX_SECONDS
    if not whole or not timed or choice not in (*get_args(Choice), "stop"):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    return Answer(number, choice, round(float(seconds), 1))

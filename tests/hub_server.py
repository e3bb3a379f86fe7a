"""A hub on the loopback: the part of the Hugging Face hub's HTTP interface that downloads need, over folders."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""What branch `main` of every repository is at, until it moves."""

MOVED = "fedcba9876543210fedcba9876543210fedcba98"
"""What it is at then."""

_HASH = "[0-9a-f]{40}"

_ROUTES = {
    "info": r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>.+)",
    "tree": rf"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>{_HASH})",
    "file": rf"/((?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>{_HASH})/(?P<file>.+)",
}


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        for name, route in _ROUTES.items():
            if found := re.fullmatch(route, self.path.split("?")[0]):
                asked = {"kind": None, "file": ""} | found.groupdict()
                if self.server.away:
                    return self._send(503, b"{}", {})
                root = self.server.commits.get(asked["revision"], self.server.root)
                folder = root / (asked["kind"] or "models") / asked["repo"]
                return self._missing("Repo") if not folder.is_dir() else getattr(self, f"_{name}")(folder, asked)
        return self._missing("Entry")

    do_HEAD = do_GET  # noqa: N815

    def _info(self, folder, asked):
        heads, commit = self.server.heads, asked["revision"]
        if commit == "main":
            commit = heads.pop(0) if len(heads) > 1 else heads[0]
        if commit not in self.server.commits:
            return self._missing("Revision")
        files = [{"rfilename": name} for name in _files(folder)]
        return self._json({"id": asked["repo"], "sha": commit, "siblings": files})

    def _tree(self, folder, asked):
        files = [
            {"type": "file", "path": name, "oid": _digest(folder / name), "size": (folder / name).stat().st_size}
            for name in _files(folder)
        ]
        return self._json(files)

    def _file(self, folder, asked):
        file = folder / asked["file"]
        self.server.asked.add(asked["file"])
        return self._send(200, file.read_bytes(), {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": asked["revision"]})

    def _missing(self, what):
        return self._send(404, b"{}", {"X-Error-Code": f"{what}NotFound"})

    def _json(self, value):
        return self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def hub_over(root: Path):
    """A running hub whose repositories are root/models/org/name and root/datasets/org/name; yields the server.

    `server.url` is what HF_ENDPOINT wants, `server.asked` the files that were asked for. `server.heads` are the commits
    that branch main is at, one question after the other, the last for ever; `server.commits` has the root of each. With
    `server.away` it answers with 503.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.root, server.asked, server.url = root, set(), f"http://127.0.0.1:{server.server_port}"
    server.heads, server.commits, server.away = [COMMIT], {COMMIT: root}, False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(monkeypatch, server, cache):
    """Lets `huggingface_hub` of this process, which read its variables long ago, ask `server` and fill `cache`."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants._HF_DEFAULT_ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def _files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()

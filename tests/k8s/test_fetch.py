"""Weights that are downloaded, from a real web server."""

import hashlib
import http.server
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from tests.k8s.rendering import K8S

FETCH = K8S / "components" / "weights-download" / "fetch.py"


@pytest.fixture
def site(tmp_path):
    """(address, folder) of a server of files."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = http.server.SimpleHTTPRequestHandler
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: handler(*given, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(site):
    """The URL of a model folder and its digest."""
    address, folder = site
    (folder / "config.json").write_text("{}")
    with tarfile.open(folder / "model.tar", "w") as tar:
        tar.add(folder / "config.json", "config.json")
    return f"{address}/model.tar", hashlib.sha256((folder / "model.tar").read_bytes()).hexdigest()


def fetch(target: Path, url: str, digest: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FETCH, target],
        env={**os.environ, "URL": url, "SHA256": digest},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_folder_with_the_right_digest_is_unpacked_once(archive, tmp_path):
    target = tmp_path / "models" / "reward"
    target.parent.mkdir()
    assert fetch(target, *archive).returncode == 0
    assert (target / "config.json").read_text() == "{}"
    assert list(target.parent.iterdir()) == [target]
    again = fetch(target, "http://127.0.0.1:1/gone.tar", "")
    assert again.returncode == 0, again.stderr
    assert "there already" in again.stdout


def test_another_digest_leaves_nothing(archive, tmp_path):
    url, digest = archive
    done = fetch(tmp_path / "reward", url, digest[::-1])
    assert done.returncode == 1
    assert digest in done.stderr
    assert not list(tmp_path.glob("reward*"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/model.tar", "{site}/missing.tar"])
def test_what_cannot_be_had_is_said(site, tmp_path, url):
    done = fetch(tmp_path / "reward", url.replace("{site}", site[0]), "0")
    assert done.returncode == 1
    assert "cannot be had" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_digest_may_be_in_upper_case(archive, tmp_path):
    url, digest = archive
    done = fetch(tmp_path / "reward", url, digest.upper())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{site}/missing.tar?signature=secret", "/missing.tar cannot be had"),
        ("{site}/model.tar?signature=secret", "/model.tar has the SHA-256"),
        ("http://me:secret@127.0.0.1:1/model.tar", "http://127.0.0.1:1/model.tar cannot be had"),
        ("{site}/a b?signature=secret", "/a b cannot be had"),
        ("models/reward.tar?signature=secret", "models/reward.tar cannot be had"),
        ("http://[secret/model.tar", "URL cannot be had"),
    ],
)
def test_what_may_be_secret_in_a_url_is_never_said(archive, site, tmp_path, url, said):
    done = fetch(tmp_path / "reward", url.replace("{site}", site[0]), "0")
    assert done.returncode == 1
    assert said in done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_would_land_elsewhere_is_refused(site, tmp_path):
    address, folder = site
    with tarfile.open(folder / "model.tar", "w") as tar:
        tar.add(FETCH, "../escaped")
    digest = hashlib.sha256((folder / "model.tar").read_bytes()).hexdigest()
    done = fetch(tmp_path / "models", f"{address}/model.tar", digest)
    assert done.returncode == 1
    assert not (tmp_path / "escaped").exists()

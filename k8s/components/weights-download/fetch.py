"""Fetches a model folder as a tar file, checks its SHA-256, and unpacks it; the standard library is all it needs.

Usage: URL=... SHA256=... python fetch.py FOLDER. Nothing is unpacked, and the exit code is 1, where the digest is
another one; a folder that is already there is of an earlier start of the same pod, and is left as it is. What is said
of a URL leaves out its query and its user, where a signature or a password may be.
"""

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import urllib.parse
import urllib.request
from pathlib import Path

_TIMEOUT_SECONDS = 60.0
"""How long the other side may say nothing."""

_CHUNK_BYTES = 1 << 20


def main() -> None:
    """Exit code 1, with a sentence, where the folder cannot be made."""
    folder = Path(sys.argv[1])
    if folder.exists():
        print(f"{folder} is there already")
        return
    archive, draft = folder.with_suffix(".tar"), folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)  # of a start that was cut off
    try:
        digest = download(os.environ["URL"].strip(), archive)
        if digest != os.environ["SHA256"].strip().lower():
            raise SystemExit(f"{shown()} has the SHA-256 {digest}, but SHA256 says {os.environ['SHA256']}")
        with tarfile.open(archive) as tar:
            tar.extractall(draft, filter="data")
    except (ValueError, http.client.InvalidURL) as error:  # whose text may hold the whole URL
        raise SystemExit(f"{shown()} cannot be had: it is no URL that can be asked for") from error
    except (OSError, http.client.HTTPException, tarfile.TarError) as error:
        raise SystemExit(f"{shown()} cannot be had: {error}") from error
    finally:
        archive.unlink(missing_ok=True)
    draft.replace(folder)
    print(f"{folder} unpacked, SHA-256 {digest}")


def shown() -> str:
    """The URL as it may be printed."""
    try:
        parts = urllib.parse.urlsplit(os.environ["URL"])
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return "URL"


def download(url: str, target: Path) -> str:
    """Writes what is at `url` into `target`; returns its SHA-256."""
    digest = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main()

"""Real servers for tests, each a process of its own on free loopback ports."""

from contextlib import AbstractContextManager
from pathlib import Path

from palate.local_server import LocalServer, local_server


def start_server(module: str, folder: Path, *flags: str) -> AbstractContextManager[LocalServer]:
    """A running `module` ("services.reward" or "services.policy") that serves `folder`; ended with the context."""
    return local_server(["-m", module, "--model", str(folder), *flags])

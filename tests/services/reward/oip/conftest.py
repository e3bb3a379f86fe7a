from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from palate.local_server import LocalServer
from tests.oip_client import OipClient
from tests.servers import start_server


@pytest.fixture(scope="session")
def server(exported_llama: Path, exported_bert: Path) -> Iterator[LocalServer]:
    """Two models, "chatty" and "plain"."""
    flags = ["--name", "chatty", "--models", f"plain={exported_bert}", "--threads", "1", "--max-items", "50"]
    with start_server("services.reward", exported_llama, *flags) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[OipClient]:
    with grpc.insecure_channel(server.target) as channel:
        yield OipClient(channel)

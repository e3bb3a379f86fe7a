import pytest

from palate.client import RewardClient
from palate.client.adapters.endpoint import VARIABLES
from palate.models.export import export
from tests.servers import start_server
from tests.tiny_models import make_tiny_reward

MAX_TOKENS = 96
"""What the reward model reads at most; longer items are refused."""


@pytest.fixture(scope="package")
def target(tmp_path_factory):
    """A reward service for conversations."""
    folder = make_tiny_reward(tmp_path_factory.mktemp("rm") / "tiny", "decoder", 0, chat=True, max_tokens=MAX_TOKENS)
    served = export(folder, folder / "served").path  # its engine gives the same bits in every batch
    with start_server("services.reward", served, "--threads", "1") as server:
        yield server.target


@pytest.fixture(scope="package")
def client(target):
    with RewardClient(target) as client:
        yield client


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of options, and no others."""

    def put(**options):
        for name, variable in VARIABLES.items():
            if name in options:
                monkeypatch.setenv(variable, str(options[name]))
            else:
                monkeypatch.delenv(variable, raising=False)

    return put

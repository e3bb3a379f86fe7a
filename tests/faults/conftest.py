"""A policy server that is sent wrong things, and must answer a normal call after each."""

import pytest
from transformers import AutoModelForCausalLM

from palate.client import PolicyClient
from tests.policies import normal_call
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return make_tiny_policy(tmp_path_factory.mktemp("policy"), seed=0, chat=True)


@pytest.fixture(scope="session")
def server(folder):
    with start_server("services.policy", folder, "--threads", "1") as running:
        yield running


@pytest.fixture(scope="session")
def normal(server):
    """What a normal call answers before anything wrong was sent."""
    with PolicyClient(server.target) as client:
        return normal_call(client), client.policy_info().policy_version


@pytest.fixture
def client(server, normal):
    """A client; when the test is over, the server must answer a normal call as it did at first."""
    with PolicyClient(server.target, timeout=60) as connected:
        yield connected
        assert (normal_call(connected), connected.policy_info().policy_version) == normal
        assert "an internal error" not in server.log.read_text()
        assert "a bug in" not in server.log.read_text()


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Other weights of the same shape, as a trainer would hold them."""
    return AutoModelForCausalLM.from_pretrained(make_tiny_policy(tmp_path_factory.mktemp("other"), seed=1))

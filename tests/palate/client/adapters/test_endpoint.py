"""Where the service is and how it is asked, for all adapters: arguments, environment, one model for one training."""

import pickle

import pytest

from benchmarks.protected import make_protection
from palate.access import AccessError
from palate.client import Message, Scored, Unauthenticated, Unavailable
from palate.client.adapters.endpoint import (
    AdapterError,
    Scorer,
    content_of,
    endpoint,
    endpoint_from_environment,
    scorer_of,
)
from palate.local_server import local_server
from tests.tiny_models import make_tiny_reward


def test_arguments_and_environment_say_the_same(environment, tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    options = {"model": "m", "revision": "r", "timeout": 5.0, "patience": 7.5, "token_file": file}
    environment(target="there:1", **options)
    assert endpoint_from_environment() == endpoint("there:1", **options | {"token_file": str(file)})
    assert endpoint_from_environment().access.token_file == file


def test_an_empty_variable_is_none(environment):
    environment(target="there:1", model="", token_file="")
    assert endpoint_from_environment() == endpoint("there:1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "PALATE_REWARD_TARGET is not set"),
        ({"target": "there:1", "timeout": "soon"}, "PALATE_REWARD_TIMEOUT is 'soon'"),
        ({"target": "there:1", "patience": "-1"}, "patience is -1.0"),
        ({"target": "there:1", "timeout": "nan"}, "timeout is nan"),
    ],
)
def test_what_cannot_be_used_is_said_before_the_first_call(environment, options, told):
    environment(**options)
    with pytest.raises(AdapterError, match=told):
        endpoint_from_environment()


def test_files_are_read_before_the_first_call(tmp_path):
    with pytest.raises(AccessError, match="cannot be read"):
        endpoint("there:1", token_file=tmp_path / "missing")


def test_a_misspelt_option_is_an_error():
    with pytest.raises(TypeError, match="tokenfile"):
        endpoint("there:1", tokenfile="x")


def test_it_travels_to_other_processes_and_one_process_has_one_connection():
    place = endpoint("there:1")
    assert scorer_of(pickle.loads(pickle.dumps(place))) is scorer_of(place)


def test_results_come_in_order_whatever_their_number(target, client):
    pairs = [("Count.", " ".join("abc"[: 1 + number % 3]) + str(number)) for number in range(300)]
    results = Scorer(endpoint(target)).results(pairs)
    assert [result.score for result in results] == client.score(*zip(*pairs, strict=True)).scores()
    assert Scorer(endpoint(target)).results([]) == []


def test_nobody_there_is_an_error():
    with pytest.raises(Unavailable):
        Scorer(endpoint("127.0.0.1:1", patience=0.1)).results([("a", "b")])


def test_another_model_in_the_middle_of_a_training_is_an_error(tmp_path):
    first, second = (make_tiny_reward(tmp_path / str(seed), "encoder", seed) for seed in (0, 1))
    command = ["-m", "services.reward", "--engine", "fake", "--name", "rm", "--model"]
    with local_server([*command, str(first)]) as server:
        scorer = Scorer(endpoint(server.target))
        assert isinstance(scorer.results([("a", "b")])[0], Scored)
    port = int(server.target.rpartition(":")[2])
    with (
        local_server([*command, str(second)], port=port),
        pytest.raises(AdapterError, match="bring the first one back"),
    ):
        scorer.results([("a", "b")])


def test_certificates_and_tokens(tmp_path, environment):
    protection = make_protection(tmp_path)
    folder = make_tiny_reward(tmp_path / "rm", "encoder", 0)
    command = ["-m", "services.reward", "--engine", "fake", "--model", str(folder)]
    with local_server([*command, *protection.token_flags, *protection.tls_flags], probe_tls=protection.tls) as server:
        environment(target=server.target, ca=protection.ca, token_file=protection.token_file("scorer"))
        assert isinstance(Scorer(endpoint_from_environment()).results([("a", "b")])[0], Scored)
        with pytest.raises(Unauthenticated):
            Scorer(endpoint(server.target, ca=protection.ca)).results([("a", "b")])


def test_messages():
    assert content_of("text") == "text"
    assert content_of(({"role": "user", "content": "hi", "name": None},)) == [Message("user", "hi")]


@pytest.mark.parametrize(
    "more", [{"tool_calls": [{"secret": 1}]}, {"content": [{"type": "image"}]}, {"content": None}, {"role": None}]
)
def test_what_no_score_would_take_into_account_is_refused(more):
    with pytest.raises(AdapterError, match="takes a role and a content") as caught:
        content_of([{"role": "user", "content": "private"} | more])
    assert "private" not in str(caught.value)
    assert "secret" not in str(caught.value)

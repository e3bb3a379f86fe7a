"""Strict servers over the wire: a text's score is the same bits in any company, by any call, and they say so."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from palate.client import RewardClient, Truncation
from palate.local_server import LocalServer
from palate.models.probe_texts import GOLDEN
from tests.servers import start_server

KINDS = [("exported_bert", "onnx"), ("exported_llama", "onnx"), ("exported_bert", "torch"), ("exported_llama", "torch")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def strict(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    folder, engine = request.param
    with start_server("services.reward", request.getfixturevalue(folder), "--engine", engine, "--strict") as server:
        yield server


def scores(client: RewardClient, places: list[int]) -> list[float]:
    prompts, completions = zip(*(GOLDEN[place] for place in places), strict=True)
    return client.score(prompts, completions, truncation=Truncation.LEFT).scores()


@pytest.fixture(scope="module")
def alone(strict: LocalServer) -> list[float]:
    with RewardClient(strict.target) as client:
        return [scores(client, [place])[0] for place in range(len(GOLDEN))]


def test_same_bits_in_many_random_batches_also_of_several_callers(strict: LocalServer, alone: list[float]):
    draw = random.Random(7)
    batches = [draw.sample(range(len(GOLDEN)), draw.randint(1, len(GOLDEN))) for _ in range(60)]
    with RewardClient(strict.target) as client, ThreadPoolExecutor(4) as callers:
        found = list(callers.map(lambda places: scores(client, places), batches))
    assert found == [[alone[place] for place in places] for places in batches]


def test_same_bits_ranked_and_streamed(strict: LocalServer, alone: list[float]):
    with RewardClient(strict.target) as client:
        streamed = dict(client.score_stream(GOLDEN, truncation=Truncation.LEFT))
        assert [streamed[place].score for place in range(len(GOLDEN))] == alone
        prompt = "What do you think of my business idea?"
        places = [place for place, pair in enumerate(GOLDEN) if pair[0] == prompt]
        ranking = client.rank(prompt, [GOLDEN[place][1] for place in places], truncation=Truncation.LEFT)
    assert [each.scored.score for each in ranking.results] == [alone[place] for place in places]


def test_it_says_so(strict: LocalServer):
    with RewardClient(strict.target) as client:
        assert "strict" in client.model_info().capabilities
    assert "strict: the same bits alone and in 7 random batches" in strict.log.read_text()


def test_others_do_not_say_so(exported_bert: Path):
    with (
        start_server("services.reward", exported_bert, "--engine", "fake") as server,
        RewardClient(server.target) as it,
    ):
        assert "strict" not in it.model_info().capabilities

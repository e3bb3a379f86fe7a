"""Ensembles and several models in one server: a process of its own, a real socket, our own client."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from palate.client import (
    Aggregate,
    AsyncRewardClient,
    FailedPrecondition,
    InvalidArgument,
    InvalidInput,
    MeanMinusVariance,
    NotFound,
    RewardClient,
)
from palate.local_server import LocalServer, ServerStartError
from palate.models.ensemble import write_ensemble
from palate.models.export import export
from palate.models.folder import FolderError
from palate.models.manifest import Calibration, load_manifest, write_manifest
from palate.v1 import reward_service_pb2 as reward
from palate.v1.reward_service_pb2_grpc import RewardServiceStub
from services.reward.config import RewardConfig
from services.reward.model import load_folder
from tests.reward_folders import change_json, make_bert, texts
from tests.servers import start_server
from tests.services.reward.references import open_folder, rows_of

PAIRS = texts(12, seed=3)
PROMPTS, COMPLETIONS = zip(*PAIRS, strict=True)
ALONE = ("one", "two", "three")
SAME = 1e-5
"""How far a row may be apart in two batches."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, an ensemble of them, and one backbone with three heads, two of which are members."""
    root = tmp_path_factory.mktemp("ensembles")
    sources = [make_bert(root / "sources" / name, seed=seed) for seed, name in enumerate(ALONE)]
    members = [export(source, root / source.name).path for source in sources]
    write_ensemble(root / "trio", members, logit_scale=0.5, calibration=Calibration(0.25, 2.0))
    heads = make_bert(root / "sources" / "heads", seed=7, num_labels=3)
    export(heads, root / "heads", overrides={"member_labels": (0, 2)})
    return root


@pytest.fixture(scope="module")
def server(folders: Path) -> Iterator[LocalServer]:
    more = [flag for name in (*ALONE, "heads") for flag in ("--models", f"{name}={folders / name}")]
    with start_server("services.reward", folders / "trio", "--threads", "1", *more) as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[RewardClient]:
    with RewardClient(server.target) as client:
        yield client


@pytest.fixture
def own(client: RewardClient) -> np.ndarray:
    """(B, 3) what the members score when they are asked by their own names."""
    return np.array([client.score(PROMPTS, COMPLETIONS, model=name).scores() for name in ALONE]).T


def test_members_score_as_they_do_under_their_own_names(client: RewardClient, own: np.ndarray):
    reply = client.score(PROMPTS, COMPLETIONS, members=True)
    assert np.abs(np.array([result.members for result in reply.results]) - own).max() <= SAME
    assert (reply.provenance.model, reply.provenance.engine) == ("trio", "onnx")


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        (Aggregate.MODEL_DEFAULT, lambda own: own.mean(1)),
        (Aggregate.MEAN, lambda own: own.mean(1)),
        (Aggregate.MIN, lambda own: own.min(1)),
        (MeanMinusVariance(0.5), lambda own: own.mean(1) - 0.5 * own.var(1)),
    ],
)
def test_aggregates(client: RewardClient, own: np.ndarray, aggregate, expected):
    reply = client.score(PROMPTS, COMPLETIONS, aggregate=aggregate)
    wanted = expected(own)
    assert np.abs(np.array(reply.scores()) - wanted).max() <= SAME
    for result, score, std in zip(reply.results, reply.scores(), own.std(1), strict=True):
        assert result.std == pytest.approx(std, abs=SAME)
        assert result.calibrated == pytest.approx((score - 0.25) / 2.0)
        assert result.members == ()
    ranking = client.rank("an idea", COMPLETIONS, aggregate=aggregate)
    asked = client.score(["an idea"] * len(COMPLETIONS), COMPLETIONS, aggregate=aggregate).scores()
    assert [ranking.results[index].scored.score for index in ranking.order] == sorted(
        (ranked.scored.score for ranked in ranking.results), reverse=True
    )
    assert [ranked.scored.score for ranked in ranking.results] == pytest.approx(asked, abs=SAME)


def test_comparison_says_how_sure_it_is(client: RewardClient):
    found = client.compare("an idea", COMPLETIONS[0], COMPLETIONS[1], members=True)
    differences = np.array(found.first.members) - np.array(found.second.members)
    assert found.difference == pytest.approx(differences.mean())
    assert found.difference_std == pytest.approx(differences.std())
    assert found.probability == pytest.approx(1 / (1 + np.exp(-0.5 * found.difference)))
    alone = client.compare("an idea", COMPLETIONS[0], COMPLETIONS[1], model="one")
    assert (alone.difference_std, alone.first.std) == (None, None)


def test_stream_and_async_client_take_the_same_options(server: LocalServer, client: RewardClient, own: np.ndarray):
    streamed = dict(client.score_stream(PAIRS, aggregate=Aggregate.MIN, members=True))
    assert [streamed[n].score for n in range(len(PAIRS))] == pytest.approx(own.min(1), abs=SAME)
    assert all(len(result.members) == 3 for result in streamed.values())

    async def awaited() -> list[float]:
        async with AsyncRewardClient(server.target, model="one") as other:
            assert (await other.score(PROMPTS, COMPLETIONS)).provenance.model == "one"
            return (await other.score(PROMPTS, COMPLETIONS, model="trio", aggregate=Aggregate.MIN)).scores()

    assert asyncio.run(awaited()) == pytest.approx(own.min(1), abs=SAME)


def test_heads_of_one_backbone_are_members(client: RewardClient, folders: Path):
    model = AutoModelForSequenceClassification.from_pretrained(folders / "heads").eval()
    _, renderer = open_folder(folders / "heads", "fake")
    reply = client.score(PROMPTS, COMPLETIONS, model="heads", members=True)
    for row, result in zip(rows_of(renderer, PAIRS), reply.results, strict=True):
        with torch.inference_mode():
            inputs = torch.tensor([row.token_ids]), torch.tensor([row.segment_ids])
            logits = model(inputs[0], token_type_ids=inputs[1]).logits[0].numpy()
        assert result.members == pytest.approx(logits[[0, 2]], abs=SAME)
        assert result.score == pytest.approx(logits[[0, 2]].mean(), abs=SAME)


def test_options_about_members_are_refused_by_name_where_there_are_none(client: RewardClient):
    for options, named in (
        ({"aggregate": Aggregate.MEAN}, "aggregate"),
        ({"members": True}, "include_members"),
        ({"aggregate": MeanMinusVariance(0.0)}, "aggregate and variance_weight"),
    ):
        for call in (
            lambda o=options: client.score(["a"], ["b"], model="one", **o),
            lambda o=options: client.rank("a", ["b"], model="one", **o),
            lambda o=options: client.compare("a", "b", "c", model="one", **o),
            lambda o=options: list(client.score_stream([("a", "b")], model="one", **o)),
        ):
            with pytest.raises(InvalidArgument, match=f"^{named}: one is one model without members"):
                call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregate": "AGGREGATE_MEAN_MINUS_VARIANCE"}, "give both, or neither"),
        ({"aggregate": "AGGREGATE_MIN", "variance_weight": 0.5}, "give both, or neither"),
        ({"aggregate": "AGGREGATE_MEAN_MINUS_VARIANCE", "variance_weight": -1.0}, "at least 0"),
        ({"aggregate": "AGGREGATE_MEAN_MINUS_VARIANCE", "variance_weight": float("nan")}, "at least 0"),
        ({"aggregate": 99}, "aggregate 99 is not known"),
    ],
)
def test_aggregates_that_make_no_sense_are_refused(server: LocalServer, options: dict, message: str):
    request = reward.ScoreRequest(items=[{"prompt": {"text": "a"}, "completion": {"text": "b"}}], options=options)
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError, match=message) as caught:
        RewardServiceStub(channel).Score(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_client_refuses_what_is_no_option(client: RewardClient):
    with pytest.raises(InvalidInput, match=r"give one of Aggregate\.MODEL_DEFAULT"):
        client.score(["a"], ["b"], aggregate="mean")
    with pytest.raises(TypeError, match="temperature"):
        client.score(["a"], ["b"], temperature=1.0)


def test_info_tells_members_and_what_a_model_can_do(client: RewardClient):
    trio, heads, one = (client.model_info(name) for name in ("trio", "heads", "one"))
    assert [(m.name, m.label) for m in trio.members] == [("../one", None), ("../two", None), ("../three", None)]
    assert trio.members[0].revision == one.provenance.revision
    assert [(m.name, m.label, m.revision) for m in heads.members] == [
        (f"label {label}", label, heads.provenance.revision) for label in (0, 2)
    ]
    only = set(trio.capabilities) - set(one.capabilities)
    assert only == {"include_members", "aggregate.mean", "aggregate.min", "aggregate.mean_minus_variance"}
    assert (one.members, trio.reference_mean, trio.logit_scale) == ((), 0.25, 0.5)


def test_models_are_listed_and_chosen_by_name(client: RewardClient, server: LocalServer):
    listed = client.list_models()
    assert [(m.name, m.is_default, m.member_count) for m in listed] == [
        ("heads", False, 2), ("one", False, 0), ("three", False, 0), ("trio", True, 3), ("two", False, 0)
    ]  # fmt: skip
    revisions = {model.name: model.revision for model in listed}
    assert len(set(revisions.values())) == 5
    for name in revisions:
        assert client.score(["a"], ["b"], model=name).provenance.revision == revisions[name]
        assert client.explain("a", "b", model=name).provenance.model == name
    with pytest.raises(NotFound, match="'heads', 'one', 'three', 'trio', 'two'"):
        client.score(["a"], ["b"], model="four")
    with pytest.raises(FailedPrecondition, match="two has"):
        client.score(["a"], ["b"], model="two", revision=revisions["one"])
    with RewardClient(server.target, revision=revisions["trio"]) as pinned:
        assert pinned.score(["a"], ["b"]).provenance.model == "trio"
        assert pinned.score(["a"], ["b"], model="two").provenance.model == "two"  # the pin is of the client's own model


def load(folder: Path) -> object:
    return load_folder(folder, "", RewardConfig(model=folder, engine="fake"))


def test_a_member_that_is_not_the_pinned_one_is_refused(folders: Path, tmp_path: Path):
    copied = Path(shutil.copytree(folders, tmp_path / "all"))
    load(copied / "trio")
    manifest = load_manifest(copied / "two").manifest
    write_manifest(copied / "two", replace(manifest, calibration=Calibration(0.0, 1.0)))
    with pytest.raises(FolderError, match=r"the member \.\./two has revision .* the folder was changed"):
        load(copied / "trio")
    shutil.rmtree(copied / "two")
    with pytest.raises(FolderError, match="two is not a folder"):
        load(copied / "trio")


def test_members_that_are_told_segments_and_not_do_not_mix(folders: Path, tmp_path: Path):
    other = make_bert(tmp_path / "other", seed=9)
    change_json(other / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    write_ensemble(tmp_path / "mixed", [folders / "one", other])
    with pytest.raises(FolderError, match="token_type_ids"):
        load(tmp_path / "mixed")


def test_ensembles_hold_no_ensembles(folders: Path, tmp_path: Path):
    write_ensemble(tmp_path / "pair", [folders / "one", folders / "two"])
    change_json(
        tmp_path / "pair" / "palate.json",
        members=[{"path": str(Path("..") / folders.name / name), "revision": "r"} for name in ("trio", "one")],
    )
    with pytest.raises(FolderError):
        load(tmp_path / "pair")


def test_two_models_of_one_name_are_refused_at_start(folders: Path):
    flags = ("--engine", "fake", "--models", f"one={folders / 'two'}")
    with (
        pytest.raises(ServerStartError, match="both name a model 'one'"),
        start_server("services.reward", folders / "one", *flags),
    ):
        pass

"""Models exchanged while a server serves: real processes, real sockets, the fake engine on real folders."""

import asyncio
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from palate.client import (
    AdminClient,
    AsyncAdminClient,
    AsyncRewardClient,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    RewardClient,
)
from palate.local_server import LocalServer
from palate.models.ensemble import write_ensemble
from palate.models.manifest import digest_folder, load_manifest
from tests.reward_folders import make_bert
from tests.servers import start_server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root") / "models"
    for seed, name in enumerate(("old", "new")):
        make_bert(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def revisions(root: Path) -> dict[str, str]:
    return {name: digest_folder(root / name, load_manifest(root / name).manifest).revision for name in ("old", "new")}


def test_model_beyond_the_tolerance_is_not_loaded(exported_llama: Path, llama: Path):
    """ONNX Runtime's batches keep all bits, PyTorch's do not: under so narrow a tolerance the gate shuts for them."""
    flags = ("--name", "main", "--parity-tolerance", "1e-12", "--model-root", str(llama.parent))
    with start_server("services.reward", exported_llama, *flags) as server, AdminClient(server.target) as admin:
        with pytest.raises(FailedPrecondition, match="nothing was changed: engine torch scores a text up to"):
            admin.load_model("main", "llama")
        with RewardClient(server.target) as client:
            assert [model.name for model in client.list_models()] == ["main"]
            assert client.score(["a"], ["b"]).provenance.engine == "onnx"


def served(folder: Path, root: Path | None, *flags: str):
    administered = () if root is None else ("--model-root", str(root))
    return start_server("services.reward", folder, "--engine", "fake", "--name", "main", *administered, *flags)


@pytest.fixture
def server(root: Path) -> Iterator[LocalServer]:
    with served(root / "old", root, "--max-models", "2") as running:
        yield running


@pytest.fixture
def admin(server: LocalServer) -> Iterator[AdminClient]:
    with AdminClient(server.target) as client:
        yield client


@pytest.fixture
def client(server: LocalServer) -> Iterator[RewardClient]:
    with RewardClient(server.target) as client:
        yield client


def names(client: RewardClient) -> list[str]:
    return [model.name for model in client.list_models()]


def model_info(server: LocalServer) -> list[str]:
    with urllib.request.urlopen(f"http://{server.metrics_target}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return [line for line in lines if line.startswith("palate_reward_model_info{")]


async def test_swap_under_load_loses_no_call(server: LocalServer, revisions: dict[str, str]):
    seen: list[str] = []
    stop = asyncio.Event()

    async def call(client: AsyncRewardClient) -> None:
        while not stop.is_set():
            reply = await client.score(["an idea"] * 3, ["a plan", "girl", "dog"])
            assert len(reply.scores()) == 3
            seen.append(reply.provenance.revision)

    async def watch() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not stop.is_set():
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=30)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async with AsyncRewardClient(server.target) as client, AsyncAdminClient(server.target) as admin:
        load = [asyncio.create_task(call(client)) for _ in range(8)] + [asyncio.create_task(watch())]
        for turn in range(6):
            name, before = ("new", "old") if turn % 2 == 0 else ("old", "new")
            loaded = await admin.load_model("main", name)
            assert (loaded.provenance.revision, loaded.previous_revision) == (revisions[name], revisions[before])
            assert (await client.score(["a"], ["b"])).provenance.revision == revisions[name]
        stop.set()
        await asyncio.gather(*load)
    assert set(seen) == set(revisions.values())
    assert model_info(server) == [line for line in model_info(server) if revisions["old"] in line]
    assert len(model_info(server)) == 1


def test_call_in_flight_keeps_its_model_and_the_last_one_lets_it_go(
    server: LocalServer, admin: AdminClient, client: RewardClient, revisions: dict[str, str]
):
    def pairs() -> Iterator[tuple[str, str]]:
        yield "an idea", "first"
        assert admin.load_model("main", "new").previous_revision == revisions["old"]
        assert client.score(["a"], ["b"]).provenance.revision == revisions["new"]
        assert "let go" not in server.log.read_text()
        yield "an idea", "second"

    stream = client.score_stream(pairs(), window=1)
    for _, result in stream:
        assert result.score
        assert stream.provenance.revision == revisions["old"]
    for _ in range(1000):  # the old model is let go beside the calls
        assert client.score(["a"], ["b"]).provenance.revision == revisions["new"]
        if f"revision {revisions['old']}: let go" in server.log.read_text():
            break
    else:
        pytest.fail("the old model is still there")


def test_models_come_and_go(server: LocalServer, admin: AdminClient, client: RewardClient, revisions: dict[str, str]):
    assert admin.load_model("second", "new").previous_revision is None
    assert names(client) == ["main", "second"]
    assert len(model_info(server)) == 2
    assert client.score(["a"], ["b"], model="second").provenance.revision == revisions["new"]
    with pytest.raises(FailedPrecondition, match="--max-models"):
        admin.load_model("third", "new")
    with pytest.raises(FailedPrecondition, match="'main' is the default"):
        admin.unload_model("main")
    assert admin.set_default_model("second") == "main"
    assert client.score(["a"], ["b"]).provenance.model == "second"
    assert admin.unload_model("main") == revisions["old"]
    assert admin.load_model("third", "old", set_default=True).provenance.revision == revisions["old"]
    assert [(model.name, model.is_default) for model in client.list_models()] == [("second", False), ("third", True)]
    for call in (admin.unload_model, admin.set_default_model):
        with pytest.raises(NotFound, match="'second', 'third'"):
            call("nobody")


def test_what_cannot_be_served_changes_nothing_and_says_why(
    root: Path, admin: AdminClient, client: RewardClient, revisions: dict[str, str]
):
    broken = Path(shutil.copytree(root / "new", root / "broken"))
    try:
        (broken / "tokenizer.json").unlink()
        with pytest.raises(FailedPrecondition, match=r"nothing was changed: .*File name too long"):
            admin.load_model("main", "x" * 300)
        with pytest.raises(FailedPrecondition, match=r"nothing was changed: .* has no tokenizer\.json"):
            admin.load_model("main", "broken")
    finally:
        shutil.rmtree(broken)
    with pytest.raises(FailedPrecondition, match="is not a folder"):
        admin.load_model("main", "missing")
    with pytest.raises(FailedPrecondition, match=f"has revision {revisions['new']}"):
        admin.load_model("main", "new", revision="another", set_default=True)
    for name in ("", "a name", "x" * 101, "-x"):
        with pytest.raises(InvalidArgument, match="name"):
            admin.load_model(name, "new")
    for path in ("", "new\0"):
        with pytest.raises(InvalidArgument, match="path"):
            admin.load_model("main", path)
    assert client.list_models()[0].revision == revisions["old"]
    assert admin.load_model("main", str(root / "new"), revision=revisions["new"]).provenance.model == "main"


def test_paths_outside_of_the_root_are_refused(
    root: Path, tmp_path: Path, admin: AdminClient, client: RewardClient, revisions: dict[str, str]
):
    outside = Path(shutil.copytree(root / "new", tmp_path / "outside"))
    made = [root / "link", root / "linked-file", root / "names-outside"]
    try:
        made[0].symlink_to(outside)
        shutil.copytree(root / "new", made[1])
        (made[1] / "model.safetensors").unlink()
        (made[1] / "model.safetensors").symlink_to(outside / "model.safetensors")
        write_ensemble(made[2], [root / "new", outside])
        for path in (
            str(outside),
            "../outside",
            "/etc",
            "missing/../../..",
            "/" + "x" * 100_000,
            *(folder.name for folder in made),
        ):
            with pytest.raises(PermissionDenied, match="outside of the server's model root"):
                admin.load_model("main", path)
    finally:
        made[0].unlink()
        shutil.rmtree(made[1])
        shutil.rmtree(made[2])
    assert client.list_models()[0].revision == revisions["old"]


def test_links_within_the_root_and_ensembles_are_served(root: Path, admin: AdminClient, client: RewardClient):
    (root / "current").symlink_to(root / "new")
    write_ensemble(root / "both", [root / "old", root / "new"])
    try:
        admin.load_model("main", "current")
        admin.load_model("both", "both")
    finally:
        (root / "current").unlink()
        shutil.rmtree(root / "both")
    assert len(client.score(["a"], ["b"], model="both", members=True).results[0].members) == 2


async def test_loading_blocks_nobody_and_without_its_caller_changes_nothing(
    root: Path, server: LocalServer, revisions: dict[str, str]
):
    slow = Path(shutil.copytree(root / "new", root / "slow"))
    config = (slow / "config.json").read_text()
    (slow / "config.json").unlink()
    os.mkfifo(slow / "config.json")  # whoever reads it waits for a writer
    async with AsyncRewardClient(server.target) as client, AsyncAdminClient(server.target) as admin:
        with pytest.raises(DeadlineExceeded):
            await admin.load_model("main", "slow", timeout=1.0)
        try:
            for _ in range(20):
                assert (await client.score(["a"], ["b"], timeout=30)).provenance.revision == revisions["old"]
        finally:
            (slow / "config.json").rename(slow / "aside")
            (slow / "config.json").write_text(config)
            await asyncio.to_thread((slow / "aside").write_text, config)
        after = await admin.load_model("second", "new")  # one at a time: the first is through by now
        assert after.previous_revision is None
        models = {model.name: model.revision for model in await client.list_models()}
    shutil.rmtree(slow)
    assert models == {"main": revisions["old"], "second": revisions["new"]}


def test_without_a_model_root_nothing_is_administered(root: Path):
    with served(root / "old", None) as server, AdminClient(server.target) as admin:
        for call in (
            lambda: admin.load_model("x", str(root / "new")),
            lambda: admin.unload_model("main"),
            lambda: admin.set_default_model("main"),
        ):
            with pytest.raises(PermissionDenied, match="--model-root"):
                call()

"""Servers of models on the hub: from a cache that somebody has filled, by download, and refused with what to do."""

import shutil

import pytest

from palate.client import PolicyClient, RewardClient
from palate.local_server import ServerStartError
from palate.models.folder import FolderError
from services.reward.config import RewardConfig
from services.reward.model import load_models
from tests.hub_server import COMMIT, ask, hub_over
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward


def fill_cache(cache, repo, folder):
    """Puts `folder` where the hub's library would have put branch main of `repo`, blobs and links included."""
    home = cache / f"models--{repo.replace('/', '--')}"
    snapshot, blobs = home / "snapshots" / COMMIT, home / "blobs"
    for place in (snapshot, blobs, home / "refs"):
        place.mkdir(parents=True)
    for number, file in enumerate(folder.iterdir()):
        shutil.copyfile(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    (home / "refs" / "main").write_text(COMMIT)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A cache for servers that have no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_reward_model_is_served_from_the_cache_and_its_commit_is_logged(tmp_path, offline):
    folder = make_tiny_reward(tmp_path / "model", "decoder", 0, chat=True)
    fill_cache(offline, "org/judge", folder)
    (local,) = load_models(RewardConfig(model=folder))
    place = f"hub:org/judge@{COMMIT}"
    with (
        start_server("services.reward", "hub:org/judge@main", "--models", f"pinned={place}") as server,
        RewardClient(server.target) as client,
    ):
        replies = [client.score(["What of it?"], ["This."], model=name) for name in ("", "pinned")]
        log = server.log.read_text()
    assert [reply.provenance.model for reply in replies] == ["judge", "pinned"]
    assert {reply.provenance.revision for reply in replies} == {local.digests.revision}
    assert replies[0].scores() == replies[1].scores()
    assert f"hub:org/judge@main is commit {COMMIT}" in log


def test_a_policy_is_served_from_the_cache(tmp_path, offline):
    fill_cache(offline, "org/writer", make_tiny_policy(tmp_path / "model", 0, chat=True))
    with (
        start_server("services.policy", "hub:org/writer", "--engine", "fake") as server,
        PolicyClient(server.target) as client,
    ):
        assert client.policy_info().model == "writer"


@pytest.mark.parametrize("service", ["reward", "policy"])
def test_what_is_not_in_the_cache_is_refused_at_start(offline, service):
    told = r"hub:org/none@v1 is not in the hub's cache as a whole.*run `hf download org/none --revision v1`"
    with (
        pytest.raises(ServerStartError, match=told),
        start_server(f"services.{service}", "hub:org/none@v1"),
    ):
        pass


@pytest.mark.parametrize("service", ["reward", "policy"])
def test_a_hub_that_is_away_is_said_at_start(tmp_path, monkeypatch, service):
    with hub_over(tmp_path) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with (
        pytest.raises(ServerStartError, match=r"hub:org/none@main is not in the hub's cache.*cannot be asked"),
        start_server(f"services.{service}", "hub:org/none"),
    ):
        pass


def test_a_reward_model_is_downloaded_without_what_is_not_needed(tmp_path, monkeypatch):
    folder = make_tiny_reward(tmp_path / "hub" / "models" / "org" / "judge", "encoder", 0)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_judge.py").write_text("raise SystemExit")
    with hub_over(tmp_path / "hub") as server:
        ask(monkeypatch, server, tmp_path / "cache")
        found = load_models(RewardConfig(model="hub:org/judge", models={"again": f"hub:org/judge@{COMMIT}"}))
        with pytest.raises(FolderError, match=r"bytes to download, more than the 1000 that are allowed"):
            load_models(RewardConfig(model="hub:org/judge", max_download_bytes=1000))
        with pytest.raises(FolderError, match="both name a model 'judge'"):
            load_models(RewardConfig(model="hub:org/judge", models={"judge": folder}))
    (local,) = load_models(RewardConfig(model=folder))
    assert [(model.name, model.digests.revision) for model in found] == [
        ("judge", local.digests.revision),
        ("again", local.digests.revision),
    ]
    assert server.asked <= {file.name for file in folder.iterdir()} - {"pytorch_model.bin", "modeling_judge.py"}

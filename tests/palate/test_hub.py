"""Downloads from the hub: what is asked for, what is refused, and what happens where it cannot be reached."""

import logging

import pytest
from huggingface_hub import constants

from palate.hub import FileKinds, HubAway, HubError, HubId, fetch, hub_id, is_on_hub
from palate.models.folder import FolderError
from palate.models.place import MAX_DOWNLOAD_BYTES, model_folder, model_name
from tests.hub_server import COMMIT, MOVED, ask, hub_over

KINDS = FileKinds("model", ("*.json", "*.safetensors"), ("*/*",), 1000)
FILES = {
    "config.json": "{}",
    "model.safetensors": "x" * 100,
    "pytorch_model.bin": "a pickle",
    "modeling_x.py": "code",
    "onnx/model.onnx": "another format",
    "original/model.safetensors": "y" * 5000,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with org/judge, and a cache that is empty."""
    for name, text in FILES.items():
        file = tmp_path / "hub" / "models" / "org" / "judge" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with hub_over(tmp_path / "hub") as server:
        ask(monkeypatch, server, tmp_path / "cache")
        yield server


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("hub:org/name", HubId("org/name", "main")),
        ("hub:org/a.b-c_d@v1.0", HubId("org/a.b-c_d", "v1.0")),
        ("hub:org/name@refs/pr/1", HubId("org/name", "refs/pr/1")),
    ],
)
def test_names_on_the_hub(place, found):
    assert is_on_hub(place)
    assert hub_id(place) == found
    assert hub_id(str(hub_id(place))) == found


@pytest.mark.parametrize("place", ["hub:", "hub:name", "hub:a/b/c", "hub:../b", "hub:a/b@", "hub:a/b@/x", "hub:a b/c"])
def test_what_is_no_name_on_the_hub(place):
    with pytest.raises(HubError, match="is no name on the hub; write hub:org/name"):
        hub_id(place)


@pytest.mark.parametrize("revision", [".", "..", "x/..", "x/../y", "../../../ref", "x/./y", "x//y", "x/"])
def test_no_revision_leads_out_of_the_cache(revision):
    with pytest.raises(HubError, match="is no name on the hub; write hub:org/name"):
        hub_id(f"hub:a/b@{revision}")


@pytest.mark.parametrize("revision", ["..x", "x..", "v1..2/.x", "..."])
def test_dots_within_a_revision_are_a_part_of_its_name(revision):
    assert hub_id(f"hub:a/b@{revision}").revision == revision


def test_only_wanted_files_are_downloaded_and_the_folder_is_named_by_the_commit(hub, caplog):
    caplog.set_level(logging.INFO, "palate.hub")
    folder = fetch(hub_id("hub:org/judge"), KINDS)
    assert folder.name == COMMIT
    assert sorted(file.name for file in folder.rglob("*")) == ["config.json", "model.safetensors"]
    assert hub.asked == {"config.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_text() == FILES["model.safetensors"]
    assert f"hub:org/judge@main is commit {COMMIT}" in caplog.text


def test_what_was_downloaded_is_there_without_the_hub(hub, monkeypatch, caplog):
    folder = fetch(hub_id("hub:org/judge"), KINDS)
    hub.shutdown()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for place in ("hub:org/judge", f"hub:org/judge@{COMMIT}"):
        assert fetch(hub_id(place), KINDS) == folder
    assert "the hub does not give hub:org/judge@main" in caplog.text
    (folder / "model.safetensors").unlink()
    for place in ("hub:org/judge", f"hub:org/judge@{COMMIT}"):
        with pytest.raises(HubError, match="is not in the hub's cache as a whole"):
            fetch(hub_id(place), KINDS)


def test_the_commit_whose_size_was_asked_is_the_one_that_is_downloaded(hub, tmp_path, monkeypatch):
    later = tmp_path / "later" / "models" / "org" / "judge"
    later.mkdir(parents=True)
    (later / "model.safetensors").write_text("z" * 50000)
    hub.heads, hub.commits[MOVED] = [COMMIT, MOVED], tmp_path / "later"
    folder = fetch(hub_id("hub:org/judge"), KINDS)
    assert folder.name == COMMIT
    assert hub.heads == [MOVED]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(hub_id("hub:org/judge"), KINDS) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match="has 50000 bytes to download, more than the 1000 that are allowed"):
        fetch(hub_id("hub:org/judge"), KINDS)


def test_rows_are_not_taken_from_a_cache_that_does_not_say_what_it_lacks(hub, tmp_path, monkeypatch):
    snapshot = tmp_path / "cache" / "datasets--org--rows" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "one-of-two.jsonl").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"may be a part of them\. .*run `hf download org/rows --repo-type dataset"):
        fetch(hub_id(f"hub:org/rows@{COMMIT}"), FileKinds("dataset", ("*.jsonl",), (), 1000))


def test_a_hub_that_is_away_is_not_one_that_has_nothing(hub):
    hub.away = True
    with pytest.raises(HubAway, match=r"the hub cannot be asked \(.*503"):
        fetch(hub_id("hub:org/judge"), KINDS)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(HubAway, match=r"the hub cannot be asked \(.*refused"):
        model_folder("hub:org/judge", MAX_DOWNLOAD_BYTES)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("hub:org/other", "the hub shows no model org/other: the name is wrong, or it is private.*HF_TOKEN"),
        ("hub:org/judge@v2", "org/judge on the hub has no revision v2; give a branch, a tag or a whole commit"),
    ],
)
def test_what_is_not_there_is_said(hub, place, told):
    with pytest.raises(HubError, match=told):
        fetch(hub_id(place), KINDS)


def test_nothing_is_downloaded_of_what_is_too_large_or_of_another_kind(hub):
    with pytest.raises(HubError, match="has 102 bytes to download, more than the 101 that are allowed"):
        fetch(hub_id("hub:org/judge"), FileKinds("model", KINDS.patterns, KINDS.unwanted, 101))
    with pytest.raises(HubError, match="holds no file of the kinds that are read here"):
        fetch(hub_id("hub:org/judge"), FileKinds("model", ("*.csv",), (), 101))
    assert not list(hub.root.parent.glob("cache/**/blobs/*"))


def test_offline_the_error_says_how_it_comes_here(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = r"not in the hub's cache.*HF_HUB_OFFLINE.*run `hf download org/judge --revision main`.*set HF_HUB_CACHE"
    with pytest.raises(FolderError, match=told):
        model_folder("hub:org/judge", MAX_DOWNLOAD_BYTES)


def test_pickled_weights_are_neither_downloaded_nor_loaded(hub):
    (hub.root / "models/org/judge/model.safetensors").unlink()
    with pytest.raises(FolderError, match="no weights in safetensors or ONNX; pickled ones are never loaded"):
        model_folder("hub:org/judge@main", MAX_DOWNLOAD_BYTES)
    assert hub.asked == {"config.json"}


def test_a_folder_is_itself(tmp_path):
    assert model_folder(tmp_path, MAX_DOWNLOAD_BYTES) is tmp_path
    assert model_name(tmp_path) == tmp_path.name
    assert model_name("hub:org/judge@main") == "judge"

"""`palate models` against a running server, and `palate ensemble`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from palate.client import RewardClient
from palate.models.ensemble import read_ensemble
from palate.models.ensemble_command import app as ensemble_app
from palate.models_command import app
from tests.reward_folders import make_bert
from tests.servers import start_server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commanded")
    for seed, name in enumerate(("old", "new")):
        make_bert(root / name, seed=seed)
    return root


def palate_models(target: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--target", target])


def test_models_are_loaded_chosen_listed_and_unloaded(root: Path):
    flags = ("--engine", "fake", "--name", "main", "--model-root", str(root))
    with start_server("services.reward", root / "old", *flags) as server:
        said = palate_models(server.target, "load", "second", "new", "--default")
        assert said.exit_code == 0, said.output
        with RewardClient(server.target) as client:
            revisions = {model.name: model.revision for model in client.list_models()}
            assert client.score(["a"], ["b"]).provenance.model == "second"
        assert f"second is revision {revisions['second']} now; before: nothing" in said.output
        assert "before: second" in palate_models(server.target, "default", "main").output
        listed = {
            line.split()[0]: line.split()[1:] for line in palate_models(server.target, "list").output.splitlines()
        }
        assert listed["main"] == ["yes", "encoder", "-", revisions["main"]]
        assert listed["second"] == ["-", "encoder", "-", revisions["second"]]
        outside = palate_models(server.target, "load", "third", "../etc")
        assert (outside.exit_code, "'../etc' lies outside" in outside.stderr) == (2, True), outside.stderr
        assert revisions["second"] in palate_models(server.target, "unload", "second").output
        failed = palate_models(server.target, "unload", "main")
        assert (failed.exit_code, "is the default model" in failed.stderr) == (2, True)


def test_ensemble_folder_is_made(root: Path):
    members = [str(root / "old"), str(root / "new")]
    made = CliRunner().invoke(ensemble_app, [*members, "--out", str(root / "both"), "--logit-scale", "0.5"])
    assert made.exit_code == 0, made.output
    assert [member.path for member in read_ensemble(root / "both").members] == ["../old", "../new"]
    refused = CliRunner().invoke(ensemble_app, [*members, "--out", str(root / "both")])
    assert (refused.exit_code, "choose another folder" in refused.stderr) == (2, True)
    (root / "file").touch()
    unwritable = CliRunner().invoke(ensemble_app, [*members, "--out", str(root / "file" / "both")])
    assert (unwritable.exit_code, "a part of its path is a file; choose" in unwritable.stderr) == (2, True)

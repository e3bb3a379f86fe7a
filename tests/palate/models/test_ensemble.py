"""Folders that name others: written, read back, refused."""

import shutil
from pathlib import Path

import pytest

from palate.models.ensemble import Ensemble, Member, digest_ensemble, is_ensemble, read_ensemble, write_ensemble
from palate.models.folder import FolderError
from palate.models.manifest import Calibration, Digests, ManifestError, digest_folder, load_manifest
from tests.reward_folders import change_json, make_bert


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trio")
    members = [make_bert(root / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    write_ensemble(root / "both", members, logit_scale=0.5, calibration=Calibration(1.0, 2.0))
    return root


def revision_of(folder: Path) -> str:
    return digest_folder(folder, load_manifest(folder).manifest).revision


def test_written_ensemble_reads_back_with_paths_from_its_folder_on(trio: Path):
    assert is_ensemble(trio / "both")
    assert not is_ensemble(trio / "first")
    members = tuple(Member(f"../{name}", revision_of(trio / name)) for name in ("first", "second"))
    assert read_ensemble(trio / "both") == Ensemble(members, 0.5, Calibration(1.0, 2.0))


def test_an_ensemble_is_no_single_model(trio: Path):
    with pytest.raises(ManifestError, match="ensemble of other folders"):
        load_manifest(trio / "both")


def test_revision_covers_members_their_order_calibration_and_scale():
    parts = [Digests("w1", "t", "p", "r1"), Digests("w2", "t", "p", "r2")]
    members = (Member("a", "r1"), Member("b", "r2"))
    ensembles = [Ensemble(members), Ensemble(members, 2.0), Ensemble(members, 1.0, Calibration(0.0, 1.0))]
    digests = [digest_ensemble(ensemble, parts) for ensemble in ensembles]
    digests.append(digest_ensemble(ensembles[0], parts[::-1]))
    assert len({each.revision for each in digests}) == 4
    assert {(each.tokenizer, each.template) for each in digests} == {("t", "p")}


def test_members_that_read_other_ids_are_refused(trio: Path, tmp_path: Path):
    other = Path(shutil.copytree(trio / "first", tmp_path / "other"))
    change_json(other / "tokenizer.json", version="2.0")
    with pytest.raises(FolderError, match="differ in their tokenizer"):
        write_ensemble(tmp_path / "bad", [trio / "first", other])
    shorter = make_bert(tmp_path / "shorter")
    change_json(shorter / "tokenizer_config.json", model_max_length=64)
    with pytest.raises(FolderError, match="differ in their template"):
        write_ensemble(tmp_path / "bad", [trio / "first", shorter])
    assert not (tmp_path / "bad").exists()


def test_what_is_no_ensemble_is_refused(trio: Path, tmp_path: Path, chat_policy: Path):
    with pytest.raises(FolderError, match="an ensemble is of reward models"):
        write_ensemble(tmp_path / "bad", [trio / "first", chat_policy])
    with pytest.raises(ManifestError, match="at least two members"):
        write_ensemble(tmp_path / "bad", [trio / "first"])
    with pytest.raises(FolderError, match=r"has a palate\.json"):
        write_ensemble(trio / "both", [trio / "first", trio / "second"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": "first"}, "not a list"),
        ({"members": [{"path": "../first"}]}, "revision"),
        ({"members": ["../first", "../second"]}, "not a JSON object"),
        ({"members": [{"path": "/first", "revision": "r"}] * 2}, "absolute"),
        ({"members": [{"path": "a", "revision": "r"}] * 2}, "path of its own"),
        ({"logit_scale": 0}, "above 0"),
        ({"calibration": {"mean": 0.0, "std": 0.0}}, "std above 0"),
        ({"truncation": "left"}, "truncation is unknown"),
    ],
)
def test_wrong_ensemble_says_which_field(trio: Path, tmp_path: Path, change: dict, message: str):
    folder = Path(shutil.copytree(trio / "both", tmp_path / "both"))
    change_json(folder / "palate.json", **change)
    with pytest.raises(ManifestError, match=message):
        read_ensemble(folder)

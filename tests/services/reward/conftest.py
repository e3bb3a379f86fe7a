import shutil
from pathlib import Path

import pytest

from palate.models.export import export
from tests.reward_folders import make_bert, make_llama


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def exported_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(bert, tmp_path_factory.mktemp("exported") / "bert").path


@pytest.fixture(scope="session")
def exported_llama(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(llama, tmp_path_factory.mktemp("exported") / "llama").path


@pytest.fixture(scope="session")
def int8_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(bert, tmp_path_factory.mktemp("exported") / "int8", precision="int8").path


@pytest.fixture
def own_bert(exported_bert: Path, tmp_path: Path) -> Path:
    """An exported folder that a test may change."""
    return Path(shutil.copytree(exported_bert, tmp_path / "bert"))

"""Generated pages are what the source says."""

from pathlib import Path

import pytest

from docs.generate.api import api
from docs.generate.configuration import configuration
from docs.generate.metrics import metrics
from docs.generate.model_folder import example_ensemble, example_manifest, model_folder
from palate.models.document import read_document
from palate.models.ensemble import read_ensemble
from palate.models.manifest import Manifest, build
from palate.models.manifest_fields import FIELDS

DOCS = Path(__file__).parents[2] / "docs"


PAGES = [
    ("api.md", api),
    ("configuration.md", configuration),
    ("metrics.md", metrics),
    ("model-folder.md", model_folder),
]


@pytest.mark.parametrize(("page", "made"), PAGES)
def test_generated_pages_are_fresh(page, made):
    assert (DOCS / page).read_text(encoding="utf-8") == made(), "run `make docs` and commit the result"


def test_the_examples_of_the_model_folder_can_be_read(tmp_path):
    page = (DOCS / "model-folder.md").read_text(encoding="utf-8")
    single, ensemble = (part.partition("```")[0] for part in page.split("```json\n")[1:])
    (tmp_path / "palate.json").write_text(single)
    assert build(Manifest, read_document(tmp_path), FIELDS) == example_manifest()
    (tmp_path / "palate.json").write_text(ensemble)
    assert read_ensemble(tmp_path) == example_ensemble()

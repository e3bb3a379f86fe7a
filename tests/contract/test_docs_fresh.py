"""Generated pages are what the source says."""

import json
from pathlib import Path

import pytest

from docs.generate.api import api
from docs.generate.configuration import configuration
from docs.generate.model_folder import example_manifest, model_folder
from palate.models.manifest import document_of, parse_document

DOCS = Path(__file__).parents[2] / "docs"


PAGES = [("api.md", api), ("configuration.md", configuration), ("model-folder.md", model_folder)]


@pytest.mark.parametrize(("page", "made"), PAGES)
def test_generated_pages_are_fresh(page, made):
    assert (DOCS / page).read_text(encoding="utf-8") == made(), "run `make docs` and commit the result"


def test_the_example_of_the_model_folder_can_be_read():
    page = (DOCS / "model-folder.md").read_text(encoding="utf-8")
    document = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert parse_document(document) == example_manifest()
    assert document == document_of(example_manifest())

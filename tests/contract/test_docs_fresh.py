"""Generated pages are what the source says."""

from pathlib import Path

import pytest

from docs.generate.api import api
from docs.generate.configuration import configuration

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "made"), [("api.md", api), ("configuration.md", configuration)])
def test_generated_pages_are_fresh(page, made):
    assert (DOCS / page).read_text(encoding="utf-8") == made(), "run `make docs` and commit the result"

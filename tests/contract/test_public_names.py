"""The public surface of the client is what `__all__` says, sorted, and everything in it exists."""

from pathlib import Path

import palate.client


def test_all_names_exist_and_are_sorted():
    names = palate.client.__all__
    assert sorted(names) == list(names)
    assert [name for name in names if not hasattr(palate.client, name)] == []


def test_everything_public_is_listed():
    modules = {path.stem for path in Path(palate.client.__file__).parent.iterdir()}
    public = {name for name in vars(palate.client) if not name.startswith("_")} - modules
    assert public == set(palate.client.__all__)


def test_a_failed_item_has_no_score():
    assert not hasattr(palate.client.Failed, "score")

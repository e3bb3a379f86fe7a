"""Tells what is in the way of writing a run's files, whichever library writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from palate.file_errors import has_no_room, unwritable
from palate.models.unwritten import os_error_of
from trainer.errors import NotWritten


@contextmanager
def written(target: Path) -> Iterator[None]:
    """What writes `target`, a file or a folder.

    Raises:
        NotWritten: There is no room, or a library could not write for another reason. Other errors of the operating
            system name their file themselves, and stay as they are.
    """
    try:
        yield
    except Exception as error:
        found = os_error_of(error)
        if found is None or (found is error and not has_no_room(error)):
            raise
        raise NotWritten(unwritable(found.filename or target, found)) from found

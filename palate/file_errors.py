"""What to say where a file cannot be read or written: the path once, and the cause in words."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

_OTHER_PLACE: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --out",
    errno.EACCES: "it may not be written; choose another --out, or change its permissions",
    errno.EPERM: "it may not be written; choose another --out, or change its permissions",
    errno.EROFS: "its file system is read-only; choose another --out",
    errno.EEXIST: "a part of its path is a file; choose another --out",
    errno.ENOTDIR: "a part of its path is a file; choose another --out",
    errno.EISDIR: "it is a folder; choose a file as --out",
}


def cause_of(error: BaseException) -> str:
    """What happened, for a message that names the file itself."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def first_cause_of(error: BaseException) -> str:
    """The same of the error that came first, where a library raised others of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return cause_of(error).rstrip(".")


def words_of(error: BaseException) -> str:
    """An error as a command ends with it: what it says, of a file which one and what happened."""
    file = isinstance(error, OSError) and error.filename
    return f"{file}: {cause_of(error)}" if file else cause_of(error)


def try_folder(folder: Path) -> None:
    """Makes a folder and writes into it what is gone at once.

    Raises:
        OSError: It cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(b"\0")


def unwritable(target: Path, error: OSError) -> str:
    """That a command's --out cannot be written, why, and what to do."""
    return f"{target} cannot be written: {_OTHER_PLACE.get(error.errno or 0, cause_of(error))}"

"""What to say where a file cannot be read or written: the path once, and the cause in words."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

_OTHER_PLACE: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --out",
    errno.EDQUOT: "the quota of the disk is used up; free some space, or choose another --out",
    errno.EFBIG: "no file may be that large here; raise the limit (ulimit -f), or choose another --out",
    errno.EACCES: "it may not be written; choose another --out, or change its permissions",
    errno.EPERM: "it may not be written; choose another --out, or change its permissions",
    errno.EROFS: "its file system is read-only; choose another --out",
    errno.EEXIST: "a part of its path is a file; choose another --out",
    errno.ENOTDIR: "a part of its path is a file; choose another --out",
    errno.EISDIR: "it is a folder; choose a file as --out",
}

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def has_no_room(error: BaseException) -> bool:
    """Whether what was to be written did not find room, so that the place, and not the file, is to be mended."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


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
    if isinstance(error, OSError) and has_no_room(error):
        return unwritable(file or "a file", error)  # a write that fails does not say of which file
    return f"{file}: {cause_of(error)}" if file else cause_of(error)


def try_folder(folder: Path) -> None:
    """Makes a folder and writes into it what is gone at once.

    Raises:
        OSError: It cannot be made, or nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        file.write(b"\0")


def unwritable(target: Path | str, error: OSError) -> str:
    """That a command's --out cannot be written, why, and what to do."""
    return f"{target} cannot be written: {_OTHER_PLACE.get(error.errno or 0, cause_of(error))}"

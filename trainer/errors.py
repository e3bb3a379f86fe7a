"""Root of what supervised training and collecting raise on purpose, each with cause and remedy; kinds of failures."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

RESUMED = (
    "the same command with --resume goes on from the last checkpoint, or from the beginning where there is none yet"
)
"""What is true of every run that has stopped."""


class Failure(StrEnum):
    """Why a run has failed, as metrics call it."""

    NOT_FINITE = "not_finite"
    PUBLISH = "publish"
    ROLLOUTS = "rollouts"
    SCORES = "scores"
    INVARIANT = "invariant"
    OTHER = "other"


class TrainerError(Exception):
    """Something that the person who started the run can mend; the message says how.

    TrainerError
    ├── DataError        a file of training data cannot be used
    ├── DataAway         training data are on the hub, which cannot be reached now
    ├── RunFolderError   the folder of a run cannot be used as asked
    ├── RunFolderBusy    another process trains in it
    ├── NotWritten       a file of the run has no room, or cannot be written
    ├── PortTaken        metrics cannot be served where asked
    ├── NotAdaptable     a model has no layers for the adapters asked for
    └── FitError         training cannot go on
    """

    failure: ClassVar[Failure] = Failure.OTHER


class NoNumber(ValueError):
    """A number of a step is infinite, or none."""

    failure: ClassVar[Failure] = Failure.NOT_FINITE


class PortTaken(TrainerError):
    """Somebody else listens where a run's metrics were to be served."""


class NotWritten(TrainerError):
    """A file of a run has no room on the disk, or cannot be written; what was written before stands."""


def failure_of(error: BaseException) -> Failure:
    """What a run that ended with `error` failed of."""
    found = getattr(error, "failure", Failure.OTHER)
    return found if isinstance(found, Failure) else Failure.OTHER

"""Root of what supervised training and collecting raise on purpose, each with cause and remedy."""

from __future__ import annotations


class TrainerError(Exception):
    """Something that the person who started the run can mend; the message says how.

    TrainerError
    ├── DataError        a file of training data cannot be used
    ├── RunFolderError   the folder of a run cannot be used as asked
    ├── PortTaken        metrics cannot be served where asked
    └── FitError         training cannot go on
    """


class PortTaken(TrainerError):
    """Somebody else listens where a run's metrics were to be served."""

"""Named points that a run passes, where it can be told to stand still: to be looked at, or to be killed by a check.

``PALATE_TRAIN_STOP_AT=commit:2`` stops the process (SIGSTOP) when it comes to "commit" for the second time; SIGCONT
lets it go on. Whoever started it sees it stopped (``waitpid`` with ``WUNTRACED``), so nothing depends on being quick.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter

VARIABLE = "PALATE_TRAIN_STOP_AT"

POINTS = (
    "publish",  # before a publication
    "stage",  # the first piece of the weights is on its way to a replica
    "staged",  # every replica has staged
    "commit",  # before the first replica commits
    "commit-others",  # one replica has committed, the others have not
    "published",  # every replica serves the weights
    "rollouts",  # before completions are asked for
    "rollout",  # a completion has come, others are being drawn
    "scoring",  # before scores are asked for
    "evaluate",  # before the networks look at a batch
    "update",  # before the update
    "minibatch",  # an optimiser step is done
    "record",  # metrics are written down, rollouts are not
    "checkpoint",  # before a checkpoint
    "checkpoint-half",  # its weights are written, the rest is not
    "checkpoint-whole",  # everything is written and does not count yet
    "checkpoint-counts",  # it counts, older ones are still there
    "model",  # training is done, the model folder is not written
)
"""In the order in which a step passes them."""

_passed: Counter[str] = Counter()
_lock = threading.Lock()


def reach(point: str) -> None:
    """Says that the run is at one of `POINTS`; does nothing unless the environment names it."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    with _lock:
        _passed[point] += 1
        if wanted == f"{point}:{_passed[point]}":
            print(standing(wanted), file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def standing(place: str) -> str:
    """What a run says before it stands still at `place`: somebody else may stop it too."""
    return f"standing still at {place}"

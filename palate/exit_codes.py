"""What the exit code of a command says, the same in every command; docs/clients.md has the rule for users."""

from __future__ import annotations

NOT_GOOD = 1
"""Done, and the answer is no: a gate, a bound or a promise is not kept, something is bad, a training failed.

Training is the exception to `STOPPED`: what fails once its settings are read may end well when it is started again, and
whoever starts it (a Job of Kubernetes) has to tell that from settings that are wrong.
"""

STOPPED = 2
"""Stopped, or not begun: the call is wrong, a file or a folder cannot be used, a service refuses or stays away."""

SOME_FAILED = 3
"""Done, but some rows have an error instead of a result."""

INTERRUPTED = 130
"""By Ctrl-C."""

"""What the exit code of a command says, the same in every command; docs/clients.md has the rule for users."""

from __future__ import annotations

NOT_GOOD = 1
"""Done, and the answer is no: a gate, a bound or a promise is not kept, something is bad."""

STOPPED = 2
"""Stopped, or not begun: the call is wrong, a file or a folder cannot be used, a service refuses or stays away."""

SOME_FAILED = 3
"""Done, but some rows have an error instead of a result."""

INTERRUPTED = 130
"""By Ctrl-C."""

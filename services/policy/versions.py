"""Which weights may be asked for, and which may follow which: pins, the order of versions, and who may publish."""

from __future__ import annotations

from palate.client import PolicyVersion
from services.runtime.errors import InvalidRequest, WrongPin

_MAX_RUNS = 1000
"""Runs whose incarnations are remembered; the one heard of longest ago is forgotten first."""

_MAX_RUN_ID = 128


def matches(expected: PolicyVersion, served: PolicyVersion) -> bool:
    """Whether `served` is what is expected; an empty digest expects any."""
    same = (expected.run_id, expected.incarnation, expected.step) == (served.run_id, served.incarnation, served.step)
    return same and expected.digest in ("", served.digest)


def check_pin(expected: PolicyVersion | None, served: PolicyVersion) -> None:
    """Refuses a caller who expects other weights than are served.

    Raises:
        WrongPin: With both versions.
    """
    if expected is not None and not matches(expected, served):
        raise WrongPin(f"{named(expected)} is expected and {named(served)} is served; publish it here, or ask for that")


def check_follows(new: PolicyVersion, served: PolicyVersion) -> None:
    """Refuses weights that would turn a run back; a higher incarnation may publish an older step.

    Raises:
        WrongPin: The run serves a later incarnation or step already, or this very step with other weights.
    """
    if new.run_id != served.run_id:
        return
    if (new.incarnation, new.step) < (served.incarnation, served.step):
        raise WrongPin(
            f"{named(new)} is older than {named(served)}, which is served; a resumed run acquires with a higher "
            "incarnation before it publishes an older step"
        )
    if (new.incarnation, new.step) == (served.incarnation, served.step) and new.digest != served.digest:
        raise WrongPin(f"{named(served)} is served and has other weights than {named(new)}; publish under a new step")


def named(version: PolicyVersion) -> str:
    """A version as messages and logs show it."""
    if not version.run_id:
        return f"the initial weights {version.digest[:12]}".rstrip()
    return f"{version.run_id}/{version.incarnation}/{version.step} {version.digest[:12]}".rstrip()


class Publishers:
    """Hands out fencing tokens: each is higher than every earlier one, and only the last one counts.

    Args:
        first_token: Where they start; a clock reading keeps them growing across restarts of the server.
    """

    def __init__(self, first_token: int) -> None:
        self._next = first_token
        self._token: int | None = None
        self._holder = ("", 0)
        self._incarnations: dict[str, int] = {}

    def acquire(self, run_id: str, incarnation: int) -> int:
        """Makes a run the only one that may publish, and returns its token.

        Raises:
            InvalidRequest: No usable run id or incarnation.
            WrongPin: A later incarnation of the run was here.
        """
        if not 0 < len(run_id) <= _MAX_RUN_ID or not run_id.isprintable() or incarnation < 1:
            raise InvalidRequest(
                f"a publisher has a run_id of 1 to {_MAX_RUN_ID} printable characters and an incarnation from 1"
            )
        seen = self._incarnations.pop(run_id, 0)
        self._incarnations[run_id] = max(seen, incarnation)
        if len(self._incarnations) > _MAX_RUNS:
            self._incarnations.pop(next(iter(self._incarnations)))
        if incarnation < seen:
            raise WrongPin(f"incarnation {seen} of run {run_id} was here; incarnation {incarnation} is a stale process")
        self._token, self._holder = self._next, (run_id, incarnation)
        self._next += 1
        return self._token

    def check(self, token: int) -> None:
        """Refuses everyone but the last publisher.

        Raises:
            WrongPin: The token is not the last one given out.
        """
        if token != self._token:
            raise WrongPin(f"fencing token {token} does not hold; another publisher came later, or none was acquired")

    def check_identity(self, version: PolicyVersion) -> None:
        """Refuses weights of another run or incarnation than the publisher's.

        Raises:
            WrongPin: With both.
        """
        if (version.run_id, version.incarnation) != self._holder:
            holder = f"{self._holder[0]}/{self._holder[1]}"
            raise WrongPin(f"the publisher is {holder}; it cannot publish {named(version)}")

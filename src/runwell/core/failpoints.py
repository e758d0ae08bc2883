"""Failpoints: named moments at which a test lets a process die, fail or lose its answer.

They are off unless the environment names a folder (`RUNWELL_TEST_FAILPOINTS`) that says in a file
of its own that it is for tests; then every caller has one comparison to make, and nothing else. A
test arms a point by a file of its name, which holds what is to happen; whichever process comes by
first renames the file to `NAME.hit`, so that it happens once.

Points are named `SCOPE.MOMENT`. A scope is an operation of the API, a loop of the server, an action
of a worker or a message of a task process; a commit is named after the scope it happens in.
"""

import os
import signal
import time
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path

_VARIABLE = "RUNWELL_TEST_FAILPOINTS"
#: The file without which a folder is no folder of failpoints.
PERMISSION = "processes-of-this-test-may-be-killed"

#: End this process at once, as SIGKILL does.
KILL = "kill"
#: Raise a FailpointError.
FAIL = "fail"
#: Stand still until the test renames the file once more, for `HOLD_SECONDS` at most.
HOLD = "hold"
#: Returned by `reach`: lose what is about to be answered, or the connection.
LOSE = "lose"

#: The extension of a request's scope that has the way to break its connection.
BREAKS = "runwell.breaks"

#: How long a process stands still at most.
HOLD_SECONDS = 10.0
_POLL_SECONDS = 0.005

_scope: ContextVar[str] = ContextVar("failpoint_scope", default="")


class FailpointError(Exception):
    """What a test wanted to fail here."""


def find_folder(environment: Mapping[str, str]) -> Path | None:
    """The folder where points are armed; None when none may be."""
    named = environment.get(_VARIABLE)
    if not named or not (Path(named) / PERMISSION).is_file():
        return None
    return Path(named)


_folder = find_folder(os.environ)

#: Whether any point may be armed. Asked before anything else here is called.
ARE_ON = _folder is not None


def enter(scope: str) -> None:
    """Name the points that this task of the event loop comes by from now on."""
    _scope.set(scope)


def reach(moment: str, *, scope: str | None = None, folder: Path | None = None) -> str | None:
    """Come by a point: die or raise if it is armed so; else what is to happen, None for nothing."""
    place = folder or _folder
    if place is None:
        return None
    name = f"{_scope.get() if scope is None else scope}.{moment}"
    hit = place / f"{name}.hit"
    try:
        # Read before it is claimed: a test may look for the claim, and take it away.
        action = (place / name).read_text(encoding="utf-8")
        (place / name).rename(hit)
    except FileNotFoundError:
        return None
    if action == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if action == FAIL:
        raise FailpointError(f"the test lets {name} fail")
    if action == HOLD:
        _hold(hit)
    return action


def _hold(hit: Path) -> None:
    # The whole process stands still, as it does when a machine has no time for it.
    ends_at = time.monotonic() + HOLD_SECONDS
    while hit.exists() and time.monotonic() < ends_at:
        time.sleep(_POLL_SECONDS)

"""Every status of a run and an attempt, and the one table of transitions between them.

All that decides which status may follow which is in this file: nothing else in Runwell names a
pair of statuses. The database has the table too (`run_transitions`, which a test compares with this
one): the engine writes what happened to a run, its event, and the schema applies the table.

A run has two statuses. The *execution status* is what the engine needs to know: where the run is
between its queue and its end. The *run status* is what users see; each transition says what it
becomes, so that the two can't disagree. Sources: docs `runs.md` and `realtime/overview.md` for the
run statuses, `protocol.md` sections 3.3 and 8.5 for names and for what each client version knows.
"""

from enum import StrEnum
from typing import NamedTuple

from runwell.core.errors import InvalidTransitionError


class RunStatus(StrEnum):
    """The status of a run as users see it."""

    #: Triggered before any version has its task. Left when a version with the task is registered.
    WAITING_FOR_DEPLOY = "WAITING_FOR_DEPLOY"
    #: Triggered with a delay. Left when the delay is over.
    DELAYED = "DELAYED"
    #: Waits in its queue. Left when a worker takes it, or its TTL passes.
    QUEUED = "QUEUED"
    #: A worker has taken it and has not started the task yet (3.x clients see EXECUTING).
    DEQUEUED = "DEQUEUED"
    #: The task's code runs.
    EXECUTING = "EXECUTING"
    #: Waits on waitpoints inside the task.
    FROZEN = "FROZEN"
    #: An attempt failed and another one is to come.
    REATTEMPTING = "REATTEMPTING"
    #: Final: the task returned.
    COMPLETED = "COMPLETED"
    #: Final: canceled by a user.
    CANCELED = "CANCELED"
    #: Final: the last attempt raised.
    FAILED = "FAILED"
    #: Final: the process of the last attempt died.
    CRASHED = "CRASHED"
    #: Final: in development, the worker was disconnected.
    INTERRUPTED = "INTERRUPTED"
    #: Final: Runwell itself could not run it.
    SYSTEM_FAILURE = "SYSTEM_FAILURE"
    #: Final: its TTL passed before it started.
    EXPIRED = "EXPIRED"
    #: Final: it ran longer than its max duration.
    TIMED_OUT = "TIMED_OUT"


class ExecutionStatus(StrEnum):
    """Where a run is between its queue and its end, as the engine needs to know it."""

    #: Created, and held until a version with its task exists.
    RUN_CREATED = "RUN_CREATED"
    #: Created, and held until its delay is over.
    DELAYED = "DELAYED"
    #: In its queue.
    QUEUED = "QUEUED"
    #: Held until the backoff before its next attempt is over.
    WAITING_TO_RETRY = "WAITING_TO_RETRY"
    #: Taken by a worker that has not yet said that the attempt started.
    PENDING_EXECUTING = "PENDING_EXECUTING"
    #: An attempt runs in a worker.
    EXECUTING = "EXECUTING"
    #: An attempt is blocked on waitpoints, its process still there.
    EXECUTING_WITH_WAITPOINTS = "EXECUTING_WITH_WAITPOINTS"
    #: Its waitpoints are complete while its process is there; it waits for a slot to go on.
    QUEUED_EXECUTING = "QUEUED_EXECUTING"
    #: Blocked on waitpoints, its process gone.
    SUSPENDED = "SUSPENDED"
    #: Canceled while a worker held it; the worker has yet to confirm that it stopped.
    PENDING_CANCEL = "PENDING_CANCEL"
    #: Ended for good.
    FINISHED = "FINISHED"


class RunEvent(StrEnum):
    """What happens to a run: the arrows between execution statuses."""

    #: Put in the queue: a delay or a backoff is over, or a version with the task appeared.
    ENQUEUE = "ENQUEUE"
    #: Given a new delay before the old one was over.
    RESCHEDULE = "RESCHEDULE"
    #: Taken by a worker.
    DEQUEUE = "DEQUEUE"
    #: Its turn came, and the current version has no such task (any more).
    AWAIT_VERSION = "AWAIT_VERSION"
    #: The worker says that the attempt started.
    START = "START"
    #: Blocked on a waitpoint.
    BLOCK = "BLOCK"
    #: Its process ended at a wait; it goes on in another one later.
    SUSPEND = "SUSPEND"
    #: Its last waitpoint is complete and no slot is free.
    UNBLOCK = "UNBLOCK"
    #: Goes on after a wait.
    CONTINUE = "CONTINUE"
    #: The attempt failed and another one follows after a backoff.
    RETRY = "RETRY"
    #: The worker gives it back unfinished (it is shutting down, or died before the start).
    HAND_BACK = "HAND_BACK"
    #: The task returned.
    COMPLETE = "COMPLETE"
    #: The last attempt raised.
    FAIL = "FAIL"
    #: The process of the last attempt died, or its worker did.
    CRASH = "CRASH"
    #: The attempt exceeded its max duration.
    TIME_OUT = "TIME_OUT"
    #: In development, the worker was disconnected and nothing is to follow.
    INTERRUPT = "INTERRUPT"
    #: Runwell can't run it.
    SYSTEM_FAIL = "SYSTEM_FAIL"
    #: A user cancels it.
    CANCEL = "CANCEL"
    #: The worker confirms that a canceled run stopped (or the worker is gone).
    CONFIRM_CANCEL = "CONFIRM_CANCEL"
    #: Its TTL passed while it waited for its first start.
    EXPIRE = "EXPIRE"


class Transition(NamedTuple):
    """What an event leads to. A run status of None keeps the one the run has."""

    execution_status: ExecutionStatus
    run_status: RunStatus | None


_E, _R, _V = ExecutionStatus, RunStatus, RunEvent

# How any attempt may end for good.
_ENDINGS: dict[RunEvent, Transition] = {
    _V.COMPLETE: Transition(_E.FINISHED, _R.COMPLETED),
    _V.FAIL: Transition(_E.FINISHED, _R.FAILED),
    _V.CRASH: Transition(_E.FINISHED, _R.CRASHED),
    _V.TIME_OUT: Transition(_E.FINISHED, _R.TIMED_OUT),
    _V.INTERRUPT: Transition(_E.FINISHED, _R.INTERRUPTED),
    _V.SYSTEM_FAIL: Transition(_E.FINISHED, _R.SYSTEM_FAILURE),
}
_RETRY = {_V.RETRY: Transition(_E.WAITING_TO_RETRY, _R.REATTEMPTING)}
_HAND_BACK = {_V.HAND_BACK: Transition(_E.QUEUED, _R.QUEUED)}
# A run that no worker holds is canceled at once; one that a worker holds is canceled for its user
# at once, and keeps its slots until the worker says that the process is gone.
_CANCEL_NOW = {_V.CANCEL: Transition(_E.FINISHED, _R.CANCELED)}
_CANCEL_HELD = {_V.CANCEL: Transition(_E.PENDING_CANCEL, _R.CANCELED)}

TRANSITIONS: dict[ExecutionStatus, dict[RunEvent, Transition]] = {
    _E.RUN_CREATED: {
        _V.ENQUEUE: Transition(_E.QUEUED, _R.QUEUED),
        _V.EXPIRE: Transition(_E.FINISHED, _R.EXPIRED),
        _V.SYSTEM_FAIL: Transition(_E.FINISHED, _R.SYSTEM_FAILURE),
        **_CANCEL_NOW,
    },
    _E.DELAYED: {
        _V.ENQUEUE: Transition(_E.QUEUED, _R.QUEUED),
        _V.RESCHEDULE: Transition(_E.DELAYED, _R.DELAYED),
        **_CANCEL_NOW,
    },
    _E.QUEUED: {
        _V.DEQUEUE: Transition(_E.PENDING_EXECUTING, _R.DEQUEUED),
        _V.AWAIT_VERSION: Transition(_E.RUN_CREATED, _R.WAITING_FOR_DEPLOY),
        _V.EXPIRE: Transition(_E.FINISHED, _R.EXPIRED),
        _V.SYSTEM_FAIL: Transition(_E.FINISHED, _R.SYSTEM_FAILURE),
        **_CANCEL_NOW,
    },
    _E.WAITING_TO_RETRY: {
        _V.ENQUEUE: Transition(_E.QUEUED, None),
        **_CANCEL_NOW,
    },
    _E.PENDING_EXECUTING: {
        _V.START: Transition(_E.EXECUTING, _R.EXECUTING),
        _V.CONTINUE: Transition(_E.EXECUTING, _R.EXECUTING),
        _V.SYSTEM_FAIL: Transition(_E.FINISHED, _R.SYSTEM_FAILURE),
        **_HAND_BACK,
        **_CANCEL_HELD,
    },
    _E.EXECUTING: {
        _V.BLOCK: Transition(_E.EXECUTING_WITH_WAITPOINTS, _R.FROZEN),
        **_ENDINGS,
        **_RETRY,
        **_HAND_BACK,
        **_CANCEL_HELD,
    },
    _E.EXECUTING_WITH_WAITPOINTS: {
        _V.BLOCK: Transition(_E.EXECUTING_WITH_WAITPOINTS, _R.FROZEN),
        _V.CONTINUE: Transition(_E.EXECUTING, _R.EXECUTING),
        _V.UNBLOCK: Transition(_E.QUEUED_EXECUTING, _R.FROZEN),
        _V.SUSPEND: Transition(_E.SUSPENDED, _R.FROZEN),
        **_ENDINGS,
        **_RETRY,
        **_HAND_BACK,
        **_CANCEL_HELD,
    },
    _E.QUEUED_EXECUTING: {
        _V.CONTINUE: Transition(_E.EXECUTING, _R.EXECUTING),
        _V.SUSPEND: Transition(_E.QUEUED, _R.FROZEN),
        **_ENDINGS,
        **_RETRY,
        **_HAND_BACK,
        **_CANCEL_HELD,
    },
    _E.SUSPENDED: {
        _V.UNBLOCK: Transition(_E.QUEUED, _R.FROZEN),
        _V.SYSTEM_FAIL: Transition(_E.FINISHED, _R.SYSTEM_FAILURE),
        **_CANCEL_NOW,
    },
    _E.PENDING_CANCEL: {
        _V.CONFIRM_CANCEL: Transition(_E.FINISHED, _R.CANCELED),
    },
    _E.FINISHED: {},
}

#: How a run may begin, by what holds it back.
INITIAL: dict[ExecutionStatus, RunStatus] = {
    _E.RUN_CREATED: _R.WAITING_FOR_DEPLOY,
    _E.DELAYED: _R.DELAYED,
    _E.QUEUED: _R.QUEUED,
}

FINAL_RUN_STATUSES = frozenset(
    {
        _R.COMPLETED,
        _R.CANCELED,
        _R.FAILED,
        _R.CRASHED,
        _R.INTERRUPTED,
        _R.SYSTEM_FAILURE,
        _R.EXPIRED,
        _R.TIMED_OUT,
    }
)

#: A worker holds the run in these: it has a lease and fills slots.
LEASED_EXECUTION_STATUSES = frozenset(
    {
        _E.PENDING_EXECUTING,
        _E.EXECUTING,
        _E.EXECUTING_WITH_WAITPOINTS,
        _E.QUEUED_EXECUTING,
        _E.PENDING_CANCEL,
    }
)


class AttemptStatus(StrEnum):
    """The status of one attempt; the names are those of the API."""

    #: The task's code runs.
    EXECUTING = "EXECUTING"
    #: Final: the task returned.
    COMPLETED = "COMPLETED"
    #: Final: it raised, its process died, or it was handed back.
    FAILED = "FAILED"
    #: Final: the run was canceled.
    CANCELED = "CANCELED"


def transition(run_id: str, status: ExecutionStatus, event: RunEvent) -> Transition:
    """What `event` leads to; raises InvalidTransitionError for a pair that the table lacks."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise InvalidTransitionError(run_id, status, event) from None


def sources(event: RunEvent) -> list[tuple[ExecutionStatus, Transition]]:
    """Every execution status that `event` may happen in, with what it leads to."""
    return [(status, events[event]) for status, events in TRANSITIONS.items() if event in events]


# What the two generations of clients call a status that has no name of its own there.
_NAMES_3X = {_R.DEQUEUED: "EXECUTING"}
_NAMES_4X = {
    _R.WAITING_FOR_DEPLOY: "PENDING_VERSION",
    _R.FROZEN: "WAITING",
    _R.REATTEMPTING: "EXECUTING",
    _R.INTERRUPTED: "FAILED",
}


def api_status(status: RunStatus, *, is_4x: bool = False) -> str:
    """The name of a status in the API: 3.x names, or those of 4.x clients (protocol.md 3.3)."""
    return (_NAMES_4X if is_4x else _NAMES_3X).get(status, status.value)


def statuses_named(name: str) -> list[RunStatus]:
    """The run statuses that an API status of either generation stands for; [] when unknown."""
    named = {
        status
        for status in RunStatus
        if name in (status.value, api_status(status), api_status(status, is_4x=True))
    }
    # A filter by EXECUTING or FAILED means what that client shows under it, not 4.x's wider sense.
    if name == "EXECUTING":
        named.discard(_R.REATTEMPTING)
    if name == "FAILED":
        named.discard(_R.INTERRUPTED)
    return sorted(named)


def status_flags(status: RunStatus) -> dict[str, bool]:
    """The `is...` booleans that go with a status in the API (protocol.md 3.3)."""
    final = status in FINAL_RUN_STATUSES
    return {
        "isQueued": status in (_R.QUEUED, _R.WAITING_FOR_DEPLOY, _R.DELAYED),
        "isExecuting": status in (_R.EXECUTING, _R.DEQUEUED, _R.REATTEMPTING, _R.FROZEN),
        "isWaiting": status is _R.FROZEN,
        "isCompleted": final,
        "isSuccess": status is _R.COMPLETED,
        "isFailed": final and status is not _R.COMPLETED,
        "isCancelled": status is _R.CANCELED,
    }

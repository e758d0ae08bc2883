"""Why is this run not running? One sentence for every run that is not executing.

Several things may hold a run at once. The one that is told is the one that somebody would have to
change first: a pause comes before a missing worker, that before a limit, a limit before the runs
that are ahead. Nothing here reads more than a bounded number of rows, however long a queue is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runwell.core.errors import (
    BuiltInError,
    CustomError,
    InternalError,
    StringError,
    TaskRunError,
)
from runwell.core.explanations import ExplanationReason
from runwell.core.statuses import LEASED_EXECUTION_STATUSES, ExecutionStatus, RunStatus
from runwell.core.timing import format_duration
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.runs import Run

_sql = load_queries("explanations")
_R, _E = ExplanationReason, ExecutionStatus

#: So many runs are named; how many there are in all is said beside them.
MOST_NAMED = 3
#: Runs that are ahead are counted up to this.
MOST_COUNTED = 1_000
_ERROR_CHARACTERS = 200

_ENDS = {
    RunStatus.COMPLETED: "it completed",
    RunStatus.CANCELED: "it was canceled",
    RunStatus.FAILED: "it failed",
    RunStatus.CRASHED: "its process died",
    RunStatus.INTERRUPTED: "its worker was disconnected",
    RunStatus.SYSTEM_FAILURE: "Runwell could not run it",
    RunStatus.EXPIRED: "it expired before it started",
    RunStatus.TIMED_OUT: "it ran longer than its maximum duration",
}


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What holds a run, as a sentence and as facts.

    `run_ids` are up to three of `run_count` runs that hold what it needs, or that it waits for.
    `until` is when it may go on, if that is known. `ahead` counts the runs that come before it.
    """

    reason: ExplanationReason
    message: str
    run_ids: Sequence[str] = ()
    run_count: int | None = None
    until: datetime | None = None
    ahead: int | None = None


async def explain_run(
    tx: Transaction, environment: Environment, run: Run, *, now: datetime
) -> Explanation | None:
    """Why a run is not executing; None for one that is."""
    if run.status is RunStatus.EXECUTING:
        return None
    if run.status in _ENDS and run.status is not RunStatus.CANCELED:
        return _explain_end(run)
    row = await tx.fetch_one(
        _sql.find_obstacles,
        run_id=run.id,
        environment_id=environment.id,
        now=now,
        most_counted=MOST_COUNTED + 1,
    )
    if row is None:
        return None
    status = ExecutionStatus(row["execution_status"])
    if status in LEASED_EXECUTION_STATUSES:
        return await _explain_leased(tx, environment, run, row, status)
    if status is _E.QUEUED:
        return await _explain_queued(tx, environment, run, row, now)
    if status is _E.SUSPENDED:
        return await _explain_wait(tx, run, row)
    if status is _E.DELAYED:
        return _explain_hold(_R.DELAYED, "it is delayed until", row["delayed_until"])
    if status is _E.WAITING_TO_RETRY:
        what = f"its attempt {row['attempt_number']} failed, and the next one waits until"
        return _explain_hold(_R.RETRYING, what, row["due_at"])
    if status is _E.RUN_CREATED:
        return _explain_missing_task(row)
    # One that has ended since it was read is not shown as over, and nothing holds it.
    return _explain_end(run) if run.status in _ENDS else None


async def _explain_leased(
    tx: Transaction, environment: Environment, run: Run, row: Row, status: ExecutionStatus
) -> Explanation | None:
    if status is _E.PENDING_EXECUTING:
        message = f"{_worker(row)} took it at {_time(row['event_at'])} and is starting it"
        return Explanation(reason=_R.TAKEN, message=message)
    if status is _E.PENDING_CANCEL:
        message = f"it was canceled, and {_worker(row)} has yet to stop it"
        return Explanation(reason=_R.CANCELING, message=message)
    if status is _E.EXECUTING_WITH_WAITPOINTS:
        return await _explain_wait(tx, run, row)
    if status is _E.QUEUED_EXECUTING:
        return await _explain_resuming(tx, environment, run, row)
    return None


def _explain_end(run: Run) -> Explanation:
    message = _ENDS[run.status]
    if run.finished_at is not None:
        message += f" at {_time(run.finished_at)}"
    if run.error is not None and run.status is not RunStatus.CANCELED:
        message += f": {_error_text(run.error)}"
    return Explanation(reason=_R.FINISHED, message=message)


def _explain_hold(reason: ExplanationReason, what: str, until: datetime | None) -> Explanation:
    if until is None:
        # Its timer has fired while this was read.
        return Explanation(reason=reason, message=f"{what.removesuffix(' until')} no longer")
    return Explanation(reason=reason, message=f"{what} {_time(until)}", until=until)


def _explain_missing_task(row: Row) -> Explanation:
    task, slug, current = row["task_id"], row["environment"], row["current_version"]
    if current is None:
        message = f"no version of any task has been registered in the environment {slug}"
    else:
        message = f"no version has its task: {current}, the current one, has no task {task}"
    return Explanation(reason=_R.NO_TASK, message=message)


async def _explain_wait(tx: Transaction, run: Run, row: Row) -> Explanation:
    waits = await tx.fetch(_sql.list_open_waits, run_id=run.id, most=MOST_COUNTED + 1)
    since = _time(waits[0]["created_at"] if waits else row["event_at"])
    run_ids = [wait["run_id"] for wait in waits if wait["run_id"] is not None]
    instants = [wait["due_at"] for wait in waits if wait["type"] == "DATETIME"]
    tokens = [wait["id"] for wait in waits if wait["type"] == "MANUAL"]
    parts: list[str] = []
    if tokens:
        parts.append(f"token{'' if len(tokens) == 1 else 's'} {_listed(tokens, len(tokens))}")
    if run_ids:
        parts.append(f"run{'' if len(run_ids) == 1 else 's'} {_listed(run_ids, len(run_ids))}")
    if instants:
        parts.append(f"the time {_time(min(instants))}")
    what = f"it has been waiting for {', and for '.join(parts)}" if parts else "it has been waiting"
    return Explanation(
        reason=_R.WAITING,
        message=f"{what} since {since}",
        run_ids=run_ids[:MOST_NAMED],
        run_count=len(run_ids) or None,
        until=min(instants) if instants and not tokens and not run_ids else None,
    )


async def _explain_resuming(
    tx: Transaction, environment: Environment, run: Run, row: Row
) -> Explanation:
    found = await _explain_limits(tx, environment, run, row, for_queue=row["released_slots"] == 2)
    if found is None:
        return Explanation(
            reason=_R.NEXT, message="what it waited for is there, and it goes on now"
        )
    message = f"what it waited for is there, and it needs a slot to go on: {found.message}"
    return Explanation(
        reason=found.reason,
        message=message,
        run_ids=found.run_ids,
        run_count=found.run_count,
    )


async def _explain_queued(
    tx: Transaction, environment: Environment, run: Run, row: Row, now: datetime
) -> Explanation:
    found = (
        _explain_pause(row)
        or _explain_workers(row)
        or await _explain_limits(tx, environment, run, row, for_queue=True)
        or _explain_rate(row, now)
    )
    ahead: int = row["ahead"]
    counted = f"{min(ahead, MOST_COUNTED):,}"
    runs = "1 run is" if ahead == 1 else f"{counted} runs are"
    if ahead > MOST_COUNTED:
        runs = f"more than {runs}"
    if found is not None:
        message = f"{found.message}; {runs} ahead of it" if ahead else found.message
        return Explanation(
            reason=found.reason,
            message=message,
            run_ids=found.run_ids,
            run_count=found.run_count,
            until=found.until,
            ahead=ahead,
        )
    if ahead:
        message = f"{runs} ahead of it in {_place(row)}"
        return Explanation(reason=_R.RUNS_AHEAD, message=message, ahead=ahead)
    if row["held"] >= row["capacity"]:
        message = (
            f"it is the next of {_place(row)}, and every worker that could take it is full: they "
            f"hold {row['held']:,} runs, and can hold {row['capacity']:,}"
        )
        return Explanation(reason=_R.WORKERS_FULL, message=message, ahead=0)
    message = f"it is the next of {_place(row)}: a worker takes it in a moment"
    return Explanation(reason=_R.NEXT, message=message, ahead=0)


def _explain_pause(row: Row) -> Explanation | None:
    if row["is_environment_paused"]:
        message = f"the environment {row['environment']} is paused"
        return Explanation(reason=_R.ENVIRONMENT_PAUSED, message=message)
    if row["is_queue_paused"]:
        return Explanation(reason=_R.QUEUE_PAUSED, message=f"the queue {row['queue']} is paused")
    return None


def _explain_workers(row: Row) -> Explanation | None:
    if not row["workers"]:
        message = f"no worker is connected in the environment {row['environment']}"
        return Explanation(reason=_R.NO_WORKER, message=message)
    if row["region"] and not row["in_region"]:
        message = f"no worker that is connected is in the region {row['region']}"
        return Explanation(reason=_R.NO_WORKER_IN_REGION, message=message)
    if not row["able"]:
        message = f"no worker that is connected has the version {row['wanted_version']}"
        return Explanation(reason=_R.NO_WORKER_WITH_VERSION, message=message)
    return None


async def _explain_limits(
    tx: Transaction, environment: Environment, run: Run, row: Row, *, for_queue: bool
) -> Explanation | None:
    limit, running = row["environment_limit"], row["environment_running"]
    if row["execution_status"] == _E.QUEUED:
        # Runs that go on after a wait have the first claim on a slot.
        running += row["resuming"]
    reason, what = _R.ENVIRONMENT_LIMIT, f"the environment {row['environment']}"
    subqueue_id = None
    if for_queue and row["subqueue_running"] >= row["subqueue_limit"]:
        limit, running = row["subqueue_limit"], row["subqueue_running"]
        reason, what, subqueue_id = _R.QUEUE_LIMIT, _place(row), row["subqueue_id"]
    elif running < limit:
        return None
    if limit == 0:
        return Explanation(reason=reason, message=f"the limit of {what} is 0", run_count=0)
    holders = await tx.fetch(
        _sql.list_slot_holders,
        environment_id=environment.id,
        subqueue_id=subqueue_id,
        run_id=run.id,
        most=MOST_NAMED,
    )
    run_ids = sorted(holder["id"] for holder in holders)
    count = max(running, len(run_ids))
    by = _listed(run_ids, count) if run_ids else "runs that end just now"
    message = f"the limit of {what}, {limit:,}, is held by {by}"
    return Explanation(reason=reason, message=message, run_ids=run_ids, run_count=count)


def _explain_rate(row: Row, now: datetime) -> Explanation | None:
    frees: list[tuple[datetime, str, int, timedelta]] = [
        (row[free_at], what, row[limit], row[window])
        for free_at, what, limit, window in (
            ("queue_free_at", f"the queue {row['queue']}", "rate_limit", "rate_window"),
            ("key_free_at", _place(row), "key_rate_limit", "key_rate_window"),
        )
        if row[free_at] is not None and row[limit] is not None and row[free_at] > now
    ]
    if not frees:
        return None
    until, what, limit, window = max(frees)
    message = (
        f"the rate limit of {what}, {limit:,} in {format_duration(window.total_seconds())}, is "
        f"used up until {_time(until)}"
    )
    return Explanation(reason=_R.RATE_LIMIT, message=message, until=until)


def _place(row: Row) -> str:
    key = row["concurrency_key"]
    return f"the queue {row['queue']}" + (f" for the key {key}" if key else "")


def _worker(row: Row) -> str:
    return f"the worker {row['worker_name']}" if row["worker_name"] else "its worker"


def _listed(ids: Sequence[str], count: int) -> str:
    named = list(ids[:MOST_NAMED])
    more = count - len(named)
    if more <= 0:
        return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
    counted = f"more than {MOST_COUNTED:,}" if count > MOST_COUNTED else f"{more:,}"
    return f"{', '.join(named)} and {counted} more"


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _error_text(error: TaskRunError) -> str:
    match error:
        case BuiltInError():
            text = f"{error.name}: {error.message}"
        case StringError() | CustomError():
            text = error.raw
        case InternalError():
            text = f"{error.code}: {error.message}" if error.message else error.code.value
    line = " ".join(text.split())
    return line if len(line) <= _ERROR_CHARACTERS else f"{line[: _ERROR_CHARACTERS - 3]}..."

"""What workers report of the runs they hold: attempts start, end, are retried or given back.

Every report carries the lease it was made under. Reports of a lease that has ended are stale: they
change nothing, and their sender is told to forget them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, assert_never

from runwell.core.errors import (
    ErrorCode,
    InternalError,
    InvalidPayloadError,
    TaskRunError,
    is_out_of_memory,
)
from runwell.core.machines import DEFAULT_MACHINE, MachineName
from runwell.core.payloads import MAX_OUTPUT_BYTES, check_text
from runwell.core.protocol import (
    CanceledReport,
    CompleteReport,
    FailReport,
    HandBackReport,
    LogsReport,
    MetadataReport,
    ReportBody,
    RunReport,
    StartReport,
)
from runwell.core.statuses import AttemptStatus, ExecutionStatus, RunEvent
from runwell.core.timing import MAX_ATTEMPTS, RetryOptions, larger_machine, retry_delay
from runwell.engine import logs, queues, run_metadata
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.retrying import decide_failure
from runwell.engine.run_errors import encode_error
from runwell.engine.run_metadata import ReportedUpdate

_sql = load_queries("attempts")

_RUNNING = frozenset(
    {
        ExecutionStatus.EXECUTING,
        ExecutionStatus.EXECUTING_WITH_WAITPOINTS,
        ExecutionStatus.QUEUED_EXECUTING,
    }
)


@dataclass(frozen=True, kw_only=True)
class AppliedReports:
    """A word for each report, and the environments that may have something to dequeue now."""

    results: list[Literal["accepted", "stale"]]
    environment_ids: set[int]
    #: Whether runs that wait may go on now.
    lets_runs_continue: bool


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """How an attempt ends; `due_at` is when a retry follows, perhaps on a larger machine."""

    run_id: str
    event: RunEvent
    attempt_status: AttemptStatus
    finished_at: datetime
    duration_ms: int = 0
    output: str | None = None
    output_type: str | None = None
    error: TaskRunError | None = None
    due_at: datetime | None = None
    larger_machine: MachineName | None = None


@dataclass(kw_only=True)
class HeldRun:
    """A locked run, and what this batch of reports did to it so far."""

    run_id: str
    environment_id: int
    lease_id: int | None
    status: ExecutionStatus
    attempt_number: int
    counted_attempts: int
    max_attempts: int
    retry: RetryOptions
    is_development: bool
    worker_id: str | None
    machine: MachineName
    is_awaited: bool
    has_ended: bool = False


@dataclass(kw_only=True)
class _Changes:
    """What a batch of reports comes to; applied in this order."""

    starts: dict[str, datetime] = field(default_factory=dict[str, datetime])
    lines: list[LogsReport] = field(default_factory=list[LogsReport])
    metadata: list[ReportedUpdate] = field(default_factory=list[ReportedUpdate])
    ends: list[AttemptEnd] = field(default_factory=list[AttemptEnd])
    hand_backs: list[str] = field(default_factory=list[str])


async def apply_reports(
    db: Database, environment: Environment, body: ReportBody, *, now: datetime
) -> AppliedReports:
    """Apply a worker's reports in one transaction, in the order it made them."""
    run_ids = {report.run_id for report in body.reports}
    # Whoever changes the metadata of its relatives needs their locks, in the order of all ids.
    children = [r.run_id for r in body.reports if r.metadata and r.metadata.changes_relatives]

    async def act(tx: Transaction) -> AppliedReports:
        relatives = await run_metadata.list_relatives(tx, children) if children else set[str]()
        held = await _lock(tx, sorted(run_ids | relatives))
        changes = _Changes()
        results: list[Literal["accepted", "stale"]] = []
        for report in body.reports:
            run = held.get(report.run_id)
            if (
                run is None
                or run.environment_id != environment.id
                or run.has_ended
                or run.lease_id != report.snapshot_id
            ):
                results.append("stale")
                continue
            _decide(run, report, changes, now)
            results.append("accepted")
        await _apply(tx, changes, pin_versions=not environment.is_development, now=now)
        freed = {environment.id} if changes.ends or changes.hand_backs else set[int]()
        is_awaited = any(run.has_ended and run.is_awaited for run in held.values())
        return AppliedReports(results=results, environment_ids=freed, lets_runs_continue=is_awaited)

    return await db.run(act)


async def take_back(
    tx: Transaction, leases: Mapping[str, int], *, reason: str, now: datetime
) -> set[int]:
    """End what a lost worker held, each run by its lease, so that it goes on elsewhere or ends.

    A run that is held under another lease by now, or by nobody, stays as it is.
    Runs it had not started go back into their queues. An attempt that it was executing has failed:
    another one follows at once if there may be one, else the run has crashed (in development: was
    interrupted). Returns the environments that may have something to dequeue now.
    """
    held = await _lock(tx, sorted(leases))
    changes: dict[bool, _Changes] = {True: _Changes(), False: _Changes()}
    for run in held.values():
        if run.lease_id != leases[run.run_id]:
            continue
        of_kind = changes[run.is_development]
        if run.status is ExecutionStatus.PENDING_EXECUTING:
            of_kind.hand_backs.append(run.run_id)
        elif run.status is ExecutionStatus.PENDING_CANCEL:
            of_kind.ends.append(_confirm_cancel(run.run_id, now))
        else:
            error = InternalError(code=ErrorCode.TASK_RUN_HEARTBEAT_TIMEOUT, message=reason)
            of_kind.ends.append(
                _fail(run, error, now, skip_retrying=False, retry_at=now, duration_ms=0)
            )
    for is_development, of_kind in changes.items():
        await _apply(tx, of_kind, pin_versions=not is_development, now=now)
    return {run.environment_id for run in held.values()}


async def start_attempts(tx: Transaction, starts: Mapping[str, datetime], *, now: datetime) -> None:
    """Attempts of these runs begin, each at its instant; the caller holds the locks of the runs."""
    await tx.execute(
        _sql.start_runs, run_ids=list(starts), started_at=list(starts.values()), now=now
    )


async def lock_run(tx: Transaction, run_id: str) -> HeldRun | None:
    """Lock a run until the transaction ends, and read what decides about it; None without one."""
    return (await _lock(tx, [run_id])).get(run_id)


async def lock_runs(tx: Transaction, run_ids: Sequence[str]) -> dict[str, HeldRun]:
    """Lock runs in the order of their ids, and read what decides about them."""
    return await _lock(tx, run_ids)


async def _lock(tx: Transaction, run_ids: Sequence[str]) -> dict[str, HeldRun]:
    rows = await tx.fetch(_sql.lock_runs, run_ids=list(run_ids))
    if any(row["is_incomplete"] for row in rows):
        # With the locks held, a second look sees everything.
        rows = await tx.fetch(_sql.lock_runs, run_ids=list(run_ids))
    return {row["id"]: _held_run(row) for row in rows}


def _held_run(row: Row) -> HeldRun:
    stored = row["retry"]
    retry = RetryOptions() if stored is None else RetryOptions.model_validate_json(stored)
    return HeldRun(
        run_id=row["id"],
        environment_id=row["environment_id"],
        lease_id=row["lease_id"],
        status=ExecutionStatus(row["execution_status"]),
        attempt_number=row["attempt_number"],
        counted_attempts=row["attempt_number"] - row["handed_back"],
        max_attempts=row["max_attempts"] or retry.max_attempts,
        retry=retry,
        is_development=row["environment_type"] == "DEVELOPMENT",
        worker_id=row["worker_id"],
        machine=MachineName(row["machine"] or DEFAULT_MACHINE),
        is_awaited=row["is_awaited"],
    )


def _decide(
    run: HeldRun,
    report: RunReport,
    changes: _Changes,
    now: datetime,
) -> None:
    if report.metadata is not None:
        changes.metadata.append(
            ReportedUpdate(
                run_id=run.run_id,
                lease_id=report.snapshot_id,
                attempt_number=run.attempt_number,
                update=report.metadata,
            )
        )
    match report:
        case StartReport():
            _start(run, report.started_at, changes)
        case MetadataReport():
            pass
        case LogsReport():
            changes.lines.append(report)
        case CompleteReport():
            _start(run, report.started_at, changes)
            changes.ends.append(_complete(run, report, now))
            run.has_ended = True
        case FailReport():
            _start(run, report.started_at, changes)
            if report.retry_at is not None:
                # The task's own code has decided, and that goes beyond its options.
                run.max_attempts = MAX_ATTEMPTS
            changes.ends.append(
                _fail(
                    run,
                    report.error,
                    report.finished_at,
                    skip_retrying=report.skip_retrying,
                    retry_at=report.retry_at,
                    duration_ms=report.duration_ms,
                )
                if run.status is not ExecutionStatus.PENDING_CANCEL
                else _confirm_cancel(run.run_id, now, report.duration_ms)
            )
            run.has_ended = True
        case HandBackReport() | CanceledReport():
            if run.status is ExecutionStatus.PENDING_CANCEL:
                changes.ends.append(_confirm_cancel(run.run_id, now))
            else:
                changes.hand_backs.append(run.run_id)
            run.has_ended = True
        case _:
            assert_never(report)


def _start(run: HeldRun, started_at: datetime, changes: _Changes) -> None:
    if run.status is ExecutionStatus.PENDING_EXECUTING:
        changes.starts[run.run_id] = started_at
        run.status = ExecutionStatus.EXECUTING


def _complete(run: HeldRun, report: CompleteReport, now: datetime) -> AttemptEnd:
    if run.status is ExecutionStatus.PENDING_CANCEL:
        return _confirm_cancel(run.run_id, now, report.duration_ms)
    problem = _find_output_problem(report.output)
    if problem is not None:
        error = InternalError(code=ErrorCode.TASK_OUTPUT_ERROR, message=problem)
        return _fail(
            run,
            error,
            report.finished_at,
            skip_retrying=True,
            retry_at=None,
            duration_ms=report.duration_ms,
        )
    return AttemptEnd(
        run_id=run.run_id,
        event=RunEvent.COMPLETE,
        attempt_status=AttemptStatus.COMPLETED,
        finished_at=report.finished_at,
        duration_ms=report.duration_ms,
        output=report.output,
        output_type=report.output_type,
    )


def _find_output_problem(output: str | None) -> str | None:
    if output is None:
        return None
    size = len(output.encode())
    if size > MAX_OUTPUT_BYTES:
        return f"the output is {size} bytes, and {MAX_OUTPUT_BYTES} is the most"
    try:
        check_text(output, what="the output")
    except InvalidPayloadError as error:
        return str(error)
    return None


def _fail(
    run: HeldRun,
    error: TaskRunError,
    finished_at: datetime,
    *,
    skip_retrying: bool,
    retry_at: datetime | None,
    duration_ms: int,
) -> AttemptEnd:
    larger = larger_machine(run.retry, run.machine) if is_out_of_memory(error) else None
    event = decide_failure(
        error,
        attempts_left=run.max_attempts - run.counted_attempts,
        skip_retrying=skip_retrying,
        is_development=run.is_development,
        has_larger_machine=larger is not None,
    )
    due_at = None
    if event is RunEvent.RETRY:
        due_at = retry_at or finished_at + retry_delay(run.retry, run.counted_attempts)
    return AttemptEnd(
        run_id=run.run_id,
        event=event,
        attempt_status=AttemptStatus.FAILED,
        finished_at=finished_at,
        duration_ms=duration_ms,
        error=error,
        due_at=due_at,
        larger_machine=larger if event is RunEvent.RETRY else None,
    )


def _confirm_cancel(run_id: str, now: datetime, duration_ms: int = 0) -> AttemptEnd:
    return AttemptEnd(
        run_id=run_id,
        event=RunEvent.CONFIRM_CANCEL,
        attempt_status=AttemptStatus.CANCELED,
        finished_at=now,
        duration_ms=duration_ms,
    )


async def _apply(tx: Transaction, changes: _Changes, *, pin_versions: bool, now: datetime) -> None:
    if changes.starts:
        await start_attempts(tx, changes.starts, now=now)
    await logs.insert_lines(tx, changes.lines)
    if changes.metadata:
        await run_metadata.apply_updates(tx, changes.metadata, now=now)
    if changes.ends:
        await _end(tx, changes.ends, now=now)
        # A retry without a wait need not go by the timer.
        soon = now + timedelta(milliseconds=1)
        due = [end.run_id for end in changes.ends if end.due_at is not None and end.due_at <= soon]
        await queues.enqueue_runs(tx, due, pin_versions=pin_versions, now=now)
    if changes.hand_backs:
        error = InternalError(
            code=ErrorCode.TASK_EXECUTION_ABORTED, message="the worker gave the run back"
        )
        await tx.execute(
            _sql.close_handed_back_attempts,
            run_ids=changes.hand_backs,
            error=encode_error(error),
            now=now,
        )
        await queues.requeue_runs(tx, changes.hand_backs, pin_versions=pin_versions, now=now)


async def _end(tx: Transaction, ends: list[AttemptEnd], *, now: datetime) -> None:
    await tx.execute(
        _sql.end_attempts,
        run_ids=[end.run_id for end in ends],
        events=[end.event.value for end in ends],
        attempt_statuses=[end.attempt_status.value for end in ends],
        outputs=[end.output for end in ends],
        output_types=[end.output_type for end in ends],
        errors=[None if end.error is None else encode_error(end.error) for end in ends],
        finished_at=[end.finished_at for end in ends],
        duration_ms=[end.duration_ms for end in ends],
        due_at=[end.due_at for end in ends],
        larger_machines=[end.larger_machine for end in ends],
        now=now,
    )

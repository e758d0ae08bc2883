"""Waits: a run is blocked on waitpoints, they are completed, the run goes on.

A waitpoint is something that is completed once: another run's end, an instant, a token. A run waits
on one or several of them at a time, in any number of waits. While it can do nothing else it is
blocked and has given its slots back; as soon as one of its waits is complete it goes on, when it
has its slots again.

Who completes a waitpoint never touches the waiting run: the schema notes the run in `run_wakes`,
and `continue_runs` looks at it in a transaction of its own. So the ends of a thousand children
don't queue for their parent's row, and nobody decides by what another transaction is about to
change. See `adr/0004-waits.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from runwell.core.errors import ErrorCode, InternalError, StringError, TaskRunError
from runwell.core.ids import make_id
from runwell.core.payloads import JSON_TYPE
from runwell.core.statuses import ExecutionStatus, RunStatus
from runwell.core.waits import (
    CompletedWait,
    DateWait,
    ResumeBody,
    RunsWait,
    TokenWait,
    WaitAnswer,
    WaitBody,
    WaitRefusal,
    WaitResult,
)
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.run_errors import decode_error

_sql = load_queries("waitpoints")

#: So many are completed, or looked at, by one tick.
BATCH = 1_000
_MOST_RESUMING = 500
_MOST_WAITS_PER_ANSWER = 200

_NO_LIMIT = 2_147_483_647
_WAITABLE = frozenset({ExecutionStatus.EXECUTING, ExecutionStatus.EXECUTING_WITH_WAITPOINTS})


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a look at waiting runs came to: how many were seen, and whose workers have results."""

    seen: int = 0
    worker_ids: set[str] = field(default_factory=set[str])


async def begin_waits(
    db: Database, environment: Environment, body: WaitBody, *, now: datetime
) -> WaitAnswer:
    """Note what a run waits for, and block it if it can do nothing else; all in one transaction.

    The same body again changes nothing. A wait that can't be is refused by itself: for a run or
    token that isn't there, and when waiting would never end (docs `queue-concurrency.md`).
    """

    async def act(tx: Transaction) -> WaitAnswer:
        run = await tx.fetch_one(
            _sql.lock_waiting_run, run_id=body.run_id, environment_id=environment.id
        )
        if run is None or run["lease_id"] != body.snapshot_id:
            return WaitAnswer(is_lost=True)
        if ExecutionStatus(run["execution_status"]) not in _WAITABLE:
            # It is being canceled: the word of that is on its way.
            return WaitAnswer()
        if body.received:
            await tx.execute(_sql.forget_waits, run_id=body.run_id, wait_ids=body.received)
        refused = await _insert(tx, environment, run, body, now=now) if body.waits else []
        # What is refused raises in the task, which then has something to do.
        if not body.is_blocked or refused:
            return WaitAnswer(refused=refused)
        blocked = await tx.fetch_value(_sql.block_run, run_id=body.run_id, now=now)
        return WaitAnswer(is_blocked=blocked is not None)

    return await db.run(act)


async def list_results(
    db: Database, environment: Environment, body: ResumeBody
) -> list[CompletedWait]:
    """The complete waits of a worker's runs that may go on, given until they are received."""
    if body.received:
        await db.fetch(
            _sql.forget_received_waits,
            run_ids=[wait.run_id for wait in body.received],
            lease_ids=[wait.snapshot_id for wait in body.received],
            wait_ids=[wait.wait_id for wait in body.received],
        )
    rows = await db.fetch(
        _sql.list_results,
        worker_id=body.worker_id,
        environment_id=environment.id,
        most=_MOST_WAITS_PER_ANSWER,
    )
    found: dict[tuple[str, str], CompletedWait] = {}
    for row in rows:
        wait = found.setdefault(
            (row["run_id"], row["wait_id"]),
            CompletedWait.model_construct(
                run_id=row["run_id"],
                snapshot_id=row["lease_id"],
                wait_id=row["wait_id"],
                results=[],
            ),
        )
        if row["type"] != "DATETIME":
            wait.results.append(_result(row))
    return list(found.values())


async def continue_runs(db: Database, *, now: datetime) -> Continued:
    """Let runs go on whose waits are complete, as far as there are slots; the others are held.

    Looks at runs that were woken, and at those that are held where a slot may be free by now. Every
    server may do it at once.
    """

    async def act(tx: Transaction) -> Continued:
        woken = await tx.fetch(_sql.take_wakes, most=BATCH)
        held = await tx.fetch(_sql.list_resuming_runs, most=_MOST_RESUMING)
        run_ids = sorted({row["run_id"] for row in (*woken, *held)})
        if not run_ids:
            return Continued()
        rows = await tx.fetch(_sql.lock_woken_runs, run_ids=run_ids)
        waiting = [row for row in rows if row["execution_status"] != ExecutionStatus.EXECUTING]
        going: list[Row] = []
        if waiting:
            going = await _choose(tx, waiting)
            chosen = {row["id"] for row in going}
            if going:
                await tx.execute(_sql.continue_runs, run_ids=sorted(chosen), now=now)
            to_hold = [
                row["id"]
                for row in waiting
                if row["id"] not in chosen
                and row["execution_status"] == ExecutionStatus.EXECUTING_WITH_WAITPOINTS
            ]
            if to_hold:
                await tx.execute(_sql.hold_runs, run_ids=sorted(to_hold), now=now)
        working = [row for row in rows if row["execution_status"] == ExecutionStatus.EXECUTING]
        return Continued(
            seen=len(woken) + len(going),
            worker_ids={row["worker_id"] for row in (*going, *working)},
        )

    return await db.run(act)


async def complete_due_waitpoints(db: Database, *, now: datetime) -> int:
    """Complete dates that have come and tokens that have timed out; returns how many."""
    rows = await db.fetch(_sql.complete_due_waitpoints, now=now, most=BATCH)
    return len(rows)


async def find_next_due(db: Database) -> datetime | None:
    """When the next waitpoint is due."""
    rows = await db.fetch(_sql.find_next_due)
    return rows[0]["due_at"]


async def _insert(
    tx: Transaction, environment: Environment, run: Row, body: WaitBody, *, now: datetime
) -> list[WaitRefusal]:
    known_rows = await tx.fetch(
        _sql.find_known_waits,
        run_id=body.run_id,
        wait_ids=[wait.wait_id for wait in body.waits],
    )
    known = {row["wait_id"] for row in known_rows}
    new = [wait for wait in body.waits if wait.wait_id not in known]
    awaited = await _lock_awaited_runs(tx, environment, new)
    tokens = await _lock_tokens(tx, environment, new)
    would_lock_up = await _would_lock_up(tx, run, awaited)
    refused: list[WaitRefusal] = []
    accepted: list[RunsWait | DateWait | TokenWait] = []
    for wait in new:
        error = _find_problem(wait, run, awaited, tokens, would_lock_up=would_lock_up)
        if error is None:
            accepted.append(wait)
        else:
            refused.append(WaitRefusal(wait_id=wait.wait_id, error=error))
    await _store(tx, environment, body.run_id, accepted, now=now)
    return refused


async def _lock_awaited_runs(
    tx: Transaction,
    environment: Environment,
    waits: Sequence[RunsWait | DateWait | TokenWait],
) -> dict[str, int]:
    run_ids = {run_id for wait in waits if isinstance(wait, RunsWait) for run_id in wait.run_ids}
    if not run_ids:
        return {}
    rows = await tx.fetch(
        _sql.lock_awaited_runs, run_ids=sorted(run_ids), environment_id=environment.id
    )
    return {row["id"]: row["subqueue_id"] for row in rows}


async def _lock_tokens(
    tx: Transaction,
    environment: Environment,
    waits: Sequence[RunsWait | DateWait | TokenWait],
) -> set[str]:
    ids = {wait.token_id for wait in waits if isinstance(wait, TokenWait)}
    if not ids:
        return set()
    rows = await tx.fetch(_sql.lock_tokens, ids=sorted(ids), environment_id=environment.id)
    return {row["id"] for row in rows}


async def _would_lock_up(tx: Transaction, run: Row, awaited: dict[str, int]) -> bool:
    """Whether a slot of the run's own queue would be given on more often than the queue has slots.

    Counted along the line of parents: runs that have nothing to do with each other never hold each
    other up, since each gives its slot back while it waits.
    """
    limit = run["concurrency_limit"]
    if limit == _NO_LIMIT or run["subqueue_id"] not in awaited.values():
        return False
    depth = await tx.fetch_value(
        _sql.count_recursive_waits, run_id=run["id"], subqueue_id=run["subqueue_id"]
    )
    return depth > limit


def _find_problem(
    wait: RunsWait | DateWait | TokenWait,
    run: Row,
    awaited: dict[str, int],
    tokens: set[str],
    *,
    would_lock_up: bool,
) -> TaskRunError | None:
    match wait:
        case RunsWait():
            missing = [run_id for run_id in wait.run_ids if run_id not in awaited]
            if missing:
                return StringError(raw=f"can't wait for {missing[0][:64]}: there is no such run")
            if run["id"] in wait.run_ids:
                return StringError(raw="a run can't wait for itself")
            if would_lock_up and any(
                awaited[run_id] == run["subqueue_id"] for run_id in wait.run_ids
            ):
                return InternalError(
                    code=ErrorCode.RECURSIVE_WAIT_DEADLOCK,
                    message=(
                        "waiting for this run would never end: it is on the queue of this run, and "
                        f"the runs that wait for each other there have given on all of its "
                        f"{run['concurrency_limit']} slots; give the queue a higher concurrency "
                        "limit, or the task a queue of its own"
                    ),
                )
        case TokenWait():
            if wait.token_id not in tokens:
                return StringError(
                    raw=f"can't wait for {wait.token_id[:64]}: there is no such token"
                )
        case DateWait():
            pass
    return None


async def _store(
    tx: Transaction,
    environment: Environment,
    run_id: str,
    waits: Sequence[RunsWait | DateWait | TokenWait],
    *,
    now: datetime,
) -> None:
    if not waits:
        return
    run_ids: set[str] = set()
    dates: dict[str, datetime] = {}
    on: list[tuple[str, int, str]] = []
    for wait in waits:
        match wait:
            case RunsWait():
                run_ids.update(wait.run_ids)
                on += [
                    (wait.wait_id, position, waitpoint_id_of_run(awaited))
                    for position, awaited in enumerate(wait.run_ids)
                ]
            case DateWait():
                waitpoint_id = make_id("waitpoint", now)
                dates[waitpoint_id] = wait.date
                on.append((wait.wait_id, 0, waitpoint_id))
            case TokenWait():
                on.append((wait.wait_id, 0, wait.token_id))
    if run_ids:
        await tx.execute(_sql.insert_run_waitpoints, run_ids=sorted(run_ids), now=now)
    if dates:
        await tx.execute(
            _sql.insert_date_waitpoints,
            environment_id=environment.id,
            ids=list(dates),
            due_at=list(dates.values()),
            now=now,
        )
    await tx.execute(
        _sql.insert_waits,
        run_id=run_id,
        wait_ids=[wait_id for wait_id, _, _ in on],
        positions=[position for _, position, _ in on],
        waitpoint_ids=[waitpoint_id for _, _, waitpoint_id in on],
        now=now,
    )


def waitpoint_id_of_run(run_id: str) -> str:
    """The id of the waitpoint that a run's end completes."""
    return f"waitpoint_{run_id.removeprefix('run_')}"


async def _choose(tx: Transaction, waiting: Sequence[Row]) -> list[Row]:
    """Those that have slots, in the order of their turn; locks what slots are counted under."""
    environment_rows = await tx.fetch(
        _sql.lock_environments, environment_ids=sorted({row["environment_id"] for row in waiting})
    )
    rooms = {row["id"]: row["room"] for row in environment_rows}
    needing = sorted({row["subqueue_id"] for row in waiting if row["released_slots"] == 2})
    subqueue_rows = await tx.fetch(_sql.lock_subqueues, subqueue_ids=needing) if needing else []
    subqueue_rooms = {row["id"]: row["room"] for row in subqueue_rows}
    going: list[Row] = []
    for row in waiting:
        needs_queue = row["released_slots"] == 2
        if rooms[row["environment_id"]] < 1:
            continue
        if needs_queue and subqueue_rooms[row["subqueue_id"]] < 1:
            continue
        rooms[row["environment_id"]] -= 1
        if needs_queue:
            subqueue_rooms[row["subqueue_id"]] -= 1
        going.append(row)
    return going


def _result(row: Row) -> WaitResult:
    if row["type"] == "MANUAL":
        error = StringError(raw="the token timed out") if row["is_error"] else None
        return WaitResult.model_construct(
            is_ok=not row["is_error"],
            output=row["output"],
            output_type=row["output_type"] or JSON_TYPE,
            error=error,
        )
    return WaitResult.model_construct(
        is_ok=row["child_status"] == RunStatus.COMPLETED,
        output=row["child_output"],
        output_type=row["child_output_type"] or JSON_TYPE,
        error=decode_error(row["child_error"]),
        run_id=row["child_id"],
        task_id=row["child_task_id"],
        status=row["child_status"],
    )

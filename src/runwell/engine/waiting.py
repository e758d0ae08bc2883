"""A run begins to wait: its waits are checked and noted, and it may be blocked by them."""

from collections.abc import Sequence
from datetime import datetime

from runwell.core.errors import ErrorCode, InternalError, StringError, TaskRunError
from runwell.core.ids import make_id
from runwell.core.statuses import ExecutionStatus
from runwell.core.waits import DateWait, RunsWait, TokenWait, WaitAnswer, WaitBody, WaitRefusal
from runwell.engine import attempts
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.waitpoints import waitpoint_id_of_run

_sql = load_queries("waiting")

_NO_LIMIT = 2_147_483_647
_BLOCKED = frozenset({ExecutionStatus.EXECUTING_WITH_WAITPOINTS, ExecutionStatus.QUEUED_EXECUTING})


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
        status = ExecutionStatus(run["execution_status"])
        if status is ExecutionStatus.PENDING_EXECUTING:
            # The report of its start is held back for a moment, or was lost.
            await attempts.start_attempts(tx, {body.run_id: body.started_at}, now=now)
        elif status is not ExecutionStatus.EXECUTING and status not in _BLOCKED:
            # It is being canceled: the word of that is on its way.
            return WaitAnswer()
        if body.received:
            await tx.execute(_sql.forget_waits, run_id=body.run_id, wait_ids=body.received)
        new, refused = await _insert(tx, environment, run, body, now=now)
        if status in _BLOCKED:
            # A thread of it begins a wait while the run is blocked by others. The new one may be
            # complete already: nobody would look.
            await tx.execute(_sql.wake_run, run_id=body.run_id)
        # What is refused raises in the task, which then has something to do.
        if not body.is_blocked or refused or status is ExecutionStatus.QUEUED_EXECUTING:
            return WaitAnswer(refused=refused)
        if status in _BLOCKED and not new and not body.received:
            # The answer to this was lost: it is blocked by these waits already.
            return WaitAnswer(is_blocked=True)
        blocked = await tx.fetch_value(_sql.block_run, run_id=body.run_id, now=now)
        return WaitAnswer(is_blocked=blocked is not None)

    return await db.run(act)


async def _insert(
    tx: Transaction, environment: Environment, run: Row, body: WaitBody, *, now: datetime
) -> tuple[int, list[WaitRefusal]]:
    """Note the waits that weren't told of before: how many these are, and which can't be."""
    if not body.waits:
        return 0, []
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
    return len(accepted), refused


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

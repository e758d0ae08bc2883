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

from runwell.core.errors import StringError
from runwell.core.payloads import JSON_TYPE
from runwell.core.statuses import ExecutionStatus, RunStatus
from runwell.core.waits import (
    CompletedWait,
    ResumeBody,
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
# What is left out of an answer for its size is fetched by the run itself, one after the other.
MOST_BYTES_PER_ANSWER = 8 * 1024 * 1024

_NO_LIMIT = 2_147_483_647
_WAITABLE = frozenset({ExecutionStatus.EXECUTING, ExecutionStatus.EXECUTING_WITH_WAITPOINTS})


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a look at waiting runs came to: how many were seen, and whose workers have results."""

    seen: int = 0
    worker_ids: set[str] = field(default_factory=set[str])


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
        most_bytes=MOST_BYTES_PER_ANSWER,
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
        await tx.execute(_sql.lock_woken_runs, run_ids=run_ids)
        rows = await tx.fetch(_sql.list_runs_to_continue, run_ids=run_ids)
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
        is_left_out=row["is_left_out"],
    )

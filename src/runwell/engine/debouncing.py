"""Debouncing: triggers with one key push one delayed run, until there are no more of them.

For each task and key a row says which run that is. Every such trigger locks it first, so that they
come one after the other; the timer that enqueues the run locks the run itself. So a trigger either
finds the run still delayed, and pushes it, or makes another one.
"""

from datetime import datetime

from runwell.core.ids import RunId
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import Debounce, NewRun

_sql = load_queries("debouncing")


async def push_run(
    tx: Transaction, environment: Environment, run: NewRun, debounce: Debounce, *, now: datetime
) -> RunId | None:
    """Push the delayed run of the trigger's key; its id, or None when `run` is to be made.

    An idempotency key that has a run goes first: that run is returned, and nothing is pushed. What
    is to be made must be inserted within `tx`.
    """
    due_at = run.delayed_until or now + debounce.delay
    new_latest_at = debounce.latest_at(due_at, now)
    place = {"environment_id": environment.id, "task_id": run.task_id}
    row = await tx.fetch_one(
        _sql.lock_debounce,
        **place,
        key=debounce.key,
        run_id=run.run_id,
        due_at=due_at,
        latest_at=new_latest_at,
        request_key=debounce.request_key,
    )
    if row is None:
        raise RuntimeError(f"the debounce of task {run.task_id} vanished while it was locked")
    if row["is_made"]:
        return run.run_id
    if row["is_repeated"]:
        return row["run_id"]
    if run.idempotency_key is not None:
        found = await tx.fetch_value(
            _sql.find_run_of_key, **place, key=run.idempotency_key, now=now
        )
        if found is not None:
            return found
    latest_at: datetime | None = row["latest_at"]
    pushed: RunId | None = await tx.fetch_value(
        _sql.push_run,
        run_id=row["run_id"],
        due_at=due_at if latest_at is None else min(due_at, latest_at),
        is_trailing=debounce.is_trailing,
        payload=run.payload,
        payload_type=run.payload_type,
        metadata=run.metadata,
        tags=run.tags,
        max_attempts=run.max_attempts,
        max_duration=run.max_duration,
        machine=run.machine,
        now=now,
    )
    await tx.execute(
        _sql.note_push,
        **place,
        key=debounce.key,
        run_id=pushed or run.run_id,
        due_at=due_at,
        latest_at=new_latest_at if pushed is None else latest_at,
        request_key=debounce.request_key,
    )
    if pushed is not None and run.idempotency_key is not None:
        await tx.execute(
            _sql.take_key,
            **place,
            key=run.idempotency_key,
            run_id=pushed,
            expires_at=run.idempotency_key_expires_at,
        )
    return pushed


async def delete_idle_debounces(db: Database, *, most: int, now: datetime) -> None:
    """Forget keys whose run went on its way an hour ago."""
    await db.fetch(_sql.delete_idle_debounces, most=most, now=now)

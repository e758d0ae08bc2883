"""Queues: where runs wait, and how workers get them within the limits.

A queue is one *subqueue* for each concurrency key. Runs of a subqueue are first in, first out but
for priority; subqueues of an environment take turns. See `adr/` for the locks.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.ids import ALPHABET, ID_LENGTH, make_id
from runwell.core.machines import MachineName
from runwell.core.protocol import DequeueBody, DequeuedRun, QueueContext
from runwell.core.statuses import RunEvent
from runwell.core.timing import RetryOptions
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("queues")

# Empty subqueues that a dequeue saw are marked once there are so many; a loop does the rest.
_RETIRE_AT = 16
# So often a dequeue looks on at once when all that it saw was empty or gone after all.
_MAX_LOOKS = 50
_ATTEMPT_ID = re.compile(rf"attempt_([{ALPHABET}]{{{ID_LENGTH}}})[0-9]+")


async def ensure_queue(
    tx: Transaction,
    environment: Environment,
    *,
    name: str,
    concurrency_key: str,
    now: datetime,
    concurrency_limit: int | None = None,
) -> None:
    """Make a queue and its subqueue for a key, as far as they aren't there."""
    await tx.execute(
        _sql.create_queue,
        public_id=make_id("queue", now),
        environment_id=environment.id,
        name=name,
        concurrency_limit=concurrency_limit,
        now=now,
    )
    await tx.execute(
        _sql.create_subqueues,
        environment_id=environment.id,
        names=[name],
        concurrency_keys=[concurrency_key],
    )


async def ensure_queues(
    tx: Transaction, environment: Environment, wanted: Sequence[tuple[str, str]], *, now: datetime
) -> None:
    """Make queues and their subqueues, each a name and a key, as far as they aren't there."""
    names = sorted({name for name, _ in wanted})
    await tx.execute(
        _sql.create_queues,
        public_ids=[make_id("queue", now) for _ in names],
        environment_id=environment.id,
        names=names,
        now=now,
    )
    await tx.execute(
        _sql.create_subqueues,
        environment_id=environment.id,
        names=[name for name, _ in wanted],
        concurrency_keys=[key for _, key in wanted],
    )


async def set_limit(
    tx: Transaction, environment: Environment, *, name: str, limit: int | None, now: datetime
) -> None:
    """Set how many runs of each of a queue's keys may execute at once; None lifts the limit.

    More than the environment's limit is taken as that. An override stays in force.
    """
    await tx.execute(
        _sql.create_queue,
        public_id=make_id("queue", now),
        environment_id=environment.id,
        name=name,
        concurrency_limit=limit,
        now=now,
    )
    queue_id = await tx.fetch_value(
        _sql.set_queue_limit, environment_id=environment.id, name=name, concurrency_limit=limit
    )
    if queue_id is not None:
        await copy_settings(tx, queue_id)


async def copy_settings(tx: Transaction, queue_id: int) -> None:
    """Give a queue's subqueues its limit and its pause; the caller has changed the queue's row."""
    await tx.execute(_sql.copy_queue_settings, queue_id=queue_id)


async def enqueue_runs(
    tx: Transaction, run_ids: Sequence[str], *, pin_versions: bool, now: datetime
) -> set[int]:
    """Put runs whose hold is over into their queues; the caller holds their locks.

    With `pin_versions` a run that was started before stays on its version. Returns the ids of the
    environments that have something to dequeue now.
    """
    return await _enqueue(tx, run_ids, RunEvent.ENQUEUE, pin_versions=pin_versions, now=now)


async def requeue_runs(
    tx: Transaction, run_ids: Sequence[str], *, pin_versions: bool, now: datetime
) -> set[int]:
    """Take runs from their worker and put them back in their old place in the queue."""
    return await _enqueue(tx, run_ids, RunEvent.HAND_BACK, pin_versions=pin_versions, now=now)


async def unqueue_runs(tx: Transaction, run_ids: Sequence[str]) -> None:
    """Take runs that ended out of their queues; the caller holds their locks."""
    if run_ids:
        await tx.execute(_sql.unqueue_runs, run_ids=list(run_ids))


async def dequeue_runs(
    db: Database, environment: Environment, body: DequeueBody, *, now: datetime
) -> list[DequeuedRun]:
    """Hand up to `max_runs` runs to a worker, committed when this returns.

    The same request id gives the same runs as long as they have not started. A worker whose lease
    has ended gets none until its heartbeat renews it. Raises RequestError 409 for a worker that is
    unknown: it must connect.
    """
    for _ in range(_MAX_LOOKS):
        rows = await db.fetch(
            _sql.dequeue_runs,
            environment_id=environment.id,
            worker_id=body.worker_id,
            request_id=body.request_id,
            background_worker_ids=body.background_worker_ids,
            max_runs=body.max_runs,
            now=now,
        )
        first = rows[0]
        if not first["workers"]:
            raise RequestError(
                409,
                f"there is no worker {body.worker_id} in this environment: connect again",
            )
        empty: list[int] = first["empty_subqueue_ids"] or []
        if len(empty) >= _RETIRE_AT:
            await retire_subqueues(db, empty)
        if first["id"] is not None:
            return [_dequeued_run(row) for row in rows]
        # When another worker was faster to take what was seen, or a rate limit held it, there may
        # be more behind it; and what the same request was given meanwhile is seen now.
        may_be_more = first["has_candidates"] or first["has_blocked"] or first["is_repeated"]
        if not (may_be_more or len(empty) >= _RETIRE_AT):
            return []
    return []


async def retire_subqueues(db: Database, subqueue_ids: Sequence[int]) -> None:
    """Mark those of these subqueues empty in which nothing waits."""
    async with db.transaction() as tx:
        rows = await tx.fetch(_sql.lock_idle_subqueues, subqueue_ids=list(subqueue_ids))
        if rows:
            await tx.execute(_sql.retire_subqueues, subqueue_ids=[row["id"] for row in rows])


async def delete_unused_subqueues(
    db: Database, *, after: int, most: int, turns: int, now: datetime
) -> tuple[int, int]:
    """Look at the next subqueues, and delete those of concurrency keys that are no longer used.

    A key is used while a run has it that may still go on, and for `turns` turns of its environment.
    Returns how many were looked at, and up to which one.
    """

    async def act(tx: Transaction) -> tuple[int, int]:
        found = await tx.fetch_one(_sql.lock_unused_subqueues, after=after, most=most, turns=turns)
        assert found is not None
        if found["subqueue_ids"]:
            await tx.execute(
                _sql.delete_unused_subqueues, subqueue_ids=found["subqueue_ids"], now=now
            )
        return found["seen"], found["last_id"] or 0

    return await db.run(act)


async def _enqueue(
    tx: Transaction, run_ids: Sequence[str], event: RunEvent, *, pin_versions: bool, now: datetime
) -> set[int]:
    if not run_ids:
        return set()
    rows = await tx.fetch(
        _sql.enqueue_runs,
        run_ids=list(run_ids),
        event=event.value,
        pin_versions=pin_versions,
        now=now,
    )
    return {row["environment_id"] for row in rows}


def _dequeued_run(row: Row) -> DequeuedRun:
    retry = RetryOptions.model_validate_json(row["retry"])
    # Built without checking: every value comes from columns that the schema checks.
    return DequeuedRun.model_construct(
        run_id=row["id"],
        snapshot_id=row["lease_id"],
        task_id=row["task_id"],
        background_worker_id=row["background_worker_id"],
        version=row["version"],
        attempt_id=make_attempt_id(row["id"], row["attempt_number"]),
        attempt_number=row["attempt_number"],
        counted_attempts=row["attempt_number"] - row["handed_back"],
        payload=row["payload"],
        payload_type=row["payload_type"],
        metadata=None if row["metadata"] is None else json.loads(row["metadata"]),
        tags=row["tags"],
        is_test=row["is_test"],
        idempotency_key=row["idempotency_key"],
        max_attempts=row["max_attempts"] or retry.max_attempts,
        max_duration=row["max_duration"],
        machine=MachineName(row["machine"]),
        queue=QueueContext(id=row["queue_id"], name=row["queue_name"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        duration_ms=row["duration_ms"],
        batch_id=row["batch_id"],
        parent_run_id=row["parent_run_id"],
        root_run_id=row["root_run_id"],
        traceparent=row["traceparent"],
        context=None if row["context"] is None else json.loads(row["context"]),
    )


def make_attempt_id(run_id: str, number: int) -> str:
    """The public id of a run's attempt: that of the run, with the attempt's number."""
    return f"attempt_{run_id.removeprefix('run_')}{number}"


def run_id_of_attempt(attempt_id: str) -> str | None:
    """The run that an attempt's public id names; None when it names none."""
    found = _ATTEMPT_ID.fullmatch(attempt_id)
    return None if found is None else f"run_{found[1]}"

"""Queues as their users see and change them: lists with counts, pause, and limits over the code's.

Not about how runs go in and out: `queues`. A change is one transaction over the queue's row and
then its subqueues. A dequeue passes over a subqueue that is being changed, and who changes one
waits for the dequeue that has it: so when a pause has answered, every later dequeue sees it.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runwell.core.errors import RequestError
from runwell.core.protocol import RateLimitManifest, clean_queue_name, task_queue_name
from runwell.engine import queues
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("queue_settings")

#: What waits in a queue is counted up to this.
MOST_COUNTED = 10_000
_TASK_PREFIX = "task/"


@dataclass(frozen=True, kw_only=True)
class QueueReference:
    """What names a queue: its public id, its name, or the id of the task whose own it is."""

    type: Literal["id", "task", "custom"]
    value: str


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue with what it holds.

    `queued` stops at MOST_COUNTED, and `has_more_queued` says that it did. `base_limit` is that of
    the code or of the last trigger that set one, `limit_override` one that was put over it since
    `overridden_at`; None is no limit.
    """

    id: str
    name: str
    running: int
    queued: int
    has_more_queued: bool
    is_paused: bool
    base_limit: int | None
    limit_override: int | None
    overridden_at: datetime | None
    rate_limits: list[RateLimitManifest]

    @property
    def concurrency_limit(self) -> int | None:
        """The limit that holds for each of its concurrency keys."""
        return self.base_limit if self.overridden_at is None else self.limit_override

    @property
    def task_id(self) -> str | None:
        """The task whose own queue it is; None for one that was given a name."""
        if not self.name.startswith(_TASK_PREFIX):
            return None
        return self.name.removeprefix(_TASK_PREFIX)


@dataclass(frozen=True, kw_only=True)
class QueuePage:
    """A page of queues by their names, and how many there are on all pages."""

    queues: list[Queue]
    count: int


async def list_queues(
    tx: Transaction, environment: Environment, *, page: int, page_size: int
) -> QueuePage:
    """A page of an environment's queues, numbered from 1."""
    rows = await tx.fetch(
        _sql.list_queues,
        environment_id=environment.id,
        most=page_size,
        skipped=(page - 1) * page_size,
        most_counted=MOST_COUNTED + 1,
    )
    count = await tx.fetch_value(_sql.count_queues, environment_id=environment.id)
    return QueuePage(queues=[_queue(row) for row in rows], count=count)


async def get_queue(tx: Transaction, environment: Environment, reference: QueueReference) -> Queue:
    """A queue; raises RequestError 404 when there is none."""
    return _queue(await _get_row(tx, environment, reference))


async def set_paused(
    db: Database, environment: Environment, reference: QueueReference, *, is_paused: bool
) -> Queue:
    """Give out no more runs of a queue, or go on with it. What executes goes on either way.

    Doing it twice changes nothing. Raises RequestError 404.
    """

    async def change(tx: Transaction, queue_id: int) -> int | None:
        return await tx.fetch_value(_sql.set_paused, queue_id=queue_id, is_paused=is_paused)

    return await _change(db, environment, reference, change)


async def override_limit(
    db: Database, environment: Environment, reference: QueueReference, limit: int, *, now: datetime
) -> Queue:
    """Let another limit hold than the code's, also through later deploys, until it is reset.

    Raises RequestError 404, or 422 for more than the environment's limit.
    """

    async def change(tx: Transaction, queue_id: int) -> int | None:
        most = await tx.fetch_value(_sql.get_environment_limit, environment_id=environment.id)
        if limit > most:
            raise RequestError(
                422,
                f"concurrencyLimit {limit:,} is more than the limit of the environment "
                f"{environment.slug}, which is {most:,}: raise that one first",
            )
        return await tx.fetch_value(
            _sql.override_limit, queue_id=queue_id, concurrency_limit=limit, now=now
        )

    return await _change(db, environment, reference, change)


async def reset_limit(db: Database, environment: Environment, reference: QueueReference) -> Queue:
    """Let the code's limit hold again. Raises RequestError 404."""

    async def change(tx: Transaction, queue_id: int) -> int | None:
        return await tx.fetch_value(_sql.reset_limit, queue_id=queue_id)

    return await _change(db, environment, reference, change)


async def _change(
    db: Database,
    environment: Environment,
    reference: QueueReference,
    change: Callable[[Transaction, int], Awaitable[int | None]],
) -> Queue:
    async def act(tx: Transaction) -> Queue:
        row = await _get_row(tx, environment, reference)
        changed = await change(tx, row["id"])
        if changed is None:
            return _queue(row)
        await queues.copy_settings(tx, changed)
        return await get_queue(tx, environment, reference)

    return await db.run(act)


async def _get_row(tx: Transaction, environment: Environment, reference: QueueReference) -> Row:
    match reference.type:
        case "id":
            public_id, name = reference.value, None
        case "task":
            public_id, name = None, task_queue_name(reference.value)
        case "custom":
            public_id, name = None, clean_queue_name(reference.value)
    row = await tx.fetch_one(
        _sql.find_queue,
        environment_id=environment.id,
        public_id=public_id,
        name=name,
        most_counted=MOST_COUNTED + 1,
    )
    if row is None:
        what = {"id": "queue", "task": "queue of a task", "custom": "queue named"}[reference.type]
        raise RequestError(
            404,
            f"there is no {what} {reference.value[:128]} in the environment {environment.slug}: a "
            "queue is there once a version with it is registered, or a run was triggered into it",
        )
    return row


def _queue(row: Row) -> Queue:
    return Queue(
        id=row["public_id"],
        name=row["name"],
        running=row["running"],
        queued=min(row["queued"], MOST_COUNTED),
        has_more_queued=row["queued"] > MOST_COUNTED,
        is_paused=row["is_paused"],
        base_limit=row["concurrency_limit"],
        limit_override=row["concurrency_limit_override"],
        overridden_at=row["overridden_at"],
        rate_limits=[*_rate_limits(row)],
    )


def _rate_limits(row: Row) -> Iterator[RateLimitManifest]:
    columns: list[tuple[Literal["queue", "key"], str]] = [("queue", ""), ("key", "key_")]
    for per, prefix in columns:
        limit, window = row[f"{prefix}rate_limit"], row[f"{prefix}rate_window"]
        if limit is not None:
            yield RateLimitManifest(
                limit=limit, window_seconds=round(window.total_seconds()), per=per
            )

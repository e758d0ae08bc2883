"""Batches: runs triggered together, in one step or not at all.

Batches whose items come in one by one are made by `batch_streams`. Whether a batch is complete is
not counted: it is complete when none of its items' runs goes on.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from runwell.core.errors import RequestError
from runwell.core.ids import RunId, make_id
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import DEFAULT_KEY_LIFETIME, TriggerRequest
from runwell.engine.triggering import trigger_many

_sql = load_queries("batches")

MAX_ITEMS: Final = 1_000
BatchStatus = Literal["PENDING", "PROCESSING", "COMPLETED", "PARTIAL_FAILED", "ABORTED"]


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A batch as it came in; `request_key` is the same when it is sent again.

    With an idempotency key there is one batch of the environment for it while `key_lifetime` lasts.
    """

    items: Sequence[TriggerRequest]
    request_key: str | None = None
    idempotency_key: str | None = None
    key_lifetime: timedelta = DEFAULT_KEY_LIFETIME


@dataclass(frozen=True, kw_only=True, slots=True)
class NewBatch:
    """A batch to be inserted. With a parent, that run is the parent of its runs, and may wait."""

    run_count: int
    request_key: str | None
    idempotency_key: str | None
    key_lifetime: timedelta
    sealed_at: datetime | None
    parent_run_id: RunId | None = None
    is_awaited: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierBatch:
    """The batch that a request or an idempotency key had already."""

    id: str
    run_count: int
    is_sealed: bool
    is_same_request: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFailure:
    """An item that can't be a run, with what a trigger would have been answered."""

    index: int
    task_id: str
    status: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchItem:
    """An item's run; `is_cached` when the item's idempotency key had it already."""

    run_id: RunId
    task_id: str
    idempotency_key: str | None
    is_cached: bool


@dataclass(frozen=True, kw_only=True)
class TriggeredBatch:
    """What a batch trigger made; `is_cached` when the batch's idempotency key had it already."""

    id: str
    is_cached: bool
    idempotency_key: str | None
    items: Sequence[BatchItem]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch as it is now; `sealed_at` is None while its items come in.

    PROCESSING until then, and PENDING until its runs have ended; then PARTIAL_FAILED when some
    items could not be runs, and ABORTED when none could.
    """

    id: str
    status: BatchStatus
    run_count: int
    idempotency_key: str | None
    created_at: datetime
    updated_at: datetime
    sealed_at: datetime | None
    items: Sequence[BatchItem]
    failures: Sequence[BatchFailure]


async def trigger_batch(
    db: Database, environment: Environment, request: BatchRequest, *, now: datetime
) -> TriggeredBatch:
    """Create a batch and its runs, durable when this returns; all of it or nothing.

    Raises RequestError that names the item which can't be (422) or is malformed (400).
    """
    return await db.run(lambda tx: create_batch(tx, environment, request, now=now))


async def create_batch(
    tx: Transaction, environment: Environment, request: BatchRequest, *, now: datetime
) -> TriggeredBatch:
    """Do as `trigger_batch`, within a transaction, which is to be rolled back after an error."""
    if not 1 <= len(request.items) <= MAX_ITEMS:
        raise RequestError(
            400,
            f"items: a batch takes 1 to {MAX_ITEMS:,} items, and {len(request.items)} were given",
        )
    new = NewBatch(
        run_count=len(request.items),
        request_key=request.request_key,
        idempotency_key=request.idempotency_key,
        key_lifetime=request.key_lifetime,
        sealed_at=now,
    )
    made = await insert_batch(tx, environment, new, now=now)
    if isinstance(made, EarlierBatch):
        return TriggeredBatch(
            id=made.id,
            is_cached=not made.is_same_request,
            idempotency_key=request.idempotency_key,
            items=[_item(found) for found in await tx.fetch(_sql.list_items, batch_id=made.id)],
        )
    batch_id = made
    triggered = await trigger_many(tx, environment, request.items, batch_id=batch_id, now=now)
    await tx.execute(
        _sql.insert_items,
        batch_id=batch_id,
        run_ids=[item.run_id for item in triggered],
        is_cached=[item.is_cached for item in triggered],
    )
    return TriggeredBatch(
        id=batch_id,
        is_cached=False,
        idempotency_key=request.idempotency_key,
        items=[
            BatchItem(
                run_id=made.run_id,
                task_id=item.task_id,
                idempotency_key=item.body.options.idempotency_key,
                is_cached=made.is_cached,
            )
            for item, made in zip(request.items, triggered, strict=True)
        ],
    )


async def insert_batch(
    tx: Transaction, environment: Environment, new: NewBatch, *, now: datetime
) -> str | EarlierBatch:
    """The id of a new batch, or the batch that its request or its idempotency key has already."""
    key = new.idempotency_key
    if key is not None:
        await tx.execute(
            _sql.free_expired_key, environment_id=environment.id, idempotency_key=key, now=now
        )
    batch_id = make_id("batch", now)
    is_new = await tx.fetch_value(
        _sql.insert_batch,
        batch_id=batch_id,
        environment_id=environment.id,
        run_count=new.run_count,
        request_key=new.request_key,
        idempotency_key=key,
        key_expires_at=None if key is None else now + new.key_lifetime,
        sealed_at=new.sealed_at,
        parent_run_id=new.parent_run_id,
        is_awaited=new.is_awaited,
        now=now,
    )
    if is_new is not None:
        return batch_id
    row = await tx.fetch_one(
        _sql.find_earlier_batch,
        environment_id=environment.id,
        request_key=new.request_key,
        idempotency_key=key,
    )
    if row is None:
        raise RequestError(422, f"the idempotency key {key} was reset while it was used: try again")
    return EarlierBatch(
        id=row["id"],
        run_count=row["run_count"],
        is_sealed=row["sealed_at"] is not None,
        is_same_request=row["is_same_request"] and new.request_key is not None,
    )


async def get_batch(tx: Transaction, environment: Environment, batch_id: str) -> Batch:
    """A batch with its items; raises RequestError 404 when there is none."""
    row = await tx.fetch_one(_sql.find_batch, batch_id=batch_id, environment_id=environment.id)
    if row is None:
        raise no_such_batch(batch_id, environment)
    rows = await tx.fetch(_sql.list_items, batch_id=batch_id)
    ends: list[datetime] = [found["finished_at"] for found in rows if found["finished_at"]]
    failures = [BatchFailure(**found) for found in json.loads(row["failures"] or "[]")]
    return Batch(
        id=row["id"],
        status=_status(row, len(rows), len(failures)),
        run_count=row["run_count"],
        idempotency_key=row["idempotency_key"],
        created_at=row["created_at"],
        updated_at=max(ends, default=row["sealed_at"] or row["created_at"]),
        sealed_at=row["sealed_at"],
        items=[_item(found) for found in rows],
        failures=failures,
    )


def no_such_batch(batch_id: str, environment: Environment) -> RequestError:
    """The error for a batch that an environment hasn't."""
    return RequestError(
        404,
        f"there is no batch {batch_id[:64]} in the environment {environment.slug} of project "
        f"{environment.project.ref}",
    )


def _status(row: Row, items: int, failures: int) -> BatchStatus:
    if row["sealed_at"] is None:
        return "PROCESSING"
    if not row["is_complete"]:
        return "PENDING"
    if not failures:
        return "COMPLETED"
    return "PARTIAL_FAILED" if items else "ABORTED"


def _item(row: Row) -> BatchItem:
    return BatchItem(
        run_id=row["run_id"],
        task_id=row["task_id"],
        idempotency_key=row["idempotency_key"],
        is_cached=row["is_cached"],
    )

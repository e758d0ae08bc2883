"""Shapes: the runs that a subscription is about, and which of them changed since a view.

A shape is one run, the runs of a batch, or the runs that have some tags. Not about waiting for a
change: that is `changes.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from runwell.core.statuses import RunStatus
from runwell.engine.db import Database, Row, allow_any_plan
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.views import View

_sql = load_queries("shapes")

#: So many runs, and about so many bytes of payloads and outputs, are read at a time.
MAX_RUNS: Final = 200
MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a subscription is about; `of` is the id of a run or a batch, or tags in their order."""

    kind: Literal["run", "batch", "tags"]
    environment_id: int
    of: str | tuple[str, ...]
    #: Only runs that were created then or later.
    created_from: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeRun:
    """A run as subscribers see it. `payload` is None also where it was not asked for."""

    id: str
    task_id: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    delayed_until: datetime | None
    queued_at: datetime | None
    expired_at: datetime | None
    finished_at: datetime | None
    idempotency_key: str | None
    is_test: bool
    duration_ms: int
    ttl: str | None
    payload: str | None
    payload_type: str
    metadata: str | None
    output: str | None
    output_type: str | None
    tags: list[str]
    error: str | None
    #: Its place in the batch that is followed, from 1 on; 0 elsewhere.
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Runs by their ids, the view in which they were read, and whether there may be more."""

    view: View
    runs: list[ShapeRun]
    has_more: bool


async def read_runs(
    db: Database,
    shape: Shape,
    run_ids: Sequence[str] | None,
    *,
    since: View | None,
    until: View | None = None,
    after: str | None = None,
    with_payload: bool = True,
) -> Found:
    """Those of these runs that are in the shape and changed since a view; None: all of them.

    The runs of a batch are known here: no ids stand for all of them. With `until`, not those that
    have changed after that view.
    """
    rows = await db.fetch(
        _sql.read_runs,
        run_ids=None if run_ids is None else list(run_ids),
        batch_id=shape.of if shape.kind == "batch" else None,
        environment_id=shape.environment_id,
        tags=list(shape.of) if isinstance(shape.of, tuple) else None,
        created_from=shape.created_from,
        since=None if since is None else str(since),
        until=None if until is None else str(until),
        after=after,
        with_payload=with_payload,
        most=MAX_RUNS,
        max_bytes=MAX_BYTES,
    )
    return _found(rows)


async def read_tagged_runs(
    db: Database, shape: Shape, *, since: View | None, after: str | None = None
) -> Found:
    """The runs of a shape of tags that changed since a view; None: all of them."""
    async with db.transaction() as tx:
        await allow_any_plan(tx)
        rows = await tx.fetch(
            _sql.read_tagged_runs,
            environment_id=shape.environment_id,
            tags=list(shape.of),
            created_from=shape.created_from,
            since=None if since is None else str(since),
            after=after,
            most=MAX_RUNS,
            max_bytes=MAX_BYTES,
        )
    return _found(rows)


async def has_batch(db: Database, environment: Environment, batch_id: str) -> bool:
    """Whether an environment has this batch."""
    (row,) = await db.fetch(_sql.has_batch, batch_id=batch_id, environment_id=environment.id)
    return bool(row[0])


async def has_run(db: Database, environment: Environment, run_id: str) -> bool:
    """Whether an environment has this run."""
    (row,) = await db.fetch(_sql.has_run, run_id=run_id, environment_id=environment.id)
    return bool(row[0])


def _found(rows: Sequence[Row]) -> Found:
    runs = [_run(row) for row in rows if row["id"] is not None]
    has_more = len(runs) == MAX_RUNS
    if runs and not has_more:
        last = runs[-1]
        own = sum(len(text.encode()) for text in (last.payload, last.output) if text is not None)
        has_more = int(rows[-1]["bytes_before"] or 0) + own >= MAX_BYTES
    return Found(view=View.parse(rows[0]["view"]), runs=runs, has_more=has_more)


def _run(row: Row) -> ShapeRun:
    return ShapeRun(
        id=row["id"],
        task_id=row["task_id"],
        status=RunStatus(row["status"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        started_at=row["started_at"],
        delayed_until=row["delayed_until"],
        queued_at=row["queued_at"],
        expired_at=row["expired_at"],
        finished_at=row["finished_at"],
        idempotency_key=row["idempotency_key"],
        is_test=row["is_test"],
        duration_ms=row["duration_ms"],
        ttl=row["ttl"],
        payload=row["payload"],
        payload_type=row["payload_type"],
        metadata=row["metadata"],
        output=row["output"],
        output_type=row["output_type"],
        tags=row["tags"],
        error=row["error"],
        number=row["number"],
    )

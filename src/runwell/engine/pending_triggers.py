"""Triggers of applications that share the database, made runs once their transaction has committed.

The application calls the SQL function `runwell_trigger` (migration 0028), which writes down what is
to be triggered; see `adr/0007-triggers-in-other-transactions.md`. Every server may do this at once:
what another one has is passed over.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from runwell.core.batch_schemas import PendingItemBody
from runwell.core.errors import RequestError
from runwell.engine import environments
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import TriggerRequest
from runwell.engine.triggering import AskedTrigger, trigger_asked

_sql = load_queries("pending_triggers")
_log = logging.getLogger(__name__)
_items = TypeAdapter(list[PendingItemBody])

#: So many are made runs in one transaction.
BATCH = 100
# What can't be a run is kept for so long.
_REFUSED_LIFETIME = timedelta(days=30)
_MOST_DELETED = 1_000
# How often a run is looked for that another server is about to make, and how long between.
_MOST_LOOKS = 50
_LOOK_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """How many triggers were seen, and in which environments there are new runs."""

    seen: int
    environment_ids: set[int]


async def create_pending_runs(db: Database, *, now: datetime) -> Created:
    """Make runs of what committed transactions have triggered, each once whatever happens.

    One that can't be a run is refused by itself: it is logged, and kept for a month.
    """
    try:
        return await db.run(lambda tx: _create(tx, most=BATCH, now=now))
    except RequestError:
        # One of them: which one is seen when each is on its own.
        return await _create_each(db, now=now)


async def settle_run(
    db: Database, environment: Environment, run_id: str, *, now: datetime
) -> set[int]:
    """Make a run that was committed just now, for whoever asks for it before a server has made it.

    Returns the environments that have new runs; empty when nothing was to be made.
    """
    environment_ids = set[int]()
    for _ in range(_MOST_LOOKS):
        async with db.connection() as tx:
            is_pending = await tx.fetch_value(
                _sql.is_pending, environment_id=environment.id, run_id=run_id
            )
        if not is_pending:
            break
        environment_ids.add(environment.id)
        created = await create_pending_runs(db, now=now)
        environment_ids |= created.environment_ids
        if not created.seen:
            # Another server has it.
            await asyncio.sleep(_LOOK_SECONDS)
    return environment_ids


async def delete_refused(db: Database, *, now: datetime) -> None:
    """Forget what could not be a run long ago."""
    await db.fetch(_sql.delete_refused_triggers, before=now - _REFUSED_LIFETIME, most=_MOST_DELETED)


async def _create(tx: Transaction, *, most: int, now: datetime) -> Created:
    rows = _first_alike(await tx.fetch(_sql.lock_pending_triggers, from_id=0, most=most))
    if rows:
        await _trigger(tx, rows, now=now)
    return Created(seen=len(rows), environment_ids={row["environment_id"] for row in rows})


async def _create_each(db: Database, *, now: datetime) -> Created:
    seen, environment_ids, after = 0, set[int](), 0

    async def act(tx: Transaction) -> Row | None:
        nonlocal row
        row = await tx.fetch_one(_sql.lock_pending_triggers, from_id=after + 1, most=1)
        if row is not None:
            await _trigger(tx, [row], now=now)
        return row

    for _ in range(BATCH):
        row: Row | None = None
        try:
            await db.run(act)
        except RequestError as error:
            assert row is not None
            await _refuse(db, row, error, now=now)
        if row is None:
            break
        seen, after = seen + 1, row["id"]
        environment_ids.add(row["environment_id"])
    return Created(seen=seen, environment_ids=environment_ids)


def _first_alike(rows: Sequence[Row]) -> list[Row]:
    """Those from the first on that are of its environment, or the first alone if it is a batch.

    One environment at a time, so that subqueues are locked in one order.
    """
    alike: list[Row] = []
    for row in rows:
        if alike and (
            row["environment_id"] != alike[0]["environment_id"] or row["batch_id"] is not None
        ):
            break
        alike.append(row)
        if row["batch_id"] is not None:
            break
    return alike


async def _trigger(tx: Transaction, rows: Sequence[Row], *, now: datetime) -> None:
    environment = await environments.get_by_id(tx, rows[0]["environment_id"])
    batch_id: str | None = rows[0]["batch_id"]
    asked = [
        AskedTrigger(
            request=TriggerRequest(task_id=item.task, body=item.body, run_id=item.id),
            asked_at=row["created_at"],
        )
        for row in rows
        for item in _items.validate_json(row["items"])
    ]
    made = await trigger_asked(tx, environment, asked, batch_id=batch_id, now=now)
    if batch_id is not None:
        await tx.execute(
            _sql.seal_pending_batch,
            batch_id=batch_id,
            run_ids=[run.run_id for run in made],
            is_cached=[run.is_cached for run in made],
            now=now,
        )
    await tx.execute(_sql.delete_pending_triggers, ids=[row["id"] for row in rows])


async def _refuse(db: Database, row: Row, error: RequestError, *, now: datetime) -> None:
    await db.fetch(
        _sql.refuse_pending_trigger,
        id=row["id"],
        problem=str(error),
        status=error.status,
        now=now,
    )
    fields = {"environment_id": row["environment_id"], "error": str(error)}
    _log.error("pending_trigger_refused", extra={"fields": fields})

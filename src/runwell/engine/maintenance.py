"""Putting right what crashes left, and forgetting what is over: safe to do anywhere, any time."""

from datetime import datetime, timedelta

from runwell.engine import credentials, debouncing, deployments, queues
from runwell.engine.db import Database
from runwell.engine.queries import load_queries

_sql = load_queries("maintenance")

_MOST = 500
#: So many subqueues are looked at by one step of their sweep.
SUBQUEUES = 500
# A concurrency key that was served this many turns ago is forgotten: who uses it again pays for it.
_UNUSED_TURNS = 20_000


class SubqueueSweep:
    """A walk over the subqueues that deletes those of concurrency keys that nobody uses."""

    def __init__(self, db: Database, *, turns: int = _UNUSED_TURNS) -> None:
        """Walk from the first one on."""
        self._db = db
        self._turns = turns
        self._after = 0

    async def tick(self, now: datetime) -> int:
        """Do one step; returns SUBQUEUES unless the walk came to its end, and begins anew then."""
        seen, last_id = await queues.delete_unused_subqueues(
            self._db, after=self._after, most=SUBQUEUES, turns=self._turns, now=now
        )
        self._after = last_id if seen == SUBQUEUES else 0
        return seen


async def retire_empty_subqueues(db: Database) -> int:
    """Mark subqueues in which nothing waits any more, so that dequeues don't look at them."""
    async with db.connection() as tx:
        rows = await tx.fetch(_sql.find_empty_subqueues, most=_MOST)
    if rows:
        await queues.retire_subqueues(db, [row["id"] for row in rows])
    return len(rows)


async def release_waiting_runs(db: Database, *, now: datetime) -> set[int]:
    """Queue runs that wait for a task which the current version has by now."""
    async with db.connection() as tx:
        environment_ids = await deployments.list_environments_with_waiting_runs(tx)
    released: set[int] = set()
    for environment_id in environment_ids:
        if await _release(db, environment_id, now):
            released.add(environment_id)
    return released


async def delete_expired_keys(db: Database, *, now: datetime) -> None:
    """Forget idempotency keys past their lifetime."""
    async with db.connection() as tx:
        await tx.execute(_sql.delete_expired_keys, now=now, most=_MOST)


async def delete_old_requests(db: Database, *, now: datetime) -> None:
    """Forget the keys of requests that were answered a day ago."""
    async with db.connection() as tx:
        await tx.execute(_sql.delete_old_requests, before=now - timedelta(days=1), most=_MOST)


async def delete_used_tokens(db: Database, *, now: datetime) -> None:
    """Forget one-time tokens that have ended."""
    async with db.connection() as tx:
        await credentials.delete_used_tokens(tx, now=now, most=_MOST)


async def delete_idle_debounces(db: Database, *, now: datetime) -> None:
    """Forget debounces whose run went on its way."""
    await debouncing.delete_idle_debounces(db, most=_MOST, now=now)


async def delete_old_waitpoints(db: Database, *, now: datetime) -> None:
    """Forget dates and tokens that are complete for long, when no run has yet to hear of them."""
    async with db.connection() as tx:
        await tx.execute(_sql.delete_old_waitpoints, now=now, most=_MOST)


async def _release(db: Database, environment_id: int, now: datetime) -> int:
    return await db.run(lambda tx: deployments.release_waiting_runs(tx, environment_id, now=now))

"""What happens at an instant: delays and backoffs end, times to live pass.

Every server may do it at once: rows that another one has are passed over.
"""

from datetime import datetime

from runwell.engine import queues, runs
from runwell.engine.db import Database, Transaction
from runwell.engine.queries import load_queries

_sql = load_queries("timers")

#: So many runs are moved by one tick.
BATCH = 500


async def enqueue_due_runs(db: Database, *, now: datetime) -> tuple[int, set[int]]:
    """Queue runs whose delay or backoff is over: how many, and in which environments."""

    async def act(tx: Transaction) -> tuple[int, set[int]]:
        rows = await tx.fetch(_sql.find_due_runs, now=now, most=BATCH)
        environment_ids: set[int] = set()
        for is_development in (True, False):
            run_ids = [row["id"] for row in rows if row["is_development"] is is_development]
            environment_ids |= await queues.enqueue_runs(
                tx, run_ids, pin_versions=not is_development, now=now
            )
        return len(rows), environment_ids

    return await db.run(act)


async def find_next_timer(db: Database) -> datetime | None:
    """When the next delay or backoff is over; None when there is none."""
    rows = await db.fetch(_sql.find_next_timer)
    return rows[0]["due_at"]


async def expire_due_runs(db: Database, *, now: datetime) -> int:
    """End queued runs whose time to live has passed; returns how many."""

    async def act(tx: Transaction) -> int:
        rows = await tx.fetch(_sql.find_expired_runs, now=now, most=BATCH)
        if rows:
            await runs.expire_runs(tx, [row["id"] for row in rows], now=now)
        return len(rows)

    return await db.run(act)


async def find_next_instant(db: Database, *, has_schedules: bool) -> datetime | None:
    """The next instant at which anything happens by itself; None when nothing does.

    For whoever moves a clock: delays, backoffs, waits, times to live, rate limits, and with
    `has_schedules` the ticks of schedules.
    """
    rows = await db.fetch(_sql.find_next_instant, has_schedules=has_schedules)
    return rows[0]["due_at"]

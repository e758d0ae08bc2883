"""Rate limits: so many starts of a queue, or of each of its keys, in any window of time.

A start is a dequeue. The dequeue counts it in the log of the queue or subqueue in the same
statement, and blocks a subqueue whose limit is used up: it leaves the index that dequeues read, and
costs nothing until `open_due_subqueues` puts it back. A log knows starts by twentieths of the
window and forgets a twentieth when its last start is out of the window: so in no window are there
more than the limit, and room may come back up to a twentieth of the window later than it could.
"""

from collections.abc import Sequence
from datetime import datetime

from runwell.core.protocol import RateLimitManifest
from runwell.engine import queues
from runwell.engine.db import Database, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("rate_limits")

#: So many subqueues are opened by one tick.
BATCH = 500


async def set_rate_limits(
    tx: Transaction, environment: Environment, *, name: str, limits: Sequence[RateLimitManifest]
) -> None:
    """Set the rate limits of a queue that is there; those that are not given are removed."""
    of = {limit.per: limit for limit in limits}
    whole, key = of.get("queue"), of.get("key")
    queue_id = await tx.fetch_value(
        _sql.set_queue_rates,
        environment_id=environment.id,
        name=name,
        rate_limit=whole and whole.limit,
        rate_window_seconds=whole and whole.window_seconds,
        key_rate_limit=key and key.limit,
        key_rate_window_seconds=key and key.window_seconds,
    )
    if queue_id is not None:
        await tx.execute(_sql.copy_queue_rate, queue_id=queue_id)
        await tx.execute(_sql.delete_queue_rate, queue_id=queue_id)
        await queues.copy_settings(tx, queue_id)


async def open_due_subqueues(db: Database, *, now: datetime) -> tuple[int, set[int]]:
    """Put back what rate limits have room for: how many subqueues, and in which environments."""
    rows = await db.fetch(_sql.open_due_subqueues, now=now, most=BATCH)
    return sum(row["opened"] for row in rows), {row["environment_id"] for row in rows}

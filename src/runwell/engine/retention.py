"""Forgetting what is old: finished runs with all that belongs to them, and their lines before that.

Each sweep walks from the oldest run towards the limit, some hundred runs at a time. Ids sort by the
time they were made, so the walk needs no index of its own and never looks at what is younger.
Any number of servers may sweep: what one has locked the others pass over.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from runwell.core.ids import earliest_id
from runwell.engine.db import Database, Transaction
from runwell.engine.queries import load_queries

_sql = load_queries("retention")

#: So many runs, and so many lines, are looked at by one tick.
RUNS: Final = 200
LINES: Final = 2_000
BATCHES: Final = 200
DEFAULT_DAYS: Final = 30
# Packets are looked after so much later: a replay of the run may be under way.
_PACKETS_LATER = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long runs are kept after their end, and lines after they were written; None: for ever."""

    runs: timedelta | None = timedelta(days=DEFAULT_DAYS)
    lines: timedelta | None = timedelta(days=DEFAULT_DAYS)


class RunSweep:
    """A walk over old runs that deletes those that may go."""

    def __init__(self, db: Database, lifetime: timedelta) -> None:
        self._db = db
        self._lifetime = lifetime
        self._after = ""

    async def tick(self, now: datetime) -> int:
        """Do one step; returns RUNS unless the walk came to its end, and begins anew then."""
        seen, self._after = await self._db.run(lambda tx: self._step(tx, now))
        return seen

    async def _step(self, tx: Transaction, now: datetime) -> tuple[int, str]:
        limit = now - self._lifetime
        found = await tx.fetch_one(
            _sql.lock_old_runs,
            after=self._after,
            before=earliest_id("run", limit),
            finished_before=limit,
            now=now,
            most=RUNS,
        )
        assert found is not None
        run_ids: list[str] = found["run_ids"]
        if run_ids:
            lines = await tx.fetch_value(_sql.delete_lines_of_runs, run_ids=run_ids, most=LINES)
            if lines == LINES:
                # There may be more: the same runs again.
                return RUNS, self._after
            await _delete(tx, run_ids, now)
        is_over = found["seen"] < RUNS
        return found["seen"], "" if is_over else found["last_id"]


class BatchSweep:
    """A walk over old batches that deletes those without runs: emptied ones, and never filled ones.

    Most go with their last run; these are left when a server died in between.
    """

    def __init__(self, db: Database, lifetime: timedelta) -> None:
        self._db = db
        self._lifetime = lifetime
        self._after = ""

    async def tick(self, now: datetime) -> int:
        """Do one step; returns BATCHES unless the walk came to its end, and begins anew then."""
        rows = await self._db.fetch(
            _sql.delete_old_batches,
            after=self._after,
            before=earliest_id("batch", now - self._lifetime),
            most=BATCHES,
            now=now,
        )
        seen = int(rows[0]["seen"])
        self._after = rows[0]["last_id"] if seen == BATCHES else ""
        return seen


class LineSweep:
    """A walk over the lines of old runs that deletes those that are old themselves."""

    def __init__(self, db: Database, lifetime: timedelta) -> None:
        self._db = db
        self._lifetime = lifetime
        self._after = ("", 0, 0)

    async def tick(self, now: datetime) -> int:
        """Do one step; returns LINES unless the walk came to its end, and begins anew then."""
        limit = now - self._lifetime
        run_id, attempt, seq = self._after
        rows = await self._db.fetch(
            _sql.delete_old_lines,
            after_run=run_id,
            after_attempt=attempt,
            after_seq=seq,
            before=earliest_id("run", limit),
            logged_before=limit,
            most=LINES,
        )
        if not rows or rows[0]["seen"] < LINES:
            self._after = ("", 0, 0)
            return 0
        last = rows[0]
        self._after = (last["run_id"], last["attempt_number"], last["seq"])
        return LINES


async def _delete(tx: Transaction, run_ids: list[str], now: datetime) -> None:
    rows = await tx.fetch(_sql.delete_runs, run_ids=run_ids, packets_expire_at=now + _PACKETS_LATER)
    batch_ids = [row["batch_id"] for row in rows]
    if batch_ids:
        await tx.execute(_sql.delete_empty_batches, batch_ids=batch_ids)

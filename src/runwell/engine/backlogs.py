"""How many runs may wait in an environment's queues, held at the door at no cost to triggers.

A trigger compares two numbers in memory: what was counted last, and what this server has let in
since. A loop counts again when their sum reaches the limit, and every few seconds for what other
servers let in. So the limit may be exceeded by what comes in while one count goes on; it is there
so that a loop without end doesn't fill the disk. Runs that are delayed or executing don't count.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from runwell.core.errors import RequestError
from runwell.core.ids import run_id_for_request
from runwell.engine.db import Database
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("backlogs")

#: How often the loop looks whether there is something to count.
TICK_SECONDS = 0.05
# What other servers let in is counted so often at most.
_RECOUNT_SECONDS = 5.0
# A count that took long is not made again before this many times as long.
_COST_FACTOR = 20


@dataclass(frozen=True, kw_only=True)
class QueueSizes:
    """How many runs may wait in all queues of an environment, by its type."""

    development: int = 100_000
    staging: int = 10_000_000
    production: int = 10_000_000


@dataclass(kw_only=True)
class _Backlog:
    environment: Environment
    limit: int
    counted: int = 0
    #: Let in since that count, and how much of it came while the count was made.
    admitted: int = 0
    counted_at: float = float("-inf")
    cost_seconds: float = 0.0
    was_refused: bool = False

    def is_due(self, now: float) -> bool:
        """Whether to count it anew."""
        age = now - self.counted_at
        if age < self.cost_seconds * _COST_FACTOR:
            return False
        if self.was_refused or self.counted + self.admitted >= self.limit:
            return True
        may_differ = self.admitted > 0 or self.counted > self.limit // 2
        return may_differ and age >= _RECOUNT_SECONDS


class Backlogs:
    """The backlogs of the environments that this server has triggered runs in."""

    def __init__(
        self,
        db: Database,
        sizes: QueueSizes | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._sizes = sizes or QueueSizes()
        self._clock = clock
        self._backlogs: dict[int, _Backlog] = {}

    def has_room(self, environment: Environment, runs: int = 1) -> bool:
        """Whether so many runs may be triggered; those are counted as let in then."""
        backlog = self._backlogs.get(environment.id)
        if backlog is None:
            backlog = _Backlog(environment=environment, limit=self._limit(environment))
            self._backlogs[environment.id] = backlog
        if backlog.counted + runs > backlog.limit:
            backlog.was_refused = True
            return False
        backlog.admitted += runs
        return True

    def refusal(self, environment: Environment, runs: int = 1) -> RequestError:
        """What to say when there is no room."""
        limit = self._limit(environment)
        counted = self._backlogs[environment.id].counted
        waiting = "" if counted < limit else "or more "
        what = "another one" if runs == 1 else f"another {runs:,}"
        return RequestError(
            422,
            f"{counted:,} {waiting}runs wait in the queues of the environment {environment.slug}, "
            f"and with {what} it would be more than the {limit:,} that may: let workers catch up, "
            f"cancel what isn't needed, or raise {_SETTINGS[environment.type]} of the server",
        )

    async def tick(self) -> int:
        """Count what has to be counted; returns how many environments that were."""
        due = [found for found in self._backlogs.values() if found.is_due(self._clock())]
        for backlog in due:
            await self._count(backlog)
        return len(due)

    async def _count(self, backlog: _Backlog) -> None:
        started_at, admitted_before = self._clock(), backlog.admitted
        most = await self._db.fetch(_sql.estimate_all_queued)
        counted = int(most[0]["most"])
        # Most of the time the whole table is far from what one environment may have.
        if counted > backlog.limit // 2:
            rows = await self._db.fetch(
                _sql.count_queued, environment_id=backlog.environment.id, most=backlog.limit
            )
            counted = int(rows[0]["count"])
        backlog.counted = counted
        # What came in meanwhile may have been counted or not.
        backlog.admitted -= admitted_before
        backlog.was_refused = False
        backlog.counted_at = self._clock()
        backlog.cost_seconds = backlog.counted_at - started_at

    def _limit(self, environment: Environment) -> int:
        match environment.type:
            case "DEVELOPMENT":
                return self._sizes.development
            case "STAGING":
                return self._sizes.staging
            case _:
                return self._sizes.production


async def is_known_run(
    db: Database,
    environment: Environment,
    task_id: str,
    *,
    request_key: str | None,
    idempotency_key: str | None,
    now: datetime,
) -> bool:
    """Whether a trigger would make no new run: it may be answered however many wait."""
    run_id = None if request_key is None else run_id_for_request(environment.id, request_key, now)
    rows = await db.fetch(
        _sql.is_known_run,
        run_id=run_id,
        request_key=request_key,
        environment_id=environment.id,
        task_id=task_id,
        idempotency_key=idempotency_key,
        now=now,
    )
    return bool(rows[0][0])


async def is_known_batch(
    db: Database,
    environment: Environment,
    *,
    request_key: str | None,
    idempotency_key: str | None,
    now: datetime,
) -> bool:
    """Whether a batch trigger would make no new batch."""
    rows = await db.fetch(
        _sql.is_known_batch,
        environment_id=environment.id,
        request_key=request_key,
        idempotency_key=idempotency_key,
        now=now,
    )
    return bool(rows[0][0])


_SETTINGS = {
    "DEVELOPMENT": "RUNWELL_QUEUE_SIZE_DEV",
    "STAGING": "RUNWELL_QUEUE_SIZE_STAGING",
    "PRODUCTION": "RUNWELL_QUEUE_SIZE_PROD",
}

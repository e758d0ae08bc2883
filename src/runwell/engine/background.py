"""Loops: an interval and a tick that does one batch, run by every server, safe side by side."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from runwell.core.protocol import LEASE_SECONDS
from runwell.core.timing import Clock
from runwell.engine import maintenance, timers, workers
from runwell.engine.db import Database, DatabaseUnavailableError
from runwell.engine.notifications import Signals

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """`tick` does one batch and returns how much it did; at `full` it is called again at once."""

    name: str
    interval_seconds: float
    tick: Callable[[], Awaitable[int]]
    full: int = 1_000_000_000
    first_after_seconds: float = 0.0

    async def run(self) -> None:
        """Tick until canceled; a tick that fails is logged and tried again."""
        await asyncio.sleep(self.first_after_seconds)
        while True:
            done = 0
            try:
                done = await self.tick()
            except DatabaseUnavailableError as error:
                _log.warning(
                    "loop_waits_for_database",
                    extra={"fields": {"loop": self.name, "error": str(error)}},
                )
            # A loop is the last line of defence for runs: it must outlive any single failure.
            except Exception:  # noqa: BLE001
                _log.exception("loop_failed", extra={"fields": {"loop": self.name}})
            if done < self.full:
                await asyncio.sleep(self.interval_seconds)


def list_loops(db: Database, signals: Signals, clock: Clock, lease_seconds: float) -> list[Loop]:
    """Everything that happens by itself."""

    def wake(environment_ids: set[int]) -> int:
        for environment_id in environment_ids:
            signals.wake(f"runs:{environment_id}")
        return len(environment_ids)

    async def enqueue_due_runs() -> int:
        count, environment_ids = await timers.enqueue_due_runs(db, now=clock.now())
        wake(environment_ids)
        return count

    async def expire_due_runs() -> int:
        return await timers.expire_due_runs(db, now=clock.now())

    async def take_lost_runs() -> int:
        return wake(await workers.take_lost_runs(db, now=clock.now()))

    async def release_waiting_runs() -> int:
        return wake(await maintenance.release_waiting_runs(db, now=clock.now()))

    async def retire_empty_subqueues() -> int:
        return await maintenance.retire_empty_subqueues(db)

    async def tidy() -> int:
        await maintenance.delete_expired_keys(db, now=clock.now())
        await workers.delete_old_workers(db, now=clock.now())
        return 0

    return [
        Loop(name="due_runs", interval_seconds=0.1, tick=enqueue_due_runs, full=timers.BATCH),
        Loop(name="expiry", interval_seconds=0.5, tick=expire_due_runs, full=timers.BATCH),
        # After an outage of the server all leases have ended. Workers that live get the time to
        # renew theirs before anything is taken from them.
        Loop(
            name="lost_runs",
            interval_seconds=min(1.0, lease_seconds / 3),
            tick=take_lost_runs,
            full=1,
            first_after_seconds=lease_seconds,
        ),
        Loop(name="waiting_runs", interval_seconds=2.0, tick=release_waiting_runs, full=1),
        Loop(name="empty_subqueues", interval_seconds=2.0, tick=retire_empty_subqueues, full=500),
        Loop(name="tidying", interval_seconds=60.0, tick=tidy),
    ]


@contextlib.asynccontextmanager
async def run_loops(
    db: Database, signals: Signals, clock: Clock, *, lease_seconds: float = LEASE_SECONDS
) -> AsyncGenerator[None]:
    """Run every loop within the block."""
    tasks = [
        asyncio.create_task(loop.run(), name=loop.name)
        for loop in list_loops(db, signals, clock, lease_seconds)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

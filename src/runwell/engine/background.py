"""Loops: an interval and a tick that does one batch, run by every server, safe side by side."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from runwell.core.protocol import LEASE_SECONDS
from runwell.core.timing import Clock
from runwell.engine import (
    bulk_steps,
    canceling,
    maintenance,
    packets,
    rate_limits,
    ticks,
    timers,
    waitpoints,
    workers,
)
from runwell.engine.backlogs import TICK_SECONDS as BACKLOG_SECONDS
from runwell.engine.backlogs import Backlogs
from runwell.engine.db import Database, DatabaseUnavailableError
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore, ObjectStoreError
from runwell.engine.retention import LINES, RUNS, LineSweep, Retention, RunSweep

# Old runs and lines are looked for so often, and deleted with so much of a rest between two steps.
_SWEEP_SECONDS = 600.0
_REST_SECONDS = 0.1

_log = logging.getLogger(__name__)

#: Woken when runs that wait may be able to go on.
WAITS_TOPIC = "waits"
#: Woken here when there is a new bulk action.
BULK_TOPIC = "bulk_actions"
#: Woken when a date was set that may be sooner than all others.
DATES_TOPIC = "dates"
# Nobody needs to wake what is looked at every tenth of a second: it only must not be late then.
_TIMERS_TOPIC = "timers"
# What is due and stays so, since another server has it, is looked at again after this long.
_LEAST_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True)
class Loop:
    """`tick` does one batch and returns how much it did; at `full` it is called again at once.

    `pause` waits for the next tick, for `interval_seconds` at most; it gets the version that its
    topic had before the tick, so that what was woken meanwhile is not slept through.
    """

    name: str
    interval_seconds: float
    tick: Callable[[], Awaitable[int]]
    full: int = 1_000_000_000
    first_after_seconds: float = 0.0
    #: Fails while the database is away. With it, `first_after_seconds` pass after an outage too.
    probe: Callable[[], Awaitable[object]] | None = None
    #: The least time between two ticks: for what is in no hurry, and must not be in anybody's way.
    rest_seconds: float = 0.0
    nudges: "Nudges | None" = None

    async def run(self) -> None:
        """Tick until canceled; a tick that fails is logged and tried again."""
        await asyncio.sleep(self.first_after_seconds)
        while True:
            done = 0
            version = self.nudges.version() if self.nudges is not None else 0
            try:
                done = await self.tick()
            except DatabaseUnavailableError as error:
                _log.warning(
                    "loop_waits_for_database",
                    extra={"fields": {"loop": self.name, "error": str(error)}},
                )
                if self.probe is not None:
                    await self._outlast(self.probe)
            # A loop is the last line of defence for runs: it must outlive any single failure.
            except Exception:  # noqa: BLE001
                _log.exception("loop_failed", extra={"fields": {"loop": self.name}})
            if self.rest_seconds:
                await asyncio.sleep(self.rest_seconds)
            if done < self.full:
                if self.nudges is not None:
                    await self.nudges.wait(version, self.interval_seconds)
                else:
                    await asyncio.sleep(self.interval_seconds)

    async def _outlast(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Until the database has been there for `first_after_seconds` without a break."""
        back_at: float | None = None
        while back_at is None or time.monotonic() < back_at + self.first_after_seconds:
            await asyncio.sleep(self.interval_seconds)
            try:
                await probe()
            except DatabaseUnavailableError:
                back_at = None
            else:
                back_at = time.monotonic() if back_at is None else back_at


@dataclass(frozen=True, kw_only=True)
class Nudges:
    """A topic that lets a loop tick before its interval is over."""

    signals: Signals
    topic: str
    #: How long until there will be something to do, if that is known.
    seconds_left: Callable[[], Awaitable[float | None]] | None = None

    def version(self) -> int:
        """Read before the tick."""
        return self.signals.version(self.topic)

    async def wait(self, version: int, seconds: float) -> None:
        """Until woken since `version`, or there is something to do, or `seconds` have passed."""
        left = None
        with contextlib.suppress(DatabaseUnavailableError):
            left = await self.seconds_left() if self.seconds_left is not None else None
        if left is not None:
            seconds = min(seconds, max(left, _LEAST_SECONDS))
        await self.signals.wait(self.topic, version, seconds)


def list_loops(
    db: Database,
    signals: Signals,
    store: ObjectStore,
    clock: Clock,
    lease_seconds: float,
    retention: Retention,
) -> list[Loop]:
    """Everything that happens by itself."""
    return [
        *_list_timer_loops(db, signals, clock),
        *_list_wait_loops(db, signals, clock),
        *_list_maintenance_loops(db, signals, clock, lease_seconds),
        *_list_storage_loops(db, store, clock, retention),
    ]


def _list_timer_loops(db: Database, signals: Signals, clock: Clock) -> list[Loop]:
    async def enqueue_due_runs() -> int:
        count, environment_ids = await timers.enqueue_due_runs(db, now=clock.now())
        _wake(signals, environment_ids)
        return count

    async def seconds_to_next_timer() -> float | None:
        due_at = await timers.find_next_timer(db)
        return None if due_at is None else (due_at - clock.now()).total_seconds()

    async def open_subqueues() -> int:
        count, environment_ids = await rate_limits.open_due_subqueues(db, now=clock.now())
        _wake(signals, environment_ids)
        return count

    async def expire_due_runs() -> int:
        count = await timers.expire_due_runs(db, now=clock.now())
        if count:
            signals.wake_here(WAITS_TOPIC)
        return count

    async def trigger_due_ticks() -> int:
        count, environment_ids = await ticks.trigger_due_ticks(db, now=clock.now())
        _wake(signals, environment_ids)
        return count

    return [
        Loop(
            name="due_runs",
            interval_seconds=0.1,
            tick=enqueue_due_runs,
            full=timers.BATCH,
            nudges=Nudges(signals=signals, topic=_TIMERS_TOPIC, seconds_left=seconds_to_next_timer),
        ),
        Loop(name="rate_limits", interval_seconds=0.1, tick=open_subqueues, full=rate_limits.BATCH),
        Loop(name="expiry", interval_seconds=0.5, tick=expire_due_runs, full=timers.BATCH),
        Loop(name="schedules", interval_seconds=0.25, tick=trigger_due_ticks, full=ticks.BATCH),
    ]


def _list_wait_loops(db: Database, signals: Signals, clock: Clock) -> list[Loop]:
    async def continue_runs() -> int:
        continued = await waitpoints.continue_runs(db, now=clock.now())
        for worker_id in continued.worker_ids:
            signals.wake(f"resume:{worker_id}")
        return continued.seen

    async def complete_due_waitpoints() -> int:
        count = await waitpoints.complete_due_waitpoints(db, now=clock.now())
        if count:
            signals.wake_here(WAITS_TOPIC)
        return count

    async def seconds_to_next_date() -> float | None:
        due_at = await waitpoints.find_next_due(db)
        return None if due_at is None else (due_at - clock.now()).total_seconds()

    return [
        Loop(
            name="waits",
            interval_seconds=0.5,
            tick=continue_runs,
            full=1,
            nudges=Nudges(signals=signals, topic=WAITS_TOPIC),
        ),
        Loop(
            name="dates",
            interval_seconds=0.5,
            tick=complete_due_waitpoints,
            full=waitpoints.BATCH,
            nudges=Nudges(signals=signals, topic=DATES_TOPIC, seconds_left=seconds_to_next_date),
        ),
    ]


def _list_maintenance_loops(
    db: Database, signals: Signals, clock: Clock, lease_seconds: float
) -> list[Loop]:
    async def take_lost_runs() -> int:
        count = _wake(signals, await workers.take_lost_runs(db, now=clock.now()))
        if count:
            signals.wake_here(WAITS_TOPIC)
        return count

    async def release_waiting_runs() -> int:
        return _wake(signals, await maintenance.release_waiting_runs(db, now=clock.now()))

    async def retire_empty_subqueues() -> int:
        return await maintenance.retire_empty_subqueues(db)

    async def tidy() -> int:
        await maintenance.delete_expired_keys(db, now=clock.now())
        await maintenance.delete_old_waitpoints(db, now=clock.now())
        await maintenance.delete_idle_debounces(db, now=clock.now())
        await maintenance.delete_used_tokens(db, now=clock.now())
        await workers.delete_old_workers(db, now=clock.now())
        await bulk_steps.delete_old_bulk_actions(db, now=clock.now())
        return 0

    return [
        _cancels(db, signals, clock),
        _bulk_actions(db, signals, clock),
        # After an outage of the server or the database all leases have ended. Workers that live get
        # the time to renew theirs before anything is taken from them.
        Loop(
            name="lost_runs",
            interval_seconds=min(1.0, lease_seconds / 3),
            tick=take_lost_runs,
            full=1,
            first_after_seconds=lease_seconds,
            probe=lambda: timers.find_next_timer(db),
        ),
        Loop(name="waiting_runs", interval_seconds=2.0, tick=release_waiting_runs, full=1),
        Loop(name="empty_subqueues", interval_seconds=2.0, tick=retire_empty_subqueues, full=500),
        Loop(name="tidying", interval_seconds=60.0, tick=tidy),
    ]


def _list_storage_loops(
    db: Database, store: ObjectStore, clock: Clock, retention: Retention
) -> list[Loop]:
    async def sweep_packets() -> int:
        try:
            return await packets.sweep(db, store, now=clock.now())
        except ObjectStoreError as error:
            # What isn't deleted now comes up again.
            _log.warning("packets_not_deleted", extra={"fields": {"error": str(error)}})
            return 0

    async def tidy_store() -> int:
        await store.tidy(clock.now())
        return 0

    loops = [
        Loop(name="packets", interval_seconds=30.0, tick=sweep_packets, full=packets.BATCH),
        Loop(name="object_store", interval_seconds=600.0, tick=tidy_store),
    ]
    if retention.lines is not None:
        lines = LineSweep(db, retention.lines)
        loops.append(
            Loop(
                name="old_lines",
                interval_seconds=_SWEEP_SECONDS,
                tick=lambda: lines.tick(clock.now()),
                full=LINES,
                rest_seconds=_REST_SECONDS,
            )
        )
    if retention.runs is not None:
        runs = RunSweep(db, retention.runs)
        loops.append(
            Loop(
                name="old_runs",
                interval_seconds=_SWEEP_SECONDS,
                tick=lambda: runs.tick(clock.now()),
                full=RUNS,
                rest_seconds=_REST_SECONDS,
            )
        )
    return loops


def _wake(signals: Signals, environment_ids: set[int]) -> int:
    for environment_id in environment_ids:
        signals.wake(f"runs:{environment_id}")
    return len(environment_ids)


def _bulk_actions(db: Database, signals: Signals, clock: Clock) -> Loop:
    async def tick() -> int:
        step = await bulk_steps.take_step(db, now=clock.now())
        if step is None:
            return 0
        _wake(signals, step.environment_ids)
        for worker_id in {run.worker_id for run in step.canceled if run.worker_id is not None}:
            signals.wake(f"worker:{worker_id}")
        if step.canceled:
            signals.wake_here(WAITS_TOPIC)
        return 1

    return Loop(
        name="bulk_actions",
        interval_seconds=1.0,
        tick=tick,
        full=1,
        nudges=Nudges(signals=signals, topic=BULK_TOPIC),
    )


def _cancels(db: Database, signals: Signals, clock: Clock) -> Loop:
    async def tick() -> int:
        canceled = await canceling.cancel_descendants(db, now=clock.now())
        for worker_id in {run.worker_id for run in canceled if run.worker_id is not None}:
            signals.wake(f"worker:{worker_id}")
        if canceled:
            signals.wake_here(WAITS_TOPIC)
        return len(canceled)

    return Loop(name="cancels", interval_seconds=0.5, tick=tick, full=1)


@contextlib.asynccontextmanager
async def run_loops(
    db: Database,
    signals: Signals,
    store: ObjectStore,
    clock: Clock,
    *,
    lease_seconds: float = LEASE_SECONDS,
    retention: Retention | None = None,
    backlogs: Backlogs | None = None,
) -> AsyncGenerator[None]:
    """Run every loop within the block."""
    loops = list_loops(db, signals, store, clock, lease_seconds, retention or Retention())
    if backlogs is not None:
        loops.append(Loop(name="backlogs", interval_seconds=BACKLOG_SECONDS, tick=backlogs.tick))
    tasks = [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

"""Everything that happens by itself: the loops that every server runs, safe side by side."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from runwell.core.protocol import LEASE_SECONDS
from runwell.core.timing import Clock
from runwell.engine import (
    bulk_steps,
    canceling,
    change_log,
    maintenance,
    packets,
    pending_triggers,
    rate_limits,
    run_streams,
    spans,
    ticks,
    timers,
    waitpoints,
    workers,
)
from runwell.engine.backlogs import TICK_SECONDS as BACKLOG_SECONDS
from runwell.engine.backlogs import Backlogs
from runwell.engine.db import Database
from runwell.engine.loops import Loop, Nudges
from runwell.engine.notifications import Signals
from runwell.engine.object_store import ObjectStore, ObjectStoreError
from runwell.engine.retention import (
    BATCHES,
    LINES,
    RUNS,
    BatchSweep,
    LineSweep,
    Retention,
    RunSweep,
)

# Old runs and lines are looked for so often, and deleted with so much of a rest between two steps.
_SWEEP_SECONDS = 600.0
_REST_SECONDS = 0.1
# There are partitions for some days ahead, so that this may fail for long.
_DAYS_SECONDS = 3_600.0

_log = logging.getLogger(__name__)

#: Woken when runs that wait may be able to go on.
WAITS_TOPIC = "waits"
#: Woken here when there is a new bulk action.
BULK_TOPIC = "bulk_actions"
#: Woken when a date was set that may be sooner than all others.
DATES_TOPIC = "dates"
#: Woken by the database, when a transaction has committed that triggers runs.
PENDING_TOPIC = "pending_triggers"
# Nobody needs to wake what is looked at every tenth of a second: it only must not be late then.
_TIMERS_TOPIC = "timers"


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

    async def create_pending_runs() -> int:
        created = await pending_triggers.create_pending_runs(db, now=clock.now())
        _wake(signals, created.environment_ids)
        return created.seen

    return [
        Loop(
            name="pending_triggers",
            interval_seconds=1.0,
            tick=create_pending_runs,
            full=1,
            nudges=Nudges(signals=signals, topic=PENDING_TOPIC),
        ),
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
        await maintenance.delete_old_requests(db, now=clock.now())
        await pending_triggers.delete_refused(db, now=clock.now())
        await maintenance.delete_old_waitpoints(db, now=clock.now())
        await maintenance.delete_idle_debounces(db, now=clock.now())
        await maintenance.delete_used_tokens(db, now=clock.now())
        await workers.delete_old_workers(db, now=clock.now())
        await bulk_steps.delete_old_bulk_actions(db, now=clock.now())
        return 0

    subqueues = maintenance.SubqueueSweep(db)
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
        Loop(
            name="unused_subqueues",
            interval_seconds=_SWEEP_SECONDS,
            tick=lambda: subqueues.tick(clock.now()),
            full=maintenance.SUBQUEUES,
            rest_seconds=_REST_SECONDS,
        ),
        Loop(name="tidying", interval_seconds=60.0, tick=tidy),
        Loop(
            name="changes",
            interval_seconds=60.0,
            tick=lambda: change_log.delete_old_changes(db, now=clock.now()),
            full=change_log.SWEEP_ROWS,
            rest_seconds=_REST_SECONDS,
        ),
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

    async def keep_span_days() -> int:
        return await spans.keep_days(db, now=clock.now(), lifetime=retention.lines)

    loops = [
        Loop(name="span_days", interval_seconds=_DAYS_SECONDS, tick=keep_span_days),
        Loop(
            name="old_streams",
            interval_seconds=60.0,
            tick=lambda: run_streams.delete_old_streams(db, now=clock.now()),
            full=run_streams.SWEEP_STREAMS,
            rest_seconds=_REST_SECONDS,
        ),
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
        batches = BatchSweep(db, retention.runs)
        loops.append(
            Loop(
                name="old_batches",
                interval_seconds=_SWEEP_SECONDS,
                tick=lambda: batches.tick(clock.now()),
                full=BATCHES,
                rest_seconds=_REST_SECONDS,
            )
        )
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

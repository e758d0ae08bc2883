"""Ticks: what schedules trigger when their time has come.

Every server may do it at once: schedules that another one has are passed over, and a tick has one
run whatever happens, by the schema.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from runwell.core.cron import last_tick, next_ticks
from runwell.core.ids import make_run_ids
from runwell.core.payloads import SUPER_JSON_TYPE, Json, encode_json
from runwell.core.protocol import LEASE_SECONDS
from runwell.core.schedules import UPCOMING_TICKS, MissedTicks
from runwell.core.timing import format_instant
from runwell.engine.db import Database, Row, Transaction
from runwell.engine.queries import load_queries
from runwell.engine.schedules import Schedule, delay_of, read_schedule

_sql = load_queries("ticks")
_log = logging.getLogger(__name__)

#: So many schedules tick in one transaction.
BATCH = 250
# So many are decided before others may do something.
_AT_A_TIME = 20
#: A tick that comes later than this, because no server ran, counts as missed.
LATE = timedelta(minutes=5)
#: So long a tick in development waits for a worker: one may be about to connect again.
PATIENCE = timedelta(seconds=2 * LEASE_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What one tick comes to: the tick that has a run, if any, and those that follow."""

    schedule: Schedule
    tick_at: datetime | None
    upcoming: list[datetime]


async def trigger_due_ticks(db: Database, *, now: datetime) -> tuple[int, set[int]]:
    """Trigger the runs of schedules that are due: how many ticked, and in which environments."""

    async def act(tx: Transaction) -> tuple[int, set[int]]:
        rows = await tx.fetch(
            _sql.lock_due_schedules, now=now, waited_since=now - PATIENCE, most=BATCH
        )
        if not rows:
            return 0, set()
        ticks: list[Tick] = []
        for number, row in enumerate(rows):
            ticks.append(_tick(row, now))
            if number % _AT_A_TIME == 0:
                # Requests are served by the same event loop.
                await asyncio.sleep(0)
        runs = await _trigger(tx, ticks, now)
        await _move(tx, ticks, {row["schedule_id"] for row in runs})
        return len(ticks), {row["environment_id"] for row in runs}

    return await db.run(act)


def decide(schedule: Schedule, *, can_run: bool, now: datetime) -> Tick:
    """What a schedule that is due does now.

    Of several ticks that are due at once only the last one counts. One that is late is made up for
    only if the schedule says so.
    """
    rule, planned = schedule.rule, schedule.next_tick_at
    if planned is None:
        raise ValueError(f"schedule {schedule.public_id} has no next tick")
    until = now - delay_of(schedule.public_id, rule.spread_seconds)
    upcoming = next_ticks(rule.cron, rule.timezone, planned, UPCOMING_TICKS)
    if upcoming and upcoming[0] <= until:
        planned = last_tick(rule.cron, rule.timezone, planned, until) or planned
        upcoming = next_ticks(rule.cron, rule.timezone, planned, UPCOMING_TICKS)
    is_late = until - planned > LATE
    has_run = can_run and (not is_late or rule.missed_ticks is MissedTicks.CATCH_UP)
    return Tick(schedule=schedule, tick_at=planned if has_run else None, upcoming=upcoming)


def encode_payload(tick: Tick) -> str:
    """The payload of a tick's run, with its dates marked as such (`protocol.md` 7.1)."""
    schedule, rule = tick.schedule, tick.schedule.rule
    dates = ["timestamp", *(f"upcoming.{number}" for number in range(len(tick.upcoming)))]
    payload: dict[str, Json] = {
        "scheduleId": schedule.public_id,
        "type": schedule.type.value,
        "timestamp": None if tick.tick_at is None else format_instant(tick.tick_at),
        "timezone": rule.timezone,
        "upcoming": [format_instant(instant) for instant in tick.upcoming],
    }
    if schedule.last_tick_at is not None:
        payload["lastTimestamp"] = format_instant(schedule.last_tick_at)
        dates.append("lastTimestamp")
    if rule.external_id is not None:
        payload["externalId"] = rule.external_id
    values: dict[str, Json] = {path: ["Date"] for path in dates}
    return encode_json({"json": payload, "meta": {"values": values}})


def _tick(row: Row, now: datetime) -> Tick:
    schedule = read_schedule(row)
    try:
        return decide(schedule, can_run=row["can_run"], now=now)
    except ValueError as error:
        # A zone that this machine doesn't know, say: one schedule must not hold up all others.
        fields = {"schedule_id": schedule.public_id, "error": str(error)}
        _log.error("schedule_stopped", extra={"fields": fields})
        return Tick(schedule=schedule, tick_at=None, upcoming=[])


async def _trigger(tx: Transaction, ticks: list[Tick], now: datetime) -> list[Row]:
    triggered = [tick for tick in ticks if tick.tick_at is not None]
    if not triggered:
        return []
    return await tx.fetch(
        _sql.trigger_ticks,
        run_ids=make_run_ids(len(triggered), now),
        schedule_ids=[tick.schedule.id for tick in triggered],
        tick_ats=[tick.tick_at for tick in triggered],
        payloads=[encode_payload(tick) for tick in triggered],
        payload_type=SUPER_JSON_TYPE,
        now=now,
    )


async def _move(tx: Transaction, ticks: list[Tick], triggered: set[str]) -> None:
    next_ticks_at = [tick.upcoming[0] if tick.upcoming else None for tick in ticks]
    await tx.execute(
        _sql.move_schedules,
        ids=[tick.schedule.id for tick in ticks],
        next_tick_ats=next_ticks_at,
        due_ats=[
            None
            if at is None
            else at + delay_of(t.schedule.public_id, t.schedule.rule.spread_seconds)
            for at, t in zip(next_ticks_at, ticks, strict=True)
        ],
        last_tick_ats=[
            tick.tick_at if tick.schedule.public_id in triggered else None for tick in ticks
        ],
    )

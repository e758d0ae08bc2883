"""Schedules: cron rules attached to tasks, by their code or by calls.

Not about what their ticks trigger: that is `ticks`.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runwell.core.cron import DEFAULT_TIMEZONE, check_pattern, check_timezone, next_ticks
from runwell.core.errors import RequestError
from runwell.core.ids import make_id
from runwell.core.schedules import MissedTicks, ScheduleManifest, ScheduleType
from runwell.engine.db import Row, Transaction
from runwell.engine.environments import Environment
from runwell.engine.queries import load_queries

_sql = load_queries("schedules")


@dataclass(frozen=True, kw_only=True)
class ScheduleRule:
    """What a schedule does and when; its ticks are spread over `spread_seconds`."""

    task_id: str
    cron: str
    timezone: str = DEFAULT_TIMEZONE
    external_id: str | None = None
    missed_ticks: MissedTicks = MissedTicks.SKIP
    spread_seconds: int = 0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule of an environment."""

    id: int
    public_id: str
    type: ScheduleType
    rule: ScheduleRule
    deduplication_key: str | None
    is_active: bool
    #: The next tick, and when its run is triggered; None when none follows.
    next_tick_at: datetime | None
    due_at: datetime | None
    last_tick_at: datetime | None


async def create_schedule(
    tx: Transaction,
    environment: Environment,
    rule: ScheduleRule,
    *,
    deduplication_key: str,
    now: datetime,
) -> Schedule:
    """Create a schedule, or give the one that has the deduplication key this rule.

    Raises RequestError 422 for a rule that can't be, and for a task that takes no schedules.
    """
    rule = await _check_rule(tx, environment, rule)
    created = await _insert(
        tx, environment, ScheduleType.IMPERATIVE, rule, deduplication_key, now=now
    )
    if created is not None:
        return created
    row = await tx.fetch_one(
        _sql.lock_schedule_of_key,
        environment_id=environment.id,
        deduplication_key=deduplication_key,
    )
    if row is None:
        raise RequestError(
            422, f"the schedule with the key {deduplication_key[:64]!r} was just deleted: try again"
        )
    return await _change(tx, read_schedule(row), rule, now=now)


async def update_schedule(
    tx: Transaction,
    environment: Environment,
    schedule_id: str,
    rule: ScheduleRule,
    *,
    deduplication_key: str | None,
    now: datetime,
) -> Schedule:
    """Give a schedule another rule, and another deduplication key if one is given.

    Raises RequestError 404 when there is none, and 422 for a declared one and for what can't be.
    """
    schedule = await _lock_imperative(tx, environment, schedule_id)
    rule = await _check_rule(tx, environment, rule)
    if deduplication_key not in (None, schedule.deduplication_key):
        if await tx.fetch_value(
            _sql.has_deduplication_key,
            environment_id=environment.id,
            deduplication_key=deduplication_key,
            id=schedule.id,
        ):
            raise RequestError(
                422, f"another schedule has the deduplicationKey {str(deduplication_key)[:64]!r}"
            )
        schedule = replace(schedule, deduplication_key=deduplication_key)
    return await _change(tx, schedule, rule, now=now)


async def set_active(
    tx: Transaction, environment: Environment, schedule_id: str, *, is_active: bool, now: datetime
) -> Schedule:
    """Let a schedule tick, or stop it; raises RequestError as `update_schedule` does."""
    schedule = await _lock_imperative(tx, environment, schedule_id)
    if schedule.is_active is is_active:
        return schedule
    return await _change(tx, replace(schedule, is_active=is_active), schedule.rule, now=now)


async def delete_schedule(tx: Transaction, environment: Environment, schedule_id: str) -> None:
    """Forget a schedule; its runs stay. Raises RequestError as `update_schedule` does."""
    schedule = await _lock_imperative(tx, environment, schedule_id)
    await tx.execute(_sql.delete_schedule, id=schedule.id)


async def find_schedule(
    tx: Transaction, environment: Environment, schedule_id: str
) -> Schedule | None:
    """A schedule, or None."""
    row = await tx.fetch_one(
        _sql.find_schedule, environment_id=environment.id, public_id=schedule_id
    )
    return None if row is None else read_schedule(row)


async def get_schedule(tx: Transaction, environment: Environment, schedule_id: str) -> Schedule:
    """A schedule; raises RequestError 404 when there is none."""
    found = await find_schedule(tx, environment, schedule_id)
    if found is None:
        raise _not_found(environment, schedule_id)
    return found


async def list_schedules(
    tx: Transaction, environment: Environment, *, page: int, page_size: int
) -> tuple[list[Schedule], int]:
    """A page of schedules, counted from 1, the newest first; and how many there are in all."""
    count = await tx.fetch_value(_sql.count_schedules, environment_id=environment.id)
    rows = await tx.fetch(
        _sql.list_schedules,
        environment_id=environment.id,
        most=page_size,
        passed=(page - 1) * page_size,
    )
    return [read_schedule(row) for row in rows], count


async def sync_declared(
    tx: Transaction, environment: Environment, background_worker_id: int, *, now: datetime
) -> None:
    """Make the declared schedules those of a version's code: create, change, remove."""
    rows = await tx.fetch(_sql.list_tasks_with_schedules, background_worker_id=background_worker_id)
    wanted: dict[str, ScheduleRule] = {}
    for row in rows:
        manifest = ScheduleManifest.model_validate_json(row["schedule"])
        if manifest.environments is None or environment.type in manifest.environments:
            wanted[row["task_id"]] = declared_rule(row["task_id"], manifest)
    for row in await tx.fetch(_sql.lock_declared_schedules, environment_id=environment.id):
        schedule = read_schedule(row)
        rule = wanted.pop(schedule.rule.task_id, None)
        if rule is None:
            await tx.execute(_sql.delete_schedule, id=schedule.id)
        elif rule != schedule.rule:
            await _change(tx, schedule, rule, now=now)
    for rule in wanted.values():
        await _insert(tx, environment, ScheduleType.DECLARATIVE, rule, None, now=now)


def declared_rule(task_id: str, manifest: ScheduleManifest) -> ScheduleRule:
    """The rule that a task's code declares; raises RequestError 422 for one that can't be."""
    try:
        return ScheduleRule(
            task_id=task_id,
            cron=check_pattern(manifest.cron),
            timezone=check_timezone(manifest.timezone),
            missed_ticks=manifest.missed_ticks,
            spread_seconds=manifest.spread_seconds,
        )
    except ValueError as error:
        raise RequestError(422, f"the schedule of task {task_id}: {error}") from None


def delay_of(schedule_id: str, spread_seconds: int) -> timedelta:
    """How long after its ticks the runs of a schedule come: always the same, within its spread."""
    if spread_seconds == 0:
        return timedelta(0)
    digest = hashlib.sha256(schedule_id.encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) % spread_seconds)


def read_schedule(row: Row) -> Schedule:
    """A row of the table."""
    return Schedule(
        id=row["id"],
        public_id=row["public_id"],
        type=ScheduleType(row["type"]),
        rule=ScheduleRule(
            task_id=row["task_id"],
            cron=row["cron"],
            timezone=row["timezone"],
            external_id=row["external_id"],
            missed_ticks=MissedTicks(row["missed_ticks"]),
            spread_seconds=row["spread_seconds"],
        ),
        deduplication_key=row["deduplication_key"],
        is_active=row["is_active"],
        next_tick_at=row["next_tick_at"],
        due_at=row["due_at"],
        last_tick_at=row["last_tick_at"],
    )


async def _check_rule(
    tx: Transaction, environment: Environment, rule: ScheduleRule
) -> ScheduleRule:
    try:
        cron = check_pattern(rule.cron)
    except ValueError as error:
        raise RequestError(422, f"cron: {error}") from None
    try:
        timezone = check_timezone(rule.timezone)
    except ValueError as error:
        raise RequestError(422, f"timezone: {error}") from None
    is_scheduled = await tx.fetch_value(
        _sql.find_scheduled_task, environment_id=environment.id, task_id=rule.task_id
    )
    if is_scheduled is None:
        raise RequestError(
            422,
            f"task: the current version of the environment {environment.slug} has no task "
            f"{rule.task_id[:64]!r}: deploy it, or start `runwell dev`, before it gets a schedule",
        )
    if not is_scheduled:
        raise RequestError(
            422,
            f"task: {rule.task_id[:64]!r} is no scheduled task: define it with @schedules.task",
        )
    return replace(rule, cron=cron, timezone=timezone)


async def _insert(
    tx: Transaction,
    environment: Environment,
    kind: ScheduleType,
    rule: ScheduleRule,
    deduplication_key: str | None,
    *,
    now: datetime,
) -> Schedule | None:
    public_id = make_id("sched", now)
    row = await tx.fetch_one(
        _sql.insert_schedule,
        public_id=public_id,
        environment_id=environment.id,
        type=kind.value,
        deduplication_key=deduplication_key,
        **_rule_values(rule),
        **_next(public_id, rule, now),
        now=now,
    )
    return None if row is None else read_schedule(row)


async def _change(
    tx: Transaction, schedule: Schedule, rule: ScheduleRule, *, now: datetime
) -> Schedule:
    """Give a locked schedule its rule. A tick that is due stays due when its time is the same."""
    times = {"next_tick_at": schedule.next_tick_at, "due_at": schedule.due_at}
    before = schedule.rule
    is_same = (rule.cron, rule.timezone, rule.spread_seconds) == (
        before.cron,
        before.timezone,
        before.spread_seconds,
    )
    if not schedule.is_active:
        times = {"next_tick_at": None, "due_at": None}
    elif not is_same or schedule.due_at is None:
        times = _next(schedule.public_id, rule, now)
    row = await tx.fetch_one(
        _sql.update_schedule,
        id=schedule.id,
        deduplication_key=schedule.deduplication_key,
        is_active=schedule.is_active,
        **_rule_values(rule),
        **times,
        now=now,
    )
    if row is None:
        raise RuntimeError(f"the schedule {schedule.public_id} vanished while it was locked")
    return read_schedule(row)


async def _lock_imperative(tx: Transaction, environment: Environment, schedule_id: str) -> Schedule:
    row = await tx.fetch_one(
        _sql.lock_schedule, environment_id=environment.id, public_id=schedule_id
    )
    if row is None:
        raise _not_found(environment, schedule_id)
    schedule = read_schedule(row)
    if schedule.type is ScheduleType.DECLARATIVE:
        raise RequestError(
            422,
            f"the schedule {schedule_id} is declared in the code of task "
            f"{schedule.rule.task_id!r}: change it there",
        )
    return schedule


def _next(schedule_id: str, rule: ScheduleRule, now: datetime) -> dict[str, datetime | None]:
    """The first tick from now on, and when its run is to be triggered."""
    ticks = next_ticks(rule.cron, rule.timezone, now, 1)
    tick = ticks[0] if ticks else None
    delay = delay_of(schedule_id, rule.spread_seconds)
    return {"next_tick_at": tick, "due_at": None if tick is None else tick + delay}


def _rule_values(rule: ScheduleRule) -> dict[str, Any]:
    return {
        "task_id": rule.task_id,
        "cron": rule.cron,
        "timezone": rule.timezone,
        "external_id": rule.external_id,
        "missed_ticks": rule.missed_ticks.value,
        "spread_seconds": rule.spread_seconds,
    }


def _not_found(environment: Environment, schedule_id: str) -> RequestError:
    return RequestError(
        404,
        f"there is no schedule {schedule_id[:64]} in the environment {environment.slug} of project "
        f"{environment.project.ref}",
    )

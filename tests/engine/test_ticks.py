"""What schedules trigger when their time has come: once each, whatever happens."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from runwell.core.cron import next_ticks
from runwell.core.schedules import MissedTicks
from runwell.engine import schedules, ticks
from runwell.engine.db import Database, DatabaseUnavailableError
from runwell.engine.schedules import Schedule, ScheduleRule
from tests.support.factories import (
    Scene,
    check_consistency,
    complete,
    make_scene,
    make_task,
    one_transaction,
    read,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def scene_with_task(db: Database, slug: str = "prod", **fields: Any) -> Scene:
    return await make_scene(db, make_task("report", trigger_source="schedule", **fields), slug=slug)


async def create(scene: Scene, cron: str = "0 * * * *", key: str = "key", **rule: Any) -> Schedule:
    made = ScheduleRule(task_id="report", cron=cron, **rule)
    return await scene.db.run(
        lambda tx: schedules.create_schedule(
            tx, scene.environment, made, deduplication_key=key, now=scene.now
        )
    )


async def get(scene: Scene, schedule: Schedule) -> Schedule:
    async with scene.db.connection() as tx:
        return await schedules.get_schedule(tx, scene.environment, schedule.public_id)


async def tick(scene: Scene, now: str) -> int:
    scene.now = at(now)
    return (await ticks.trigger_due_ticks(scene.db, now=scene.now))[0]


async def planned(db: Database) -> list[datetime]:
    """For which ticks there are runs."""
    rows = await read(db, "SELECT tick_at FROM runs WHERE tick_at IS NOT NULL ORDER BY tick_at")
    return [row["tick_at"] for row in rows]


async def test_a_tick_triggers_a_run_with_the_documented_payload(db: Database) -> None:
    scene = await scene_with_task(db)
    schedule = await create(scene, "0 9 * * *", timezone="Asia/Tokyo", external_id="u_1")
    assert await tick(scene, "2026-03-01T23:59:59Z") == 0
    assert await ticks.trigger_due_ticks(db, now=at("2026-03-02T00:00:00.2Z")) == (
        1,
        {scene.environment.id},
    )
    worker = await scene.connect()
    run = await worker.dequeue_one()
    assert run.task_id == "report"
    assert run.payload_type == "application/super+json"
    assert json.loads(run.payload or "") == {
        "json": {
            "scheduleId": schedule.public_id,
            "type": "IMPERATIVE",
            "timestamp": "2026-03-02T00:00:00.000Z",
            "timezone": "Asia/Tokyo",
            "externalId": "u_1",
            "upcoming": [f"2026-03-0{day}T00:00:00.000Z" for day in range(3, 8)],
        },
        "meta": {
            "values": {"timestamp": ["Date"], **{f"upcoming.{n}": ["Date"] for n in range(5)}}
        },
    }
    await worker.report(complete(run))
    assert await tick(scene, "2026-03-03T00:00:01Z") == 1
    await worker.heartbeat()
    second = json.loads((await worker.dequeue_one()).payload or "")
    assert second["json"]["lastTimestamp"] == "2026-03-02T00:00:00.000Z"
    assert second["meta"]["values"]["lastTimestamp"] == ["Date"]
    found = await get(scene, schedule)
    assert found.due_at == at("2026-03-04T00:00Z")
    assert found.last_tick_at == at("2026-03-03T00:00Z")
    await check_consistency(db)


async def test_a_scheduled_run_knows_its_schedule(db: Database) -> None:
    scene = await scene_with_task(db)
    schedule = await create(scene)
    await tick(scene, "2026-03-01T13:00:00Z")
    (row,) = await read(db, "SELECT id FROM runs")
    run = await scene.get(row["id"])
    assert run.schedule is not None
    assert run.schedule.public_id == schedule.public_id
    await db.run(lambda tx: schedules.delete_schedule(tx, scene.environment, schedule.public_id))
    assert (await scene.get(row["id"])).schedule is None


async def test_two_servers_that_tick_at_once_trigger_each_tick_once(db: Database) -> None:
    scene = await scene_with_task(db)
    for number in range(20):
        await create(scene, key=f"key-{number}")
    now = at("2026-03-01T13:00:00Z")
    counts = await asyncio.gather(*(ticks.trigger_due_ticks(db, now=now) for _ in range(6)))
    assert sum(count for count, _ in counts) == 20
    assert len(await planned(db)) == 20
    await check_consistency(db)


async def test_a_schedule_that_another_server_has_is_passed_over(db: Database) -> None:
    scene = await scene_with_task(db)
    await create(scene)
    async with one_transaction(db) as held:
        assert await ticks.trigger_due_ticks(held, now=at("2026-03-01T13:00Z")) == (
            1,
            {scene.environment.id},
        )
        assert await tick(scene, "2026-03-01T13:00:01Z") == 0
    assert await tick(scene, "2026-03-01T13:00:02Z") == 0
    assert len(await planned(db)) == 1


async def test_a_server_killed_between_tick_and_commit_loses_nothing(db: Database) -> None:
    scene = await scene_with_task(db)
    await create(scene)
    now = at("2026-03-01T13:00Z")

    async def tick_and_die() -> None:
        async with one_transaction(db) as held:
            assert (await ticks.trigger_due_ticks(held, now=now))[0] == 1
            (row,) = await read(held, "SELECT pg_backend_pid() AS pid")
            await read(db, "SELECT pg_terminate_backend(:pid)", pid=row["pid"])
            await read(held, "SELECT 1 AS one")

    with pytest.raises(DatabaseUnavailableError):
        await tick_and_die()
    assert await planned(db) == []
    assert await tick(scene, "2026-03-01T13:00:03Z") == 1
    assert await planned(db) == [at("2026-03-01T13:00Z")]
    # The answer of a commit that was lost: the tick is done, and isn't done again.
    assert await tick(scene, "2026-03-01T13:00:04Z") == 0
    await check_consistency(db)


async def test_the_schema_keeps_a_tick_from_having_two_runs(db: Database) -> None:
    scene = await scene_with_task(db)
    schedule = await create(scene)
    await tick(scene, "2026-03-01T13:00Z")
    # As if the schedule had been put back by hand.
    await read(
        db,
        "UPDATE schedules SET next_tick_at = :at, due_at = :at WHERE id = :id RETURNING id",
        at=at("2026-03-01T13:00Z"),
        id=schedule.id,
    )
    assert await tick(scene, "2026-03-01T13:00:05Z") == 1
    assert await planned(db) == [at("2026-03-01T13:00Z")]
    assert (await get(scene, schedule)).due_at == at("2026-03-01T14:00Z")
    await check_consistency(db)


@pytest.mark.parametrize(
    ("policy", "runs"),
    [(MissedTicks.SKIP, []), (MissedTicks.CATCH_UP, [at("2026-03-05T12:00Z")])],
)
async def test_ticks_missed_while_no_server_ran_are_skipped_or_made_up_for_once(
    db: Database, policy: MissedTicks, runs: list[datetime]
) -> None:
    scene = await scene_with_task(db)
    schedule = await create(scene, missed_ticks=policy)
    assert await tick(scene, "2026-03-05T12:30Z") == 1
    assert await planned(db) == runs
    assert (await get(scene, schedule)).due_at == at("2026-03-05T13:00Z")
    assert await tick(scene, "2026-03-05T13:00Z") == 1
    assert (await planned(db))[-1] == at("2026-03-05T13:00Z")


@pytest.mark.parametrize("policy", MissedTicks)
async def test_a_tick_that_is_little_late_is_triggered_and_only_the_last_of_several(
    db: Database, policy: MissedTicks
) -> None:
    scene = await scene_with_task(db)
    await create(scene, "* * * * *", missed_ticks=policy)
    assert await tick(scene, "2026-03-01T12:03:30Z") == 1
    assert await planned(db) == [at("2026-03-01T12:03Z")]
    await create(scene, missed_ticks=policy, key="hourly")
    assert await tick(scene, "2026-03-01T13:05:00Z") == 2
    assert (await planned(db))[-2:] == [at("2026-03-01T13:00Z"), at("2026-03-01T13:05Z")]


async def test_in_development_schedules_tick_only_while_a_worker_is_connected(
    db: Database,
) -> None:
    scene = await scene_with_task(db, "dev")
    schedule = await create(scene, missed_ticks=MissedTicks.CATCH_UP)
    # One may be about to come.
    assert await tick(scene, "2026-03-01T13:00Z") == 0
    assert await tick(scene, "2026-03-01T13:00:30Z") == 1
    assert await planned(db) == []
    assert (await get(scene, schedule)).last_tick_at is None
    scene.now = at("2026-03-01T13:59:55Z")
    worker = await scene.connect()
    assert await tick(scene, "2026-03-01T14:00Z") == 1
    assert await planned(db) == [at("2026-03-01T14:00Z")]
    run = await worker.dequeue_one()
    assert (await scene.get(run.run_id)).ttl == "10m"
    # Its lease has ended: it is gone.
    assert await tick(scene, "2026-03-01T15:00Z") == 0
    assert await tick(scene, "2026-03-01T15:00:30Z") == 1
    assert len(await planned(db)) == 1


async def test_in_development_a_tick_waits_for_a_worker_that_was_cut_off(db: Database) -> None:
    scene = await scene_with_task(db, "dev")
    await create(scene)
    # Its lease has ended while the database was away, and so has everybody's.
    assert await tick(scene, "2026-03-01T13:00Z") == 0
    await scene.connect()
    assert await tick(scene, "2026-03-01T13:00:10Z") == 1
    assert await planned(db) == [at("2026-03-01T13:00Z")]


async def test_a_task_that_the_current_version_has_not_is_not_triggered(db: Database) -> None:
    scene = await scene_with_task(db)
    await create(scene)
    await scene.register(make_task("other"))
    assert await tick(scene, "2026-03-01T13:00Z") == 1
    assert await planned(db) == []
    await scene.register(make_task("report", trigger_source="schedule"))
    assert await tick(scene, "2026-03-01T14:00Z") == 1
    assert await planned(db) == [at("2026-03-01T14:00Z")]


async def test_the_runs_of_a_spread_schedule_come_after_its_ticks(db: Database) -> None:
    scene = await scene_with_task(db)
    made = [await create(scene, spread_seconds=600, key=f"key-{n}") for n in range(8)]
    assert all(schedule.next_tick_at == at("2026-03-01T13:00Z") for schedule in made)
    delays = {schedule.due_at - at("2026-03-01T13:00Z") for schedule in made if schedule.due_at}
    assert len(delays) > 4
    assert all(timedelta(0) <= delay < timedelta(minutes=10) for delay in delays)
    done = [await tick(scene, f"2026-03-01T13:{minute:02}:00Z") for minute in range(11)]
    assert sum(done) == 8
    assert max(done) < 8
    # Planned is the tick, whenever its run is triggered.
    assert await planned(db) == [at("2026-03-01T13:00Z")] * 8
    later = [(await get(scene, schedule)).next_tick_at for schedule in made]
    assert later == [at("2026-03-01T14:00Z")] * 8


async def test_a_tick_that_falls_into_the_hour_left_out_is_triggered_after_it(
    db: Database,
) -> None:
    scene = await scene_with_task(db)
    schedule = await create(scene, "30 2 * * *", timezone="Europe/Berlin")
    scene.now = at("2026-03-28T12:00Z")
    await tick(scene, "2026-03-28T12:00Z")
    assert (await get(scene, schedule)).due_at == at("2026-03-29T01:00Z")
    assert await tick(scene, "2026-03-29T01:00Z") == 1
    assert (await get(scene, schedule)).due_at == at("2026-03-30T00:30Z")


async def test_more_than_a_batch_ticks_in_the_next_ones(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "BATCH", 2)
    scene = await scene_with_task(db)
    for number in range(5):
        await create(scene, key=f"key-{number}")
    now = at("2026-03-01T13:00Z")
    assert [(await ticks.trigger_due_ticks(db, now=now))[0] for _ in range(4)] == [2, 2, 1, 0]
    assert len(await planned(db)) == 5
    await check_consistency(db)


async def test_a_schedule_that_cannot_be_read_stops_and_holds_up_no_other(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    scene = await scene_with_task(db)
    broken, fine = await create(scene, key="broken"), await create(scene, key="fine")
    await read(
        db, "UPDATE schedules SET timezone = 'Mars/Base' WHERE id = :id RETURNING id", id=broken.id
    )
    assert await tick(scene, "2026-03-01T13:00Z") == 2
    assert len(await planned(db)) == 1
    assert (await get(scene, broken)).due_at is None
    assert (await get(scene, fine)).due_at == at("2026-03-01T14:00Z")
    assert "schedule_stopped" in caplog.text


async def test_a_tick_for_a_paused_or_full_queue_waits_as_other_runs_do(db: Database) -> None:
    scene = await scene_with_task(db, queue="one", limit=1)
    await create(scene)
    await tick(scene, "2026-03-01T13:00Z")
    await tick(scene, "2026-03-01T14:00Z")
    worker = await scene.connect()
    assert len(await worker.dequeue()) == 1
    await check_consistency(db)
    rows = await read(db, "SELECT count(*) AS waiting FROM queued_runs")
    assert rows[0]["waiting"] == 1


@dataclass
class Expected:
    """What is expected of a schedule, by the plain rule: each tick is looked at."""

    schedule: Schedule
    since: datetime
    is_active: bool = True
    runs: list[datetime] = field(default_factory=list[datetime])

    def tick(self, now: datetime, *, can_run: bool) -> None:
        rule = self.schedule.rule
        until = now - schedules.delay_of(self.schedule.public_id, rule.spread_seconds)
        if not self.is_active:
            return
        last = None
        while (tick := next_ticks(rule.cron, rule.timezone, self.since, 1)[0]) <= until:
            last = self.since = tick
        if last is None:
            return
        is_made_up = rule.missed_ticks is MissedTicks.CATCH_UP
        if can_run and (is_made_up or until - last <= timedelta(minutes=5)):
            self.runs.append(last)


CRONS = ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */2 * * *", "0 0 L * *", "15 1-3 * * 0"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]


@pytest.mark.parametrize("seed", range(4))
async def test_any_days_of_schedules_trigger_what_the_rule_says(db: Database, seed: int) -> None:
    chance = random.Random(seed)
    scene = await scene_with_task(db)
    scene.now = at("2026-03-28T20:00:00Z") if seed % 2 else at("2026-10-24T20:00:00Z")
    expected: list[Expected] = []
    for step in range(40):
        actions = ["create", "switch", "deploy", "wait", "wait", "wait", "outage"]
        match "create" if step < 5 else chance.choice(actions):
            case "create":
                made = await create(
                    scene,
                    chance.choice(CRONS),
                    key=f"key-{step}",
                    timezone=chance.choice(ZONES),
                    missed_ticks=chance.choice(list(MissedTicks)),
                    spread_seconds=chance.choice([0, 0, 90]),
                )
                expected.append(Expected(schedule=made, since=scene.now))
            case "switch" if expected:
                one = chance.choice(expected)
                one.is_active, one.since = not one.is_active, scene.now
                await _switch(scene, one.schedule, one.is_active)
            case "deploy":
                # A version without the task, for a while.
                await scene.register(make_task())
                scene.later(chance.uniform(0, 300))
                await _tick_twice(scene, expected, can_run=False)
                await scene.register(make_task("report", trigger_source="schedule"))
            case "outage":
                scene.later(chance.uniform(300, 20_000))
                await _tick_twice(scene, expected)
            case _:
                scene.later(chance.uniform(0, 200))
                await _tick_twice(scene, expected)
    rows = await read(db, "SELECT schedule_id, tick_at FROM runs ORDER BY tick_at")
    found: dict[str, list[datetime]] = {}
    for row in rows:
        found.setdefault(row["schedule_id"], []).append(row["tick_at"])
    assert found == {one.schedule.public_id: one.runs for one in expected if one.runs}
    assert rows
    await check_consistency(db)


async def _tick_twice(scene: Scene, expected: list[Expected], *, can_run: bool = True) -> None:
    """Two servers tick at once."""
    await asyncio.gather(*(ticks.trigger_due_ticks(scene.db, now=scene.now) for _ in range(2)))
    for one in expected:
        one.tick(scene.now, can_run=can_run)


async def _switch(scene: Scene, schedule: Schedule, is_active: bool) -> None:
    await scene.db.run(
        lambda tx: schedules.set_active(
            tx, scene.environment, schedule.public_id, is_active=is_active, now=scene.now
        )
    )

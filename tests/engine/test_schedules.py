"""Schedules: created, changed and removed by calls and by the code of their tasks."""

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.schedules import MissedTicks, ScheduleManifest, ScheduleType
from runwell.engine import schedules, ticks
from runwell.engine.db import Database
from runwell.engine.schedules import Schedule, ScheduleRule
from tests.support.factories import (
    NOW,
    Scene,
    make_scene,
    make_task,
    one_transaction,
    wait_until_blocked,
)


def rule(cron: str = "0 9 * * *", task_id: str = "report", **fields: Any) -> ScheduleRule:
    return ScheduleRule(task_id=task_id, cron=cron, **fields)


def declaring(cron: str, task_id: str = "report", **fields: Any) -> Any:
    return make_task(
        task_id, trigger_source="schedule", schedule=ScheduleManifest(cron=cron, **fields)
    )


async def scene_with_task(db: Database, slug: str = "prod") -> Scene:
    return await make_scene(db, make_task("report", trigger_source="schedule"), slug=slug)


async def create(
    scene: Scene, rule: ScheduleRule, key: str = "key", *, db: Database | None = None
) -> Schedule:
    return await (db or scene.db).run(
        lambda tx: schedules.create_schedule(
            tx, scene.environment, rule, deduplication_key=key, now=scene.now
        )
    )


async def listed(scene: Scene) -> list[Schedule]:
    async with scene.db.connection() as tx:
        return (await schedules.list_schedules(tx, scene.environment, page=1, page_size=50))[0]


async def test_a_schedule_is_created_with_its_next_tick(db: Database) -> None:
    scene = await scene_with_task(db)
    created = await create(scene, rule(" 0  9 * * 1L ", timezone="Asia/Tokyo", external_id="u_1"))
    assert created.public_id.startswith("sched_")
    assert created.rule.cron == "0 9 * * 1L"
    assert (created.type, created.is_active) == (ScheduleType.IMPERATIVE, True)
    assert created.due_at == created.next_tick_at == datetime.fromisoformat("2026-03-30T00:00Z")
    assert await listed(scene) == [created]


async def test_a_known_deduplication_key_changes_the_schedule_that_has_it(db: Database) -> None:
    scene = await scene_with_task(db)
    first = await create(scene, rule(external_id="u_1"))
    second = await create(scene, rule("0 10 * * *", missed_ticks=MissedTicks.CATCH_UP))
    assert second.public_id == first.public_id
    assert second.rule == rule("0 10 * * *", missed_ticks=MissedTicks.CATCH_UP)
    assert second.due_at is not None
    assert second.due_at.hour == 10
    assert (await create(scene, rule(), key="another")).public_id != first.public_id
    assert len(await listed(scene)) == 2


async def test_the_same_key_in_another_environment_is_another_schedule(db: Database) -> None:
    production, staging = await scene_with_task(db), await scene_with_task(db, "stg")
    assert (await create(production, rule())).public_id != (await create(staging, rule())).public_id
    assert len(await listed(production)) == len(await listed(staging)) == 1


async def test_a_schedule_created_again_while_it_is_due_still_ticks(db: Database) -> None:
    scene = await scene_with_task(db)
    created = await create(scene, rule())
    # An application that creates its schedules whenever it starts, at nine and a second.
    scene.now = created.due_at or NOW
    scene.later(1)
    assert (await create(scene, rule(external_id="u_2"))).due_at == created.due_at
    assert (await ticks.trigger_due_ticks(db, now=scene.now))[1] == {scene.environment.id}


async def test_two_calls_with_one_key_at_once_create_one_schedule(db: Database) -> None:
    scene = await scene_with_task(db)
    async with one_transaction(db) as held:
        await create(scene, rule(), db=held)
        other = asyncio.create_task(create(scene, rule("0 10 * * *")))
        await wait_until_blocked(db)
    assert (await other).rule.cron == "0 10 * * *"
    assert len(await listed(scene)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (rule("0 25 * * *"), re.escape("cron: '0 25 * * *' is no cron pattern: its hour '25'")),
        (rule(timezone="europe/berlin"), "timezone: .* did you mean 'Europe/Berlin'"),
        (rule(task_id="nothing"), "task: the current version .* has no task 'nothing'"),
        (rule(task_id="plain"), "task: 'plain' is no scheduled task"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(
    db: Database, wrong: ScheduleRule, message: str
) -> None:
    scene = await make_scene(db, make_task("report", trigger_source="schedule"), make_task("plain"))
    with pytest.raises(RequestError, match=message) as caught:
        await create(scene, wrong)
    assert caught.value.status == 422
    assert await listed(scene) == []


async def test_a_schedule_is_updated_as_a_whole(db: Database) -> None:
    scene = await scene_with_task(db)
    created = await create(scene, rule(external_id="u_1", timezone="Asia/Tokyo"))
    await create(scene, rule(), key="taken")

    async def update(key: str | None) -> Schedule:
        return await db.run(
            lambda tx: schedules.update_schedule(
                tx,
                scene.environment,
                created.public_id,
                rule("0 11 * * *"),
                deduplication_key=key,
                now=scene.now,
            )
        )

    updated = await update(None)
    assert (updated.rule, updated.deduplication_key) == (rule("0 11 * * *"), "key")
    assert (await update("renamed")).deduplication_key == "renamed"
    with pytest.raises(RequestError, match="another schedule has the deduplicationKey 'taken'"):
        await update("taken")


async def test_a_schedule_ticks_only_while_it_is_active(db: Database) -> None:
    scene = await scene_with_task(db)
    created = await create(scene, rule())

    async def set_active(is_active: bool) -> Schedule:
        return await db.run(
            lambda tx: schedules.set_active(
                tx, scene.environment, created.public_id, is_active=is_active, now=scene.now
            )
        )

    assert (await set_active(True)) == created
    stopped = await set_active(False)
    assert (stopped.is_active, stopped.due_at) == (False, None)
    # A change of its rule doesn't start it again.
    assert (await create(scene, rule("0 10 * * *"))).due_at is None
    scene.later(3 * 86_400)
    assert (await ticks.trigger_due_ticks(db, now=scene.now))[0] == 0
    started = await set_active(True)
    assert started.due_at == datetime.fromisoformat("2026-03-05T10:00Z")


async def test_a_deleted_schedule_is_gone(db: Database) -> None:
    scene = await scene_with_task(db)
    created = await create(scene, rule())

    async def delete() -> None:
        await db.run(lambda tx: schedules.delete_schedule(tx, scene.environment, created.public_id))

    await delete()
    assert await listed(scene) == []
    with pytest.raises(RequestError, match="there is no schedule") as caught:
        await delete()
    assert caught.value.status == 404


async def test_schedules_are_listed_in_pages_newest_first(db: Database) -> None:
    scene = await scene_with_task(db)
    created = [await create(scene, rule(), key=f"key-{number}") for number in range(5)]
    async with db.connection() as tx:
        found, count = await schedules.list_schedules(tx, scene.environment, page=2, page_size=2)
    assert count == 5
    assert found == [created[2], created[1]]


async def test_declared_schedules_follow_the_code(db: Database) -> None:
    scene = await make_scene(db, declaring("0 9 * * *"), declaring("0 8 * * *", "other"))
    imperative = await create(scene, rule("0 7 * * *"))
    before = {schedule.rule.task_id: schedule for schedule in await listed(scene) if
              schedule.type is ScheduleType.DECLARATIVE}  # fmt: skip
    assert set(before) == {"report", "other"}
    scene.later(60)
    # One changes, one goes, one comes; what a call created stays.
    await scene.register(
        declaring("0 10 * * *", timezone="Asia/Tokyo"),
        make_task("other", trigger_source="schedule"),
        declaring("0 6 * * *", "third"),
    )
    after = {schedule.rule.cron: schedule for schedule in await listed(scene)}
    assert set(after) == {"0 10 * * *", "0 7 * * *", "0 6 * * *"}
    assert after["0 10 * * *"].public_id == before["report"].public_id
    assert after["0 10 * * *"].due_at == datetime.fromisoformat("2026-03-02T01:00Z")
    assert after["0 7 * * *"] == imperative


async def test_declared_schedules_that_stay_the_same_keep_their_tick(db: Database) -> None:
    scene = await make_scene(db, declaring("0 9 * * *"))
    (before,) = await listed(scene)
    scene.now = before.due_at or NOW
    scene.later(1)
    await scene.register(declaring("0 9 * * *"))
    assert await listed(scene) == [before]


async def test_an_older_version_brings_its_schedules_back(db: Database) -> None:
    scene = await make_scene(db)
    await scene.register(declaring("0 9 * * *"), content="first content")
    await scene.register(declaring("0 10 * * *"), content="second content")
    await scene.register(declaring("0 9 * * *"), content="first content")
    assert [schedule.rule.cron for schedule in await listed(scene)] == ["0 9 * * *"]


async def test_declared_schedules_exist_only_in_the_environments_they_name(db: Database) -> None:
    task = declaring("0 9 * * *", environments=["PRODUCTION", "STAGING"])
    assert len(await listed(await make_scene(db, task, slug="prod"))) == 1
    assert len(await listed(await make_scene(db, task, slug="stg"))) == 1
    assert await listed(await make_scene(db, task, slug="dev")) == []


async def test_a_version_whose_schedule_cannot_be_is_refused_whole(db: Database) -> None:
    scene = await make_scene(db, declaring("0 9 * * *"))
    with pytest.raises(RequestError, match=r"the schedule of task bad: .* its hour '99'") as caught:
        await scene.register(declaring("0 10 * * *"), declaring("0 99 * * *", "bad"))
    assert caught.value.status == 422
    assert [schedule.rule.cron for schedule in await listed(scene)] == ["0 9 * * *"]


async def test_a_declared_schedule_is_changed_by_its_code_alone(db: Database) -> None:
    scene = await make_scene(db, declaring("0 9 * * *"))
    (declared,) = await listed(scene)

    async def delete() -> None:
        await db.run(
            lambda tx: schedules.delete_schedule(tx, scene.environment, declared.public_id)
        )

    with pytest.raises(RequestError, match="is declared in the code of task 'report'") as caught:
        await delete()
    assert caught.value.status == 422
    assert await listed(scene) == [declared]


def test_the_spread_of_a_schedule_is_always_the_same_and_fills_its_window() -> None:
    window = 60
    delays = {schedules.delay_of(f"sched_{number}", window) for number in range(2_000)}
    assert delays == {timedelta(seconds=second) for second in range(window)}
    assert schedules.delay_of("sched_1", window) == schedules.delay_of("sched_1", window)
    assert schedules.delay_of("sched_1", 0) == timedelta(0)

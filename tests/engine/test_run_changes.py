"""Replays, new delays and new tags of runs."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_id, make_request_key
from runwell.core.payloads import Json
from runwell.core.statuses import RunStatus
from runwell.engine import replays, rescheduling, run_tags, timers
from runwell.engine.db import Database
from runwell.engine.replays import ChangedPayload
from tests.support.factories import (
    NOW,
    Scene,
    check_consistency,
    complete,
    make_scene,
    make_task,
    one_transaction,
    read,
    wait_until_blocked,
)


async def _replay(scene: Scene, run_id: str, **options: Any) -> str:
    found = await replays.replay_run(scene.db, scene.environment, run_id, now=scene.now, **options)
    return found.run_id


async def _reschedule(scene: Scene, run_id: str, delay: str, db: Database | None = None) -> None:
    await rescheduling.reschedule_run(
        db or scene.db, scene.environment, run_id, delay, now=scene.now
    )


async def _add_tags(scene: Scene, run_id: str, *tags: str, db: Database | None = None) -> int:
    return await run_tags.add_tags(db or scene.db, scene.environment, run_id, tags, now=scene.now)


async def test_a_replay_takes_over_all_but_what_was_meant_for_one_time(db: Database) -> None:
    scene = await make_scene(db, make_task())
    options: dict[str, Any] = {
        "queue": {"name": "slow"},
        "concurrencyKey": "user_1",
        "tags": ["a", "b"],
        "metadata": {"x": [1]},
        "maxAttempts": 7,
        "maxDuration": 60,
        "machine": "large-1x",
        "priority": 5,
        "ttl": "1h",
        "test": True,
    }
    original = (
        await scene.trigger(
            payload='{"n": 1}',
            idempotencyKey="once",
            lockToVersion=scene.versions[0].version,
            delay="1h",
            **options,
        )
    ).run_id
    await scene.register(make_task())
    new_id = await _replay(scene, original)
    rows = await read(
        db,
        "SELECT task_id, payload, payload_type, queue_id, subqueue_id, concurrency_key, tags, "
        "metadata, max_attempts, max_duration, machine, priority_seconds, ttl, ttl_seconds, "
        "is_test FROM runs ORDER BY id",
    )
    assert rows[0] == rows[1]
    new = await scene.get(new_id)
    assert (new.replay_of, new.status) == (original, RunStatus.QUEUED)
    assert (new.idempotency_key, new.delayed_until, new.version) == (None, None, None)
    worker = await scene.connect()
    run = await worker.dequeue_one()
    assert (run.run_id, run.version) == (new_id, scene.versions[1].version)
    await check_consistency(db)


async def test_a_replay_may_have_another_payload(db: Database) -> None:
    scene = await make_scene(db, make_task())
    original = (await scene.trigger(payload='{"n": 1}')).run_id
    cases: list[tuple[Json, str | None]] = [
        (None, None),
        ({"n": 2}, '{"n":2}'),
        ('"text"', '"text"'),
    ]
    for given, stored in cases:
        new_id = await _replay(scene, original, changed=ChangedPayload(payload=given))
        assert (await scene.get(new_id)).payload == stored
    with pytest.raises(RequestError, match="at most 3,145,728") as refused:
        await _replay(scene, original, changed=ChangedPayload(payload="x" * 4_000_000))
    assert refused.value.status == 413
    with pytest.raises(RequestError, match="not valid JSON"):
        await _replay(scene, original, changed=ChangedPayload(payload='{"a":'))


async def test_a_replay_asked_for_twice_is_one_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    original = (await scene.trigger()).run_id
    key = make_request_key(NOW)
    assert len({await _replay(scene, original, request_key=key) for _ in range(2)}) == 1
    new_id = make_id("run", NOW)
    assert {await _replay(scene, original, new_run_id=new_id) for _ in range(2)} == {new_id}
    assert len(await read(db, "SELECT id FROM runs")) == 3


async def test_a_run_that_has_ended_can_be_replayed_and_one_of_another_environment_not(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(complete(run))
    again = await _replay(scene, await _replay(scene, run.run_id))
    assert (await scene.get(again)).status is RunStatus.QUEUED
    with pytest.raises(RequestError, match="no run") as refused:
        await _replay(of_dev, run.run_id)
    assert refused.value.status == 404


async def test_a_delayed_run_is_enqueued_at_its_new_instant(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m", priority=10)).run_id
    await _reschedule(scene, run_id, "1h")
    assert await scene.read_events(run_id) == ["TRIGGER", "RESCHEDULE"]
    assert (await scene.get(run_id)).delayed_until == NOW + timedelta(hours=1)
    scene.later(120)
    assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
    await _reschedule(scene, run_id, "2026-03-01T12:05:00Z")
    scene.later(200)
    assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 1
    rows = await read(db, "SELECT order_at FROM queued_runs")
    assert rows[0]["order_at"] == NOW + timedelta(minutes=5, seconds=-10)
    await check_consistency(db)


@pytest.mark.parametrize("delay", ["", "soon", "0s", "2020-01-01T00:00:00Z", "-5s"])
async def test_a_delay_that_is_none_is_refused(db: Database, delay: str) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m")).run_id
    with pytest.raises(RequestError, match="delay: ") as refused:
        await _reschedule(scene, run_id, delay)
    assert refused.value.status == 400
    assert await scene.read_events(run_id) == ["TRIGGER"]


async def test_a_run_that_is_not_delayed_any_more_is_not_rescheduled(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m")).run_id
    scene.later(61)
    async with one_transaction(db) as held:
        await timers.enqueue_due_runs(held, now=scene.now)
        rescheduling_ = asyncio.create_task(_reschedule(scene, run_id, "1h"))
        await wait_until_blocked(db)
    with pytest.raises(RequestError, match="is QUEUED: only a delayed run"):
        await rescheduling_
    await check_consistency(db)


async def test_a_run_that_is_being_rescheduled_is_not_enqueued(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m")).run_id
    scene.later(61)
    async with one_transaction(db) as held:
        await _reschedule(scene, run_id, "1h", held)
        assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
    assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
    assert await scene.read_status(run_id) == "DELAYED/DELAYED"


async def test_a_rescheduled_run_can_be_canceled(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m")).run_id
    await _reschedule(scene, run_id, "1h")
    await scene.cancel(run_id)
    with pytest.raises(RequestError, match="is CANCELED"):
        await _reschedule(scene, run_id, "1h")
    await check_consistency(db)


async def test_tags_are_added_once_and_all_or_none(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(tags=["a"])).run_id
    assert await _add_tags(scene, run_id, "b", "a", "b") == 1
    assert await _add_tags(scene, run_id, "b") == 0
    assert (await scene.get(run_id)).tags == ["a", "b"]
    with pytest.raises(RequestError, match=r"at most 10 tags: .* has 2, and 9 more") as refused:
        await _add_tags(scene, run_id, *(f"t{n}" for n in range(9)))
    assert refused.value.status == 422
    assert (await scene.get(run_id)).tags == ["a", "b"]
    with pytest.raises(RequestError, match="NUL"):
        await _add_tags(scene, run_id, "a\x00")
    with pytest.raises(RequestError, match="no run"):
        await _add_tags(scene, "run_unknown", "a")


async def test_tags_added_at_once_are_all_there(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    async with one_transaction(db) as held:
        await _add_tags(scene, run_id, "one", db=held)
        adding = asyncio.create_task(_add_tags(scene, run_id, "two"))
        await wait_until_blocked(db)
    await adding
    assert (await scene.get(run_id)).tags == ["one", "two"]

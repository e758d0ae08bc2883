"""Loops that put right what crashes left, and forget what is over."""

import asyncio
from datetime import timedelta

import pytest

from runwell.engine import maintenance
from runwell.engine.db import Database
from tests.support.factories import (
    NOW,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
)


async def _read_keys(db: Database) -> list[str]:
    return [row["key"] for row in await read(db, "SELECT key FROM idempotency_keys ORDER BY key")]


async def test_subqueues_in_which_nothing_waits_any_more_are_marked(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(3, concurrencyKey="a")
    await scene.trigger(concurrencyKey="b")
    worker = await scene.connect()
    for held in await worker.dequeue(10):
        await worker.report(complete(held))
    await scene.trigger(concurrencyKey="b")
    assert await maintenance.retire_empty_subqueues(db) == 1
    rows = await read(db, "SELECT concurrency_key FROM subqueues WHERE has_queued")
    assert [row["concurrency_key"] for row in rows] == ["b"]
    assert await maintenance.retire_empty_subqueues(db) == 0
    await check_consistency(db)


async def test_a_run_triggered_after_its_subqueue_was_retired_is_given_out(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect()
    await worker.report(complete(await worker.dequeue_one()))
    await maintenance.retire_empty_subqueues(db)
    run_id = (await scene.trigger()).run_id
    held = await worker.dequeue_one()
    assert held.run_id == run_id
    await worker.report(complete(held))
    await check_all_at_rest(db)


async def test_waiting_runs_are_let_go_and_their_environments_named(db: Database) -> None:
    prod, dev = await make_scene(db), await make_scene(db, slug="dev")
    waiting = [(await scene.trigger()).run_id for scene in (prod, dev)]
    assert await maintenance.release_waiting_runs(db, now=NOW) == set()
    await dev.register(make_task())
    await prod.register(make_task("other"))
    late = (await dev.trigger("late")).run_id
    # As it is when a server dies after it has made a version current.
    await read(
        db,
        "UPDATE background_worker_tasks SET task_id = 'late' WHERE task_id = 'add' RETURNING 1",
    )
    assert await maintenance.release_waiting_runs(db, now=NOW) == {dev.environment.id}
    assert await dev.read_status(late) == "QUEUED/QUEUED"
    assert await prod.read_status(waiting[0]) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    assert await maintenance.release_waiting_runs(db, now=NOW) == set()


async def test_idempotency_keys_are_forgotten_when_they_have_expired(db: Database) -> None:
    scene = await make_scene(db, make_task())
    for key, ttl in (("a", "1m"), ("b", "2m"), ("c", "1d")):
        await scene.trigger(idempotencyKey=key, idempotencyKeyTTL=ttl)
    await maintenance.delete_expired_keys(db, now=NOW + timedelta(seconds=59))
    assert await _read_keys(db) == ["a", "b", "c"]
    await maintenance.delete_expired_keys(db, now=NOW + timedelta(minutes=1))
    assert await _read_keys(db) == ["b", "c"]
    scene.later(120)
    assert not (await scene.trigger(idempotencyKey="b")).is_cached
    assert (await scene.trigger(idempotencyKey="c")).is_cached


async def test_servers_that_tidy_at_once_do_not_wait_for_each_other(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_MOST", 3)
    async with await Database.open(database_url, min_size=4) as db:
        scene = await make_scene(db, make_task())
        for number in range(10):
            await scene.trigger(idempotencyKey=str(number), idempotencyKeyTTL="1m")
        now = NOW + timedelta(hours=1)
        for _ in range(4):
            await asyncio.gather(*(maintenance.delete_expired_keys(db, now=now) for _ in range(4)))
        assert await _read_keys(db) == []


async def test_keys_of_requests_are_forgotten_after_a_day(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(request_key="a")
    scene.later(24 * 3600 - 1)
    await scene.trigger(request_key="b")
    for seconds, left in ((0, 2), (2, 1)):
        await maintenance.delete_old_requests(db, now=scene.later(seconds))
        assert len(await read(db, "SELECT request_key FROM trigger_requests")) == left

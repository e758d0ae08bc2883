"""Subqueues of concurrency keys that nobody uses are deleted, and never one that somebody needs."""

import asyncio
from typing import Any

import pytest

from runwell.core.waits import RunsWait
from runwell.engine import queues, timers
from runwell.engine.db import Database
from runwell.engine.maintenance import SUBQUEUES, SubqueueSweep
from tests.support.factories import (
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    one_transaction,
    read,
    start,
    wait_until_blocked,
)


async def sweep(scene: Scene, db: Database | None = None) -> int:
    # However short it was ago that a key was served.
    return await SubqueueSweep(db or scene.db, turns=-1).tick(scene.now)


async def read_keys(db: Database) -> list[str]:
    rows = await read(db, "SELECT concurrency_key FROM subqueues ORDER BY concurrency_key")
    return [row["concurrency_key"] for row in rows]


async def use_key(scene: Scene, key: str) -> None:
    """Run a run of a key to its end, and have everybody know that nothing waits there."""
    await scene.trigger(concurrencyKey=key)
    worker = await scene.connect()
    await worker.report(complete(await worker.start_one()))
    rows = await read(scene.db, "SELECT id FROM subqueues WHERE has_queued")
    await queues.retire_subqueues(scene.db, [row["id"] for row in rows])


async def test_keys_that_nobody_uses_are_forgotten_and_can_be_used_again(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await use_key(scene, "a")
    await use_key(scene, "b")
    await scene.trigger(concurrencyKey="b")
    assert await sweep(scene) == 3
    # The queue's own part stays.
    assert await read_keys(db) == ["", "b"]
    await scene.trigger(concurrencyKey="a")
    worker = await scene.connect()
    runs = await worker.dequeue()
    assert len(runs) == 2
    await worker.report(*(start(run) for run in runs))
    await worker.report(*(complete(run) for run in runs))
    await check_all_at_rest(db)


async def test_a_key_that_was_used_not_long_ago_stays(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await use_key(scene, "a")
    await SubqueueSweep(db).tick(scene.now)
    assert await read_keys(db) == ["", "a"]
    await read(db, "UPDATE environment_concurrency SET turn = turn + 30000 RETURNING turn")
    await SubqueueSweep(db).tick(scene.now)
    assert await read_keys(db) == [""]


async def test_a_walk_goes_on_where_it_was_and_begins_anew_at_its_end(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runwell.engine.maintenance.SUBQUEUES", 2)
    scene = await make_scene(db, make_task())
    for key in ("a", "b", "c"):
        await use_key(scene, key)
    walk = SubqueueSweep(db, turns=-1)
    assert [await walk.tick(scene.now) for _ in range(3)] == [2, 2, 0]
    assert await read_keys(db) == [""]
    assert await walk.tick(scene.now) == 1
    assert SUBQUEUES > 2


@pytest.mark.parametrize(
    "options", [{"delay": "1h"}, {"queue": {"name": "new"}}], ids=["delayed", "queued"]
)
async def test_a_key_that_a_run_will_come_back_to_stays(
    db: Database, options: dict[str, Any]
) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(concurrencyKey="a", **options)).run_id
    await sweep(scene)
    assert "a" in await read_keys(db)
    scene.later(3601)
    await timers.enqueue_due_runs(db, now=scene.now)
    worker = await scene.connect()
    run = await worker.start_one()
    assert run.run_id == run_id
    await sweep(scene)
    await worker.report(complete(run))
    await check_consistency(db)


async def test_keys_of_runs_that_retry_wait_for_a_deploy_or_for_children_stay(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    retrying = await scene.trigger(concurrencyKey="retrying")
    await worker.report(fail(await worker.start_one()))
    assert await scene.read_status(retrying.run_id) == "WAITING_TO_RETRY/REATTEMPTING"
    await scene.trigger("later", concurrencyKey="deploy")
    parent_id = (await scene.trigger(concurrencyKey="waiting")).run_id
    parent = await worker.start_one()
    child_id = (await scene.trigger(concurrencyKey="waiting")).run_id
    await worker.wait(parent, RunsWait(wait_id="w", run_ids=[child_id]))
    await scene.cancel(child_id)
    rows = await read(db, "SELECT released_slots FROM runs WHERE id = :id", id=parent_id)
    assert rows[0]["released_slots"] == 2
    rows = await read(db, "SELECT id FROM subqueues WHERE has_queued")
    await queues.retire_subqueues(db, [row["id"] for row in rows])
    await sweep(scene)
    assert {"retrying", "deploy", "waiting"} <= set(await read_keys(db))
    await check_consistency(db)


async def test_starts_that_a_rate_limit_still_counts_keep_their_key(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await use_key(scene, "a")
    await read(
        db,
        "UPDATE subqueues SET key_rate_limit = 5, key_rate_window = interval '1 minute', "
        "starts = ARRAY[(:now::timestamptz, 1)::rate_start] RETURNING id",
        now=scene.now,
    )
    await sweep(scene)
    assert await read_keys(db) == ["", "a"]
    scene.later(61)
    await sweep(scene)
    assert await read_keys(db) == [""]


@pytest.mark.parametrize("options", [{}, {"delay": "1h"}], ids=["queued", "delayed"])
async def test_a_run_triggered_while_its_key_is_deleted_makes_the_key_again(
    db: Database, options: dict[str, Any]
) -> None:
    scene = await make_scene(db, make_task())
    await use_key(scene, "a")
    async with one_transaction(db) as held:
        await sweep(scene, held)
        triggering = asyncio.create_task(scene.trigger(concurrencyKey="a", **options))
        await wait_until_blocked(db)
    run_id = (await triggering).run_id
    assert await read_keys(db) == ["", "a"]
    await check_consistency(db)
    scene.later(3601)
    await timers.enqueue_due_runs(db, now=scene.now)
    worker = await scene.connect()
    assert (await worker.dequeue_one()).run_id == run_id


async def test_a_key_that_a_trigger_is_putting_a_run_into_is_not_deleted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await use_key(scene, "a")
    async with one_transaction(db) as held:
        run_id = (await scene.trigger(concurrencyKey="a", db=held)).run_id
        await sweep(scene)
    assert await read_keys(db) == ["", "a"]
    worker = await scene.connect()
    assert (await worker.dequeue_one()).run_id == run_id
    await check_consistency(db)


async def test_a_key_whose_run_is_being_taken_is_not_deleted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(concurrencyKey="a")
    worker = await scene.connect()
    async with one_transaction(db) as held:
        (run,) = await worker.dequeue(db=held)
        await sweep(scene)
    await worker.report(start(run), complete(run))
    assert "a" in await read_keys(db)
    await check_consistency(db)


async def test_a_key_whose_run_is_being_handed_back_is_not_deleted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(concurrencyKey="a")
    worker = await scene.connect()
    run = await worker.start_one()
    rows = await read(db, "SELECT id FROM subqueues WHERE has_queued")
    await queues.retire_subqueues(db, [row["id"] for row in rows])
    async with one_transaction(db) as held:
        assert await worker.report(fail(run), db=held) == ["accepted"]
        await sweep(scene)
    await sweep(scene)
    assert "a" in await read_keys(db)
    await check_consistency(db)

"""Known races, each with its order forced: one side stops before its commit, the other one runs."""

import asyncio

from runwell.core.timing import SystemClock
from runwell.engine import queues, timers, workers
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    canceled,
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


async def _subqueue_ids(scene: Scene) -> list[int]:
    return [row["id"] for row in await read(scene.db, "SELECT id FROM subqueues ORDER BY id")]


async def _make_ready(scene: Scene) -> None:
    """Mark every subqueue as one that may have something, as a trigger leaves it."""
    await read(scene.db, "UPDATE subqueues SET has_queued = true RETURNING id")


async def test_a_run_triggered_while_its_subqueue_is_retired_is_not_lost(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await _make_ready(scene)
    async with one_transaction(db) as held:
        await queues.retire_subqueues(held, await _subqueue_ids(scene))
        triggering = asyncio.create_task(scene.trigger())
        await wait_until_blocked(db)
    run_id = (await triggering).run_id
    await check_consistency(db)
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [run_id]


async def test_a_subqueue_that_a_trigger_is_putting_a_run_into_is_not_retired(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await _make_ready(scene)
    async with one_transaction(db) as held:
        run_id = (await scene.trigger(db=held)).run_id
        await queues.retire_subqueues(db, await _subqueue_ids(scene))
    await check_consistency(db)
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [run_id]


async def test_a_delayed_run_enqueued_while_its_subqueue_is_retired_is_not_lost(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1m")).run_id
    await _make_ready(scene)
    scene.later(61)
    async with one_transaction(db) as held:
        await queues.retire_subqueues(held, await _subqueue_ids(scene))
        enqueuing = asyncio.create_task(timers.enqueue_due_runs(db, now=scene.now))
        await wait_until_blocked(db)
    assert (await enqueuing)[0] == 1
    await check_consistency(db)
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [run_id]


async def test_a_run_handed_back_while_its_subqueue_is_retired_is_not_lost(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    worker = await scene.connect()
    await worker.dequeue_one()
    async with one_transaction(db) as held:
        await queues.retire_subqueues(held, await _subqueue_ids(scene))
        leaving = asyncio.create_task(worker.disconnect())
        await wait_until_blocked(db)
    await leaving
    await check_consistency(db)
    other = await scene.connect()
    assert [run.run_id for run in await other.dequeue()] == [run_id]

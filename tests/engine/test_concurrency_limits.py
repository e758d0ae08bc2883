"""Limits of queues, keys and environments: none is exceeded, and full queues cost nothing."""

import pytest

from runwell.core.protocol import QueueManifest
from runwell.engine import queues
from runwell.engine.db import Database
from tests.support.factories import (
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
)


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_queue_gives_no_more_than_its_limit(db: Database, limit: int) -> None:
    scene = await make_scene(db, make_task(queue="q", limit=limit))
    await scene.trigger_many(5)
    worker = await scene.connect()
    held = await worker.dequeue(10)
    assert len(held) == limit
    assert await worker.dequeue(10) == []
    if held:
        await worker.report(complete(held[0]))
        assert len(await worker.dequeue(10)) == 1
    await check_consistency(db)


async def test_each_key_of_a_queue_has_the_limit_for_itself(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="q", limit=2))
    for key in ("a", "b", None):
        await scene.trigger_many(3, concurrencyKey=key)
    worker = await scene.connect()
    assert len(await worker.dequeue(10)) == 6
    assert await worker.dequeue(10) == []


async def test_the_environments_limit_holds_over_all_queues(db: Database) -> None:
    scene = await make_scene(db, make_task("a"), make_task("b"))
    await read(db, "UPDATE environments SET concurrency_limit = 3 RETURNING id")
    await scene.trigger_many(3, "a")
    await scene.trigger_many(3, "b")
    worker = await scene.connect()
    held = await worker.dequeue(10)
    assert len(held) == 3
    assert await worker.dequeue(10) == []
    # A canceled run keeps its slot until its process is gone.
    await scene.cancel(held[0].run_id)
    assert await worker.dequeue(10) == []
    await worker.report(complete(held[0]), complete(held[1]))
    assert len(await worker.dequeue(10)) == 2
    await check_consistency(db)


async def test_a_limit_that_is_lowered_below_what_runs_lets_that_end(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="q", limit=5))
    await scene.trigger_many(10)
    worker = await scene.connect()
    held = await worker.dequeue(5)
    await scene.register(make_task(queue="q", limit=2))
    worker.versions.append(scene.versions[-1].id)
    await worker.report(*(complete(run) for run in held[:3]))
    assert await worker.dequeue(10) == []
    await worker.report(*(complete(run) for run in held[3:]))
    assert len(await worker.dequeue(10)) == 2


async def test_a_paused_queue_gives_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    await read(db, "UPDATE subqueues SET is_paused = true RETURNING id")
    worker = await scene.connect()
    assert await worker.dequeue() == []
    await read(db, "UPDATE subqueues SET is_paused = false RETURNING id")
    assert len(await worker.dequeue()) == 1


async def test_subqueues_that_are_full_paused_or_empty_are_not_looked_at(db: Database) -> None:
    scene = await make_scene(db, make_task("full", queue="full", limit=0), make_task("add"))
    await scene.trigger_many(40, "full", concurrencyKey="a")
    for number in range(40):
        await scene.trigger("full", concurrencyKey=str(number))
    (row,) = await read(
        db,
        "SELECT count(*) AS number FROM subqueues "
        "WHERE has_queued AND NOT is_paused AND running < concurrency_limit",
    )
    assert row["number"] == 0
    last = (await scene.trigger()).run_id
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue(1)] == [last]


async def test_a_queue_defined_without_tasks_has_its_limit(db: Database) -> None:
    scene = await make_scene(db)
    await scene.register(make_task(), queues=[QueueManifest(name="shared", concurrency_limit=1)])
    await scene.trigger_many(2, queue={"name": "shared"})
    worker = await scene.connect()
    assert len(await worker.dequeue()) == 1


async def test_setting_a_limit_that_is_there_changes_no_row(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="q", limit=2))
    versions = await read(db, "SELECT xmin::text FROM subqueues")
    async with db.transaction() as tx:
        await queues.set_limit(tx, scene.environment, name="q", limit=2, now=scene.now)
    assert await read(db, "SELECT xmin::text FROM subqueues") == versions

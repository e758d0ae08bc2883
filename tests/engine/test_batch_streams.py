"""Batches whose items come in one by one: each is taken once, whatever is sent again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.engine import batch_streams, batches, results
from runwell.engine.batch_streams import AddedItems, BatchOpening, NumberedItem, OpenedBatch
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    an_item,
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


async def open_batch(scene: Scene, run_count: int, **fields: Any) -> OpenedBatch:
    opening = BatchOpening(run_count=run_count, **fields)
    return await batch_streams.open_batch(scene.db, scene.environment, opening, now=scene.now)


async def add(
    scene: Scene,
    batch_id: str,
    indexes: Sequence[int],
    *,
    db: Database | None = None,
    **options: Any,
) -> AddedItems:
    items = [
        NumberedItem(index=index, request=an_item(payload=str(index), **options))
        for index in indexes
    ]
    return await batch_streams.add_items(
        db or scene.db, scene.environment, batch_id, items, now=scene.now
    )


async def get_batch(scene: Scene, batch_id: str) -> batches.Batch:
    async with scene.db.connection() as tx:
        return await batches.get_batch(tx, scene.environment, batch_id)


async def payloads(scene: Scene, batch_id: str) -> list[str | None]:
    batch = await get_batch(scene, batch_id)
    return [(await scene.get(item.run_id)).payload for item in batch.items]


async def test_items_become_runs_while_others_are_still_to_come(db: Database) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 3)
    assert not opened.is_cached
    added = await add(scene, opened.id, [2, 0])
    assert (added.accepted, added.deduplicated, added.is_sealed) == (2, 0, False)
    assert (added.enqueued, added.expected) == (2, 3)
    assert (await get_batch(scene, opened.id)).status == "PROCESSING"
    worker = await scene.connect()
    for run in await worker.dequeue():
        await worker.report(start(run, scene.now), complete(run))
    # All that is there has ended, and yet it isn't complete.
    assert (await get_batch(scene, opened.id)).status == "PROCESSING"
    assert (await add(scene, opened.id, [1])).is_sealed
    assert (await get_batch(scene, opened.id)).status == "PENDING"
    assert await payloads(scene, opened.id) == ["0", "1", "2"]
    run = await worker.start_one()
    await worker.report(complete(run))
    assert (await get_batch(scene, opened.id)).status == "COMPLETED"
    await check_consistency(db)


async def test_items_that_are_sent_again_are_taken_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 3)
    await add(scene, opened.id, [0, 1])
    # The stream broke: the client sends everything again, some of it twice.
    again = await add(scene, opened.id, [0, 1, 2, 2])
    assert (again.accepted, again.deduplicated, again.is_sealed) == (1, 3, True)
    late = await add(scene, opened.id, [0, 1, 2])
    assert (late.accepted, late.deduplicated, late.is_sealed) == (0, 3, True)
    assert await payloads(scene, opened.id) == ["0", "1", "2"]


async def test_two_streams_of_one_batch_make_each_run_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 2)
    async with one_transaction(db) as first:
        # The connection of the first stream is gone; the server is still at it.
        await add(scene, opened.id, [0, 1], db=first)
        second = asyncio.create_task(add(scene, opened.id, [0, 1]))
        await wait_until_blocked(db)
    added = await second
    assert (added.accepted, added.deduplicated, added.is_sealed) == (0, 2, True)
    assert await payloads(scene, opened.id) == ["0", "1"]


async def test_an_item_that_cannot_be_a_run_is_noted_and_the_others_are_triggered(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 3)
    await add(scene, opened.id, [0])
    bad = [
        NumberedItem(index=1, request=an_item(lockToVersion="20200101.1")),
        NumberedItem(index=2, request=an_item(payload="2")),
    ]
    for accepted in (2, 0):
        added = await batch_streams.add_items(db, scene.environment, opened.id, bad, now=scene.now)
        assert (added.accepted, added.is_sealed) == (accepted, True)
    batch = await get_batch(scene, opened.id)
    assert batch.status == "PENDING"
    assert len(batch.items) == 2
    (failure,) = batch.failures
    assert (failure.index, failure.task_id, failure.status) == (1, "add", 422)
    assert failure.message.startswith("options.lockToVersion: there is no version 20200101.1")
    worker = await scene.connect()
    for run in await worker.dequeue():
        await worker.report(start(run, scene.now), complete(run))
    assert (await get_batch(scene, opened.id)).status == "PARTIAL_FAILED"


async def test_a_batch_of_which_no_item_can_be_a_run_is_aborted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 1)
    await add(scene, opened.id, [0], delay="soon")
    batch = await get_batch(scene, opened.id)
    assert (batch.status, batch.failures[0].status) == ("ABORTED", 400)


async def test_a_number_outside_of_the_batch_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    opened = await open_batch(scene, 2)
    with pytest.raises(RequestError, match=r"index: 2 is no place in the batch .* places 0 to 1"):
        await add(scene, opened.id, [0, 2])
    assert await payloads(scene, opened.id) == []
    with pytest.raises(RequestError, match="there is no batch batch_none"):
        await add(scene, "batch_none", [0])
    for count in (0, 1_001):
        with pytest.raises(RequestError, match=f"1 to 1,000 runs, not {count}"):
            await open_batch(scene, count)


async def test_a_batch_that_is_opened_twice_is_one(db: Database) -> None:
    scene = await make_scene(db, make_task())
    request_key = make_request_key()
    opened = [await open_batch(scene, 2, request_key=request_key) for _ in range(2)]
    assert opened[0] == opened[1]
    assert not opened[0].is_cached


async def test_a_key_gives_the_batch_until_it_has_all_items_and_the_cached_one_then(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    first = await open_batch(scene, 2, idempotency_key="k")
    await add(scene, first.id, [0])
    # Whoever opened it died: the next one goes on with it.
    second = await open_batch(scene, 2, idempotency_key="k")
    assert (second.id, second.is_cached) == (first.id, False)
    with pytest.raises(RequestError, match="waits for the items of 2 runs, and now there are 3"):
        await open_batch(scene, 3, idempotency_key="k")
    assert (await add(scene, first.id, [0, 1])).is_sealed
    third = await open_batch(scene, 5, idempotency_key="k")
    assert (third.id, third.run_count, third.is_cached) == (first.id, 2, True)


async def test_runs_of_a_batch_are_children_of_the_run_that_waits_for_them(db: Database) -> None:
    scene = await make_scene(db, make_task())
    parent = (await scene.trigger()).run_id
    for is_awaited, function in ((False, "batchTrigger"), (True, "batchTriggerAndWait")):
        opened = await open_batch(scene, 1, parent_run_id=parent, is_awaited=is_awaited)
        await add(scene, opened.id, [0])
        run = await scene.get((await get_batch(scene, opened.id)).items[0].run_id)
        assert run.parent is not None
        assert (run.parent.id, run.depth, run.trigger_function) == (parent, 1, function)


async def test_a_run_that_has_ended_cannot_wait_for_a_batch(db: Database) -> None:
    scene = await make_scene(db, make_task())
    parent = (await scene.trigger()).run_id
    await scene.cancel(parent)
    for run_id in (parent, "run_none"):
        with pytest.raises(RequestError, match="can't wait for a batch"):
            await open_batch(scene, 1, parent_run_id=run_id, is_awaited=True)
    with pytest.raises(RequestError, match="say with parentRunId which run waits"):
        await open_batch(scene, 1, is_awaited=True)
    assert (await read(db, "SELECT count(*) AS n FROM batches"))[0]["n"] == 0


async def test_the_results_of_a_batch_are_those_of_its_ended_runs_in_their_order(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PAGE", 2)
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    opened = await open_batch(scene, 5)
    await add(scene, opened.id, range(5))
    worker = await scene.connect()
    runs = await worker.dequeue(4)
    await worker.report(*(start(run, scene.now) for run in runs))
    await worker.report(complete(runs[0], "7"), fail(runs[1]))
    await scene.cancel((await get_batch(scene, opened.id)).items[4].run_id)

    async def page(after: int) -> list[results.RunResult]:
        async with db.connection() as tx:
            return await results.list_results(tx, scene.environment, opened.id, after=after)

    first = await page(-1)
    assert [result.index for result in first] == [0, 1]
    assert (first[0].output, first[0].error) == ("7", None)
    assert first[1].error is not None
    (last,) = await page(first[-1].index)
    assert last.index == 4
    assert last.error is not None
    assert getattr(last.error, "code", None) == "TASK_RUN_CANCELLED"
    assert await page(last.index) == []

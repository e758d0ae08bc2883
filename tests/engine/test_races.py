"""Known races, each with its order forced: one side stops before its commit, the other one runs.

Here: dequeues, cancels, completions, lost workers and timers against each other, and subqueues that
are retired. Elsewhere, in both orders too:

- `test_races_of_ends.py`: each end of an attempt against each way in which its run is taken, lost
  answers, renewals of leases, dequeues sent again, expiries, disconnects, first deploys.
- `test_races_of_waits.py`: tokens completed, timed out and created, by API, URL and event, against
  each other and around the wait for them; waits against cancels and leases.
- `test_races_of_triggers.py`: keys of batches and items, bulk cancels, ticks, metadata of parents.
- `test_queue_settings.py`: pauses against dequeues. `test_waits.py`: the ends of children.
- `test_canceling.py`: children of canceled runs. `test_debouncing.py`: pushes of what becomes due.
- `test_idempotency.py`, `test_named_requests.py`, `test_batch_streams.py`: requests sent again.
- `test_old_snapshots.py`: statements that saw a run before it changed, and locked it after.
"""

import asyncio

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


async def test_a_dequeue_that_waited_for_another_one_looks_on_for_runs(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(20)
    one, other = await scene.connect(), await scene.connect()
    async with one_transaction(db) as held:
        first = await one.dequeue(10, db=held)
        dequeuing = asyncio.create_task(other.dequeue(10))
        await wait_until_blocked(db)
    second = await dequeuing
    assert [run.run_id for run in first] == ids[:10]
    assert [run.run_id for run in second] == ids[10:]
    await check_consistency(db)


async def test_a_dequeue_that_waited_keeps_to_the_limit_that_the_other_one_reached(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task(queue="narrow", limit=3))
    await scene.trigger_many(10)
    one, other = await scene.connect(), await scene.connect()
    async with one_transaction(db) as held:
        first = await one.dequeue(10, db=held)
        dequeuing = asyncio.create_task(other.dequeue(10))
        await wait_until_blocked(db)
    assert len(first) == 3
    assert await dequeuing == []
    await check_consistency(db)


async def test_a_run_canceled_before_the_dequeue_that_saw_it_commits_is_not_given(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(2)
    worker = await scene.connect()
    async with one_transaction(db) as held:
        await scene.cancel(ids[0], db=held)
        # The dequeue passes over the locked run instead of waiting for it.
        given = await worker.dequeue(10)
    assert [run.run_id for run in given] == ids[1:]
    assert await scene.read_status(ids[0]) == "FINISHED/CANCELED"
    await check_consistency(db)


async def test_a_cancel_that_waited_for_a_dequeue_names_the_worker(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    worker = await scene.connect()
    async with one_transaction(db) as held:
        (run,) = await worker.dequeue(db=held)
        canceling = asyncio.create_task(scene.cancel(run_id))
        await wait_until_blocked(db)
    assert (await canceling).worker_id == worker.id
    assert await scene.read_status(run_id) == "PENDING_CANCEL/CANCELED"
    assert (await worker.heartbeat(run)).canceled == [run_id]
    await check_consistency(db)


async def test_of_a_cancel_and_a_completion_the_first_to_commit_decides(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    for is_canceled_first in (True, False):
        await scene.trigger()
        run = await worker.start_one()
        async with one_transaction(db) as held:
            if is_canceled_first:
                await scene.cancel(run.run_id, db=held)
                waiting = asyncio.create_task(worker.report(complete(run)))
            else:
                await worker.report(complete(run), db=held)
                waiting = asyncio.create_task(scene.cancel(run.run_id))
            await wait_until_blocked(db)
        await waiting
        found = await scene.get(run.run_id)
        assert found.status == ("CANCELED" if is_canceled_first else "COMPLETED")
        assert found.output == (None if is_canceled_first else "3")
        await check_consistency(db)


async def test_of_two_completions_at_once_one_is_stale(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    async with one_transaction(db) as held:
        assert await worker.report(complete(run, "1"), db=held) == ["accepted"]
        waiting = asyncio.create_task(worker.report(complete(run, "2")))
        await wait_until_blocked(db)
    assert await waiting == ["stale"]
    assert (await scene.get(run.run_id)).output == "1"
    await check_consistency(db)


async def test_two_servers_that_take_a_lost_run_at_once_do_not_take_it_from_its_next_worker(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    await worker.start_one()
    scene.later(100)
    other = await scene.connect()
    async with one_transaction(db) as held:
        await workers.take_lost_runs(held, now=scene.now)
        (run,) = await other.dequeue(db=held)
        await other.report(start(run), db=held)
        assert await workers.take_lost_runs(db, now=scene.now) == set()
    assert await workers.take_lost_runs(db, now=scene.now) == set()
    assert await other.report(complete(run)) == ["accepted"]
    await check_consistency(db)


async def test_a_run_that_ended_while_it_was_found_unknown_is_not_taken_from_its_next_worker(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    first = await worker.start_one()
    scene.later(100)
    other = await scene.connect()
    async with one_transaction(db) as held:
        await worker.report(fail(first, retry_at=scene.now), db=held)
        (second,) = await other.dequeue(db=held)
        await other.report(start(second), db=held)
        waiting = asyncio.create_task(worker.heartbeat())
        await wait_until_blocked(db)
    await waiting
    assert await other.report(complete(second)) == ["accepted"]


async def test_a_disconnect_does_not_take_what_another_worker_has_meanwhile(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker, other = await scene.connect(), await scene.connect()
    await scene.trigger()
    first = await worker.start_one()
    async with one_transaction(db) as held:
        await worker.report(fail(first, retry_at=scene.now), db=held)
        (second,) = await other.dequeue(db=held)
        waiting = asyncio.create_task(worker.disconnect())
        await wait_until_blocked(db)
    await waiting
    assert await other.report(start(second), complete(second)) == ["accepted", "accepted"]


async def test_two_triggers_with_one_idempotency_key_at_once_give_one_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    async with one_transaction(db) as held:
        first = await scene.trigger(db=held, idempotencyKey="order-1")
        waiting = asyncio.create_task(scene.trigger(idempotencyKey="order-1"))
        await wait_until_blocked(db)
    second = await waiting
    assert (first.run_id, first.is_cached) == (second.run_id, False)
    assert second.is_cached
    assert len(await read(db, "SELECT id FROM runs")) == 1


async def test_a_cancel_and_a_timer_do_not_both_happen(db: Database) -> None:
    scene = await make_scene(db, make_task())
    for is_canceled_first in (True, False):
        run_id = (await scene.trigger(delay="10s")).run_id
        scene.later(11)
        async with one_transaction(db) as held:
            if is_canceled_first:
                await scene.cancel(run_id, db=held)
                waiting = asyncio.create_task(timers.enqueue_due_runs(db, now=scene.now))
                await waiting
            else:
                await timers.enqueue_due_runs(held, now=scene.now)
                waiting = asyncio.create_task(scene.cancel(run_id))
                await wait_until_blocked(db)
        await waiting
        await timers.enqueue_due_runs(db, now=scene.now)
        assert await scene.read_status(run_id) == "FINISHED/CANCELED"
        await check_consistency(db)


async def test_a_run_is_not_confirmed_canceled_twice(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.cancel(run.run_id)
    async with one_transaction(db) as held:
        assert await worker.report(canceled(run), db=held) == ["accepted"]
        waiting = asyncio.create_task(worker.disconnect())
        await wait_until_blocked(db)
    await waiting
    assert (await scene.read_events(run.run_id))[-1] == "CONFIRM_CANCEL"
    await check_consistency(db)

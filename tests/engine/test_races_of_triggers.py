"""Races of what triggers, cancels and changes runs: batches, bulk actions, schedules, metadata.

Which race is forced where: see `test_races.py`.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.metadata import IncrementOperation
from runwell.core.protocol import MetadataReport, MetadataUpdate
from runwell.engine import (
    batch_streams,
    batches,
    bulk_actions,
    bulk_steps,
    run_metadata,
    schedules,
    ticks,
)
from runwell.engine.batch_streams import BatchOpening, OpenedBatch
from runwell.engine.batches import BatchRequest, TriggeredBatch
from runwell.engine.bulk_actions import BulkAct, BulkAction, Selection
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from runwell.engine.runs import RunFilters
from runwell.engine.schedules import Schedule, ScheduleRule
from tests.support.factories import (
    Scene,
    an_item,
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
    start,
)
from tests.support.races import in_order, in_order_of_death, old_snapshot

CHANGES = ("paused", "deleted", "changed")


async def _count(db: Database, table: str) -> int:
    return (await read(db, f"SELECT count(*) AS number FROM {table}"))[0]["number"]


def _batch(scene: Scene, *keys: str | None, **fields: Any) -> Callable[..., Awaitable[Any]]:
    """A trigger of a batch, with an item for each idempotency key."""

    async def trigger(at: Database) -> TriggeredBatch:
        items = [an_item() if key is None else an_item(idempotencyKey=key) for key in keys]
        request = BatchRequest(items=items, **fields)
        return await batches.trigger_batch(at, scene.environment, request, now=scene.now)

    return trigger


def _run_ids(batch: TriggeredBatch) -> list[str]:
    return [item.run_id for item in batch.items]


async def test_two_batches_with_one_key_at_once_are_one(db: Database) -> None:
    scene = await make_scene(db, make_task())
    minute = timedelta(minutes=1)
    one = _batch(scene, None, None, idempotency_key="b", request_key="1", key_lifetime=minute)
    other = _batch(scene, None, idempotency_key="b", request_key="2", key_lifetime=minute)
    first, second = await in_order(db, one, other)
    assert (first.is_cached, second.is_cached) == (False, True)
    assert (second.id, _run_ids(second)) == (first.id, _run_ids(first))
    assert await _count(db, "runs") == 2
    # The key has lived its time: whoever comes first takes it again.
    scene.later(61)
    one = _batch(scene, None, idempotency_key="b", request_key="3", key_lifetime=minute)
    other = _batch(scene, None, idempotency_key="b", request_key="4", key_lifetime=minute)
    third, fourth = await in_order(db, one, other)
    assert (third.is_cached, fourth.is_cached) == (False, True)
    assert first.id != third.id == fourth.id
    await check_consistency(db)


async def test_a_batch_whose_server_dies_leaves_its_keys_to_the_next_one(db: Database) -> None:
    scene = await make_scene(db, make_task())
    made = await in_order_of_death(
        db,
        _batch(scene, "a", "b", idempotency_key="b", request_key="1"),
        _batch(scene, "b", idempotency_key="b", request_key="2"),
    )
    assert not made.is_cached
    assert not made.items[0].is_cached
    assert (await _count(db, "batches"), await _count(db, "runs")) == (1, 1)


async def test_two_batches_that_stream_with_one_key_at_once_are_one(db: Database) -> None:
    scene = await make_scene(db, make_task())

    async def open_batch(at: Database, request_key: str) -> OpenedBatch:
        opening = BatchOpening(run_count=2, idempotency_key="b", request_key=request_key)
        return await batch_streams.open_batch(at, scene.environment, opening, now=scene.now)

    first, second = await in_order(
        db, lambda held: open_batch(held, "1"), lambda at: open_batch(at, "2")
    )
    assert first.id == second.id
    assert await _count(db, "batches") == 1


@pytest.mark.parametrize("keys", [("b", "a"), ("b", "c"), (None, "b")])
async def test_a_key_in_two_batches_at_once_has_one_run(
    db: Database, keys: Sequence[str | None]
) -> None:
    scene = await make_scene(db, make_task())
    first, second = await in_order(db, _batch(scene, "a", "b"), _batch(scene, *keys))
    known = dict(zip("ab", _run_ids(first), strict=True))
    assert [item.is_cached for item in second.items] == [key in known for key in keys]
    for key, run_id in zip(keys, _run_ids(second), strict=True):
        assert run_id == known.get(key or "", run_id)
    assert await _count(db, "runs") == 2 + sum(key not in known for key in keys)
    await check_consistency(db)


async def test_a_key_of_an_item_and_that_of_a_trigger_at_once_have_one_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch, single = await in_order(
        db, _batch(scene, "a"), lambda at: scene.trigger(idempotencyKey="a", db=at)
    )
    assert (single.run_id, single.is_cached) == (batch.items[0].run_id, True)
    single, batch = await in_order(
        db, lambda held: scene.trigger(idempotencyKey="b", db=held), _batch(scene, "c", "b")
    )
    assert batch.items[1].run_id == single.run_id
    assert [item.is_cached for item in batch.items] == [False, True]
    await check_consistency(db)


async def _cancel_all(scene: Scene) -> BulkAction:
    return await bulk_actions.create_bulk_action(
        scene.db,
        scene.environment,
        BulkAct.CANCEL,
        Selection(filters=RunFilters(), run_ids=None),
        request_key=None,
        now=scene.now,
    )


async def _finish(scene: Scene, made: BulkAction) -> BulkAction:
    while await bulk_steps.take_step(scene.db, now=scene.now) is not None:
        pass
    async with scene.db.connection() as tx:
        return await bulk_actions.get_bulk_action(tx, scene.environment, made.id)


@pytest.mark.parametrize("is_canceled_first", [True, False])
async def test_a_bulk_cancel_and_the_ends_of_its_runs_count_each_run_once(
    db: Database, is_canceled_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    ids = await scene.trigger_many(4)
    held = await worker.dequeue(3)
    await worker.report(*(start(run) for run in held))
    made = await _cancel_all(scene)

    async def step(at: Database) -> list[str]:
        found = await bulk_steps.take_step(at, now=scene.now)
        assert found is not None
        return sorted(one.run_id for one in found.canceled)

    async def end(at: Database) -> list[str]:
        # Not in the order of their ids.
        return await worker.report(complete(held[2]), complete(held[0]), db=at)

    if is_canceled_first:
        stopped, words = await in_order(db, step, end)
    else:
        words, stopped = await in_order(db, end, step)
    assert words == ["accepted", "accepted"]
    # They were told to stop, and had ended by themselves before they heard of it.
    assert stopped == (ids if is_canceled_first else [ids[1], ids[3]])
    found = await _finish(scene, made)
    assert (found.status, found.succeeded, found.failed) == ("COMPLETED", len(stopped), 0)
    assert await worker.report(canceled(held[1])) == ["accepted"]
    statuses = {run_id: (await scene.get(run_id)).status for run_id in ids}
    assert statuses == {run_id: "CANCELED" if run_id in stopped else "COMPLETED" for run_id in ids}
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_canceled_first", [True, False])
async def test_a_bulk_cancel_and_a_dequeue_of_its_run_do_not_both_have_it(
    db: Database, is_canceled_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    made = await _cancel_all(scene)

    async def step(at: Database) -> list[str | None]:
        found = await bulk_steps.take_step(at, now=scene.now)
        assert found is not None
        return [one.worker_id for one in found.canceled]

    async def dequeue(at: Database) -> list[Any]:
        return list(await worker.dequeue(db=at))

    if is_canceled_first:
        told, given = await in_order(db, step, dequeue, passes_over=True)
        assert (told, given) == ([None], [])
        assert await worker.dequeue() == []
    else:
        given, told = await in_order(db, dequeue, step)
        assert told == [worker.id]
        assert (await worker.heartbeat(*given)).canceled == [run_id]
        await worker.report(canceled(given[0]))
    assert (await _finish(scene, made)).succeeded == 1
    assert (await scene.get(run_id)).status == "CANCELED"
    await check_all_at_rest(db)


async def _scheduled(db: Database) -> tuple[Scene, Schedule]:
    """A schedule that is due at each full hour, and is due now."""
    scene = await make_scene(db, make_task("report", trigger_source="schedule"))
    rule = ScheduleRule(task_id="report", cron="0 * * * *")
    made = await db.run(
        lambda tx: schedules.create_schedule(
            tx, scene.environment, rule, deduplication_key="key", now=scene.now
        )
    )
    scene.later(3_600)
    return scene, made


def _tick(scene: Scene) -> Callable[[Database], Awaitable[int]]:
    async def tick(at: Database) -> int:
        return (await ticks.trigger_due_ticks(at, now=scene.now))[0]

    return tick


def _change(scene: Scene, made: Schedule, change: str) -> Callable[[Database], Awaitable[None]]:
    async def act(at: Database) -> None:
        async with at.transaction() as tx:
            environment, schedule_id = scene.environment, made.public_id
            match change:
                case "paused":
                    await schedules.set_active(
                        tx, environment, schedule_id, is_active=False, now=scene.now
                    )
                case "deleted":
                    await schedules.delete_schedule(tx, environment, schedule_id)
                case _:
                    await schedules.update_schedule(
                        tx,
                        environment,
                        schedule_id,
                        ScheduleRule(task_id="report", cron="30 3 * * *"),
                        deduplication_key=None,
                        now=scene.now,
                    )

    return act


async def test_two_servers_trigger_a_tick_once(db: Database) -> None:
    scene, made = await _scheduled(db)
    query = load_queries("ticks").lock_due_schedules
    values = {"now": scene.now, "waited_since": scene.now - ticks.PATIENCE, "most": 10}
    # One sees it due, and locks it after the other one has committed.
    async with old_snapshot(db, query, **values) as lock:
        assert await in_order(db, _tick(scene), _tick(scene), passes_over=True) == (1, 0)
        assert await lock() == []
    assert await _tick(scene)(db) == 0
    rows = await read(db, "SELECT tick_at FROM runs")
    assert [row["tick_at"] for row in rows] == [made.next_tick_at]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_tick_and_a_change_of_its_schedule_come_one_after_the_other(
    db: Database, change: str
) -> None:
    scene, made = await _scheduled(db)
    # The change first: what was due is due no more.
    _, ticked = await in_order(db, _change(scene, made, change), _tick(scene), passes_over=True)
    assert ticked == 0
    assert await _tick(scene)(db) == 0
    assert await _count(db, "runs") == 0


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_a_schedule_waits_for_its_tick_and_holds_the_next(
    db: Database, change: str
) -> None:
    scene, made = await _scheduled(db)
    ticked, _ = await in_order(db, _tick(scene), _change(scene, made, change))
    assert ticked == 1
    scene.later(3_600)
    assert await _tick(scene)(db) == 0
    assert await _count(db, "runs") == 1


@pytest.mark.parametrize("change", CHANGES)
async def test_a_schedule_changed_since_it_was_seen_to_be_due_does_not_tick(
    db: Database, change: str
) -> None:
    scene, made = await _scheduled(db)
    query = load_queries("ticks").lock_due_schedules
    values = {"now": scene.now, "waited_since": scene.now - ticks.PATIENCE, "most": 10}
    async with old_snapshot(db, query, **values) as lock:
        await _change(scene, made, change)(db)
        assert await lock() == []


async def test_a_run_pushed_since_it_was_seen_to_be_due_stays_delayed(db: Database) -> None:
    scene = await make_scene(db, make_task())
    debounce = {"key": "d", "delay": "10s"}
    first = await scene.trigger(debounce=debounce)
    scene.later(10)
    query = load_queries("timers").find_due_runs
    async with old_snapshot(db, query, now=scene.now, most=10) as lock:
        second = await scene.trigger(debounce=debounce)
        assert await lock() == []
    assert second.run_id == first.run_id
    assert await scene.read_status(first.run_id) == "DELAYED/DELAYED"


def _increments(run: Any, seq: int) -> MetadataReport:
    one = IncrementOperation(key="n", value=1)
    update = MetadataUpdate(seq=seq, parent_operations=[one], root_operations=[one])
    return MetadataReport(run_id=run.run_id, snapshot_id=run.snapshot_id, metadata=update)


async def _metadata(db: Database, scene: Scene, run_id: str) -> str:
    async with db.connection() as tx:
        return (await run_metadata.read_metadata(tx, scene.environment, run_id))["metadata"]


async def test_two_children_that_change_their_parent_at_once_each_count_once(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    parent = (await scene.trigger()).run_id
    workers_ = [await scene.connect() for _ in range(2)]
    await workers_[0].start_one()
    children: list[Any] = []
    for worker in workers_:
        await scene.trigger(parentRunId=parent)
        children.append(await worker.start_one())

    def tell(number: int, seq: int) -> Callable[[Database], Awaitable[list[str]]]:
        report = _increments(children[number], seq)
        return lambda at: workers_[number].report(report, db=at)

    # Each is about the parent as such and as the root: two each.
    await in_order(db, tell(0, 1), tell(1, 1))
    await in_order(db, tell(1, 2), tell(0, 2))
    # A report that is sent again while it is carried out.
    await in_order(db, tell(0, 3), tell(0, 3))
    # The server that had it dies, and it is sent again.
    await in_order_of_death(db, tell(1, 3), tell(1, 3))
    expected = '{"n": 12}'
    assert await _metadata(db, scene, parent) == expected
    for number, seq in ((0, 1), (1, 2), (0, 3)):
        await tell(number, seq)(db)
    assert await _metadata(db, scene, parent) == expected


@pytest.mark.parametrize("is_ended_first", [True, False])
async def test_a_child_changes_its_parent_while_that_ends(
    db: Database, is_ended_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    parent_id = (await scene.trigger()).run_id
    parent = await worker.start_one()
    await scene.trigger(parentRunId=parent_id)
    child = await worker.start_one()

    async def tell(at: Database) -> list[str]:
        return await worker.report(_increments(child, 1), db=at)

    async def end(at: Database) -> list[str]:
        return await worker.report(complete(parent), db=at)

    order = (end, tell) if is_ended_first else (tell, end)
    assert await in_order(db, *order) == (["accepted"], ["accepted"])
    expected = None if is_ended_first else '{"n": 2}'
    assert await _metadata(db, scene, parent_id) == expected
    assert (await scene.get(parent_id)).status == "COMPLETED"
    await worker.report(complete(child))
    await check_all_at_rest(db)

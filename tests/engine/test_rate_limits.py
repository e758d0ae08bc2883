"""Rate limits: never more than so many starts in any window, of a queue and of each key."""

import asyncio
from typing import Any

import pytest

from runwell.core.protocol import QueueManifest, RateLimitManifest, TaskManifest
from runwell.engine import queue_settings, rate_limits
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from runwell.engine.queue_settings import QueueReference
from tests.support.factories import (
    NOW,
    Scene,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    one_transaction,
    read,
    wait_until_blocked,
)
from tests.support.plans import explain

_sql = load_queries("rate_limits")
_READY = (
    "SELECT count(*) AS number FROM subqueues WHERE has_queued AND NOT is_paused "
    "AND running < concurrency_limit AND blocked_until IS NULL "
    "AND (has_queue_rate OR key_rate_limit IS NOT NULL)"
)


def _task(
    *limits: tuple[int, int, str], task_id: str = "add", queue: str = "api", **fields: Any
) -> TaskManifest:
    """A task whose queue has rate limits: how many, in how many seconds, per what."""
    task = make_task(task_id, queue=queue, **fields)
    assert task.queue is not None
    task.queue.rate_limits = [
        RateLimitManifest.model_validate({"limit": limit, "windowSeconds": seconds, "per": per})
        for limit, seconds, per in limits
    ]
    return task


async def _open(scene: Scene) -> int:
    return (await rate_limits.open_due_subqueues(scene.db, now=scene.now))[0]


async def test_a_queue_starts_so_many_in_a_window_whatever_its_keys(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue")))
    for key in ("a", "b", "c", None):
        await scene.trigger_many(2, concurrencyKey=key)
    worker = await scene.connect()
    first = await worker.dequeue(2)
    scene.later(10)
    await worker.heartbeat(*first)
    assert len(await worker.dequeue(10)) == 1
    assert await worker.dequeue(10) == []
    # Nothing of it is looked at any more, whatever is asked.
    assert (await read(db, _READY))[0]["number"] == 0
    scene.later(49)
    assert await _open(scene) == 0
    scene.later(1)
    assert await _open(scene) > 0
    await worker.heartbeat(*first)
    assert len(await worker.dequeue(10)) == 2
    assert await worker.dequeue(10) == []
    await check_consistency(db)


async def test_each_key_starts_so_many_in_a_window(db: Database) -> None:
    scene = await make_scene(db, _task((2, 60, "key")))
    for key in ("a", "b", None):
        await scene.trigger_many(3, concurrencyKey=key)
    worker = await scene.connect()
    held = await worker.dequeue(10)
    assert len(held) == 6
    assert await worker.dequeue(10) == []
    assert (await read(db, _READY))[0]["number"] == 0
    scene.later(60)
    assert await _open(scene) == 3
    await worker.heartbeat(*held)
    assert len(await worker.dequeue(10)) == 3
    await check_consistency(db)


async def test_both_limits_of_a_queue_hold(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue"), (2, 60, "key")))
    await scene.trigger_many(5, concurrencyKey="a")
    await scene.trigger_many(5, concurrencyKey="b")
    worker = await scene.connect()
    keys = [
        (await scene.get(run.run_id)).concurrency_key
        for _ in range(3)
        for run in await worker.dequeue(10)
    ]
    assert len(keys) == 3
    assert set(keys) == {"a", "b"}


async def test_a_limit_of_starts_and_one_of_concurrency_hold_together(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue"), limit=1))
    await scene.trigger_many(5)
    worker = await scene.connect()
    for _ in range(3):
        (run,) = await worker.dequeue(10)
        assert await worker.dequeue(10) == []
        await worker.report(complete(run))
    assert await worker.dequeue(10) == []
    await check_consistency(db)


async def test_another_queue_is_not_held_up_by_thousands_that_are_blocked(db: Database) -> None:
    scene = await make_scene(db, _task((1, 60, "queue")), make_task("free"))
    for number in range(60):
        await scene.trigger(concurrencyKey=str(number))
    last = (await scene.trigger("free")).run_id
    worker = await scene.connect()
    held = [run for _ in range(2) for run in await worker.dequeue(1)]
    assert last in [run.run_id for run in held]
    await worker.report(*(complete(run) for run in held))
    assert await worker.dequeue(1) == []
    assert (await read(db, _READY))[0]["number"] == 0
    # When the window is over, as many are opened as may start, and not the sixty.
    scene.later(60)
    assert await _open(scene) == 1
    await worker.heartbeat()
    assert len(await worker.dequeue(10)) == 1
    assert await _open(scene) == 0


async def test_more_than_a_batch_is_opened_by_the_next_ticks(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "BATCH", 2)
    scene = await make_scene(db, _task((5, 60, "queue")))
    for number in range(12):
        await scene.trigger(concurrencyKey=str(number))
    worker = await scene.connect()
    held = [run for _ in range(3) for run in await worker.dequeue(10)]
    assert len(held) == 5
    scene.later(60)
    assert [await _open(scene) for _ in range(2)] == [2, 0]
    scene.later(0.2)
    assert await _open(scene) == 2


async def test_every_key_of_a_queue_with_a_rate_limit_gets_its_turn(db: Database) -> None:
    scene = await make_scene(db, _task((2, 10, "queue")))
    for key in "abcdef":
        await scene.trigger_many(9, concurrencyKey=key)
    worker = await scene.connect()
    keys: list[str | None] = []
    while len(keys) < 12:
        await worker.heartbeat()
        given = await worker.dequeue(2)
        keys += [(await scene.get(run.run_id)).concurrency_key for run in given]
        scene.later(1)
        await _open(scene)
    assert sorted(filter(None, keys)) == sorted("abcdef" * 2)


async def test_every_attempt_counts_as_a_start_and_a_hand_back_too(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue")))
    await scene.trigger_many(3)
    worker = await scene.connect()
    (run,) = await worker.dequeue(1)
    await worker.report(fail(run, retry_at=scene.now))
    (again,) = await worker.dequeue(1)
    assert again.run_id == run.run_id
    await worker.report(hand_back(again))
    assert len(await worker.dequeue(10)) == 1
    assert await worker.dequeue(10) == []


async def test_the_same_request_again_is_not_another_start(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue")))
    await scene.trigger_many(5)
    worker = await scene.connect()
    first = await worker.dequeue(2, request_id="r1")
    assert await worker.dequeue(2, request_id="r1") == first
    assert len(await worker.dequeue(10)) == 1


async def test_runs_of_a_task_that_is_gone_use_up_nothing(db: Database) -> None:
    scene = await make_scene(db, _task((1, 60, "queue")), _task((1, 60, "queue"), task_id="gone"))
    await scene.trigger_many(3, "gone")
    kept = (await scene.trigger()).run_id
    await scene.register(_task((1, 60, "queue")))
    worker = await scene.connect()
    given = [run.run_id for _ in range(4) for run in await worker.dequeue(1)]
    assert given == [kept]


async def test_a_limit_that_is_raised_or_removed_holds_at_once(db: Database) -> None:
    scene = await make_scene(db, _task((1, 60, "queue"), (1, 60, "key")))
    await scene.trigger_many(9)
    worker = await scene.connect()
    assert len(await worker.dequeue(10)) == 1
    steps: list[tuple[list[tuple[int, int, str]], int]] = [
        ([(3, 60, "queue"), (3, 60, "key")], 2),
        ([(4, 60, "key")], 1),
        ([], 5),
    ]
    for limits, expected in steps:
        await scene.register(_task(*limits))
        worker.versions = [version.id for version in scene.versions]
        # Those that have started count on, where there was a limit of that kind.
        assert len(await worker.dequeue(10)) == expected, limits
        assert await worker.dequeue(10) == []
    assert await read(db, "SELECT FROM queue_rates") == []


async def test_a_paused_queue_that_was_blocked_goes_on_when_it_is_resumed(db: Database) -> None:
    scene = await make_scene(db, _task((1, 60, "queue")))
    await scene.trigger_many(3)
    worker = await scene.connect()
    await worker.dequeue(10)
    assert await worker.dequeue(10) == []
    reference = QueueReference(type="custom", value="api")
    for is_paused in (True, False):
        await queue_settings.set_paused(db, scene.environment, reference, is_paused=is_paused)
        if is_paused:
            scene.later(60)
            assert await _open(scene) == 0
    await worker.heartbeat()
    assert len(await worker.dequeue(10)) == 1


async def test_a_subqueue_that_was_blocked_when_it_was_empty_takes_new_runs(db: Database) -> None:
    scene = await make_scene(db, _task((1, 60, "queue")))
    await scene.trigger(concurrencyKey="a")
    (doomed,) = await scene.trigger_many(1, concurrencyKey="b")
    worker = await scene.connect()
    await worker.dequeue(10)
    await worker.dequeue(10)
    await scene.cancel(doomed)
    await read(db, "UPDATE subqueues SET has_queued = false RETURNING id")
    scene.later(60)
    assert await _open(scene) == 0
    late = (await scene.trigger(concurrencyKey="b")).run_id
    await worker.heartbeat()
    assert [run.run_id for run in await worker.dequeue(10)] == [late]


async def test_a_limit_that_is_changed_while_a_dequeue_looks_is_passed_over(db: Database) -> None:
    scene = await make_scene(db, _task((2, 60, "queue")), make_task("free"))
    await scene.trigger_many(3)
    free = (await scene.trigger("free")).run_id
    worker = await scene.connect()
    limits = [RateLimitManifest(limit=1, window_seconds=60)]
    async with db.transaction() as tx:
        await rate_limits.set_rate_limits(tx, scene.environment, name="api", limits=limits)
        assert [run.run_id for run in await worker.dequeue(10)] == [free]
    assert len(await worker.dequeue(10)) == 1
    assert await worker.dequeue(10) == []


async def test_two_dequeues_at_once_do_not_start_more_together(db: Database) -> None:
    scene = await make_scene(db, _task((3, 60, "queue")))
    await scene.trigger_many(3, concurrencyKey="a")
    await scene.trigger_many(3, concurrencyKey="b")
    one, other = await scene.connect(), await scene.connect()
    async with one_transaction(db) as held:
        first = await one.dequeue(2, db=held)
        dequeuing = asyncio.create_task(other.dequeue(10))
        await wait_until_blocked(db)
    # What the first one held was passed over by the second, which looks on.
    given = len(first) + len(await dequeuing)
    given += len(await one.dequeue(10)) + len(await other.dequeue(10))
    assert given == 3
    await check_consistency(db)


async def test_a_server_whose_clock_is_behind_starts_no_more(db: Database) -> None:
    scene = await make_scene(db, _task((2, 60, "queue"), (2, 60, "key")))
    await scene.trigger_many(5)
    worker = await scene.connect()
    scene.later(10)
    assert len(await worker.dequeue(1)) == 1
    scene.later(-5)
    assert len(await worker.dequeue(10)) == 1
    scene.later(60)
    # By the clock that was behind it would be over by now.
    assert await _open(scene) == 0
    scene.later(5)
    assert await _open(scene) == 1


async def test_the_loop_reads_only_what_is_due(db: Database) -> None:
    async with db.transaction() as tx:
        nodes = await explain(tx, _sql.open_due_subqueues, now=str(NOW), most=500)
    assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []
    conditions = {node.get("Index Name"): node.get("Index Cond") for node in nodes}
    assert "blocked_until" in str(conditions["subqueues_blocked"])
    assert "reopens_at" in str(conditions["queue_rates_due"])
    assert "queue_id" in str(conditions["subqueues_blocked_by_queue"])


async def test_a_queue_that_two_tasks_share_has_its_limit_over_both(db: Database) -> None:
    limits = [RateLimitManifest(limit=2, window_seconds=60)]
    shared = QueueManifest(name="api", rate_limits=limits)
    tasks = [make_task("a", queue="api"), make_task("b", queue="api")]
    scene = await make_scene(db)
    await scene.register(*tasks, queues=[shared])
    await scene.trigger_many(2, "a")
    await scene.trigger_many(2, "b")
    worker = await scene.connect()
    assert len(await worker.dequeue(10)) == 2

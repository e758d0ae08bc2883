"""What happens at an instant: delays end, times to live pass."""

from datetime import timedelta

import pytest

from runwell.core.errors import StringError
from runwell.core.statuses import RunStatus
from runwell.engine import timers
from runwell.engine.db import Database
from tests.support.factories import (
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    one_transaction,
)


async def test_a_delayed_run_is_queued_when_its_delay_is_over(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="10m")).run_id
    scene.later(599)
    assert await timers.enqueue_due_runs(db, now=scene.now) == (0, set())
    scene.later(1)
    assert await timers.enqueue_due_runs(db, now=scene.now) == (1, {scene.environment.id})
    assert await timers.enqueue_due_runs(db, now=scene.now) == (0, set())
    assert await scene.read_events(run_id) == ["TRIGGER", "ENQUEUE"]
    worker = await scene.connect()
    assert (await worker.dequeue_one()).run_id == run_id
    await check_consistency(db)


async def test_the_next_delay_that_ends_is_known_ahead(db: Database) -> None:
    scene = await make_scene(db, make_task())
    assert await timers.find_next_timer(db) is None
    await scene.trigger(delay="10m")
    await scene.trigger(delay="5s")
    await scene.trigger()
    assert await timers.find_next_timer(db) == scene.now + timedelta(seconds=5)
    scene.later(5)
    await timers.enqueue_due_runs(db, now=scene.now)
    assert await timers.find_next_timer(db) == scene.now + timedelta(seconds=595)


async def test_a_delayed_run_has_the_place_of_its_due_time(db: Database) -> None:
    scene = await make_scene(db, make_task())
    delayed = (await scene.trigger(delay="10s")).run_id
    scene.later(5)
    before = (await scene.trigger()).run_id
    scene.later(6)
    after = (await scene.trigger()).run_id
    await timers.enqueue_due_runs(db, now=scene.now)
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [before, delayed, after]


async def test_a_delayed_run_of_an_unknown_task_waits_for_its_deploy_afterwards(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("other"))
    run_id = (await scene.trigger("add", delay="1s")).run_id
    scene.later(1)
    await timers.enqueue_due_runs(db, now=scene.now)
    worker = await scene.connect()
    assert await worker.dequeue() == []
    assert await scene.read_status(run_id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    await scene.register(make_task("add"))
    worker = await scene.connect()
    assert (await worker.dequeue_one()).run_id == run_id


async def test_the_time_to_live_begins_when_the_delay_is_over(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1h", ttl="1m")).run_id
    scene.later(3600)
    await timers.enqueue_due_runs(db, now=scene.now)
    scene.later(59)
    assert await timers.expire_due_runs(db, now=scene.now) == 0
    scene.later(1)
    assert await timers.expire_due_runs(db, now=scene.now) == 1
    found = await scene.get(run_id)
    assert found.status is RunStatus.EXPIRED
    assert found.expired_at == found.finished_at == scene.now
    assert found.error == StringError(raw="Run expired because the TTL (1m) was reached")
    await check_all_at_rest(db)


async def test_a_run_in_development_expires_after_ten_minutes(db: Database) -> None:
    scene = await make_scene(db, make_task(), slug="dev")
    run_id = (await scene.trigger()).run_id
    scene.later(600)
    assert await timers.expire_due_runs(db, now=scene.now) == 1
    assert (await scene.get(run_id)).status is RunStatus.EXPIRED


async def test_a_run_that_was_taken_in_time_does_not_expire(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(ttl="10s")
    run = await worker.start_one()
    scene.later(11)
    assert await timers.expire_due_runs(db, now=scene.now) == 0
    await worker.report(fail(run, retry_at=scene.now))
    scene.later(11)
    assert await timers.expire_due_runs(db, now=scene.now) == 0
    await worker.heartbeat()
    await worker.report(complete(await worker.start_one()))
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_run_given_back_expires_only_if_it_never_started(
    db: Database, is_started: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(ttl="10s")
    run = await (worker.start_one() if is_started else worker.dequeue_one())
    scene.later(5)
    await worker.report(hand_back(run))
    scene.later(5)
    # Its time began with its first wait in the queue.
    assert await timers.expire_due_runs(db, now=scene.now) == (0 if is_started else 1)
    await check_consistency(db)


async def test_a_run_that_waits_for_a_deploy_does_not_expire(db: Database) -> None:
    scene = await make_scene(db)
    run_id = (await scene.trigger(ttl="1s")).run_id
    scene.later(100)
    assert await timers.expire_due_runs(db, now=scene.now) == 0
    await scene.register(make_task())
    assert await scene.read_status(run_id) == "QUEUED/QUEUED"


async def test_ticks_of_two_servers_do_not_wait_for_each_other(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(delay="1s")
    await scene.trigger(ttl="1s")
    scene.later(2)
    async with one_transaction(db) as held:
        assert (await timers.enqueue_due_runs(held, now=scene.now))[0] == 1
        assert await timers.expire_due_runs(held, now=scene.now) == 1
        assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
        assert await timers.expire_due_runs(db, now=scene.now) == 0
    await check_consistency(db)


async def test_more_than_a_batch_is_done_by_the_next_ticks(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "BATCH", 2)
    scene = await make_scene(db, make_task())
    for number in range(3):
        await scene.trigger(delay=f"{number + 1}s")
        await scene.trigger(ttl=f"{number + 1}s")
    now = scene.now + timedelta(seconds=10)
    assert [(await timers.enqueue_due_runs(db, now=now))[0] for _ in range(3)] == [2, 1, 0]
    assert [await timers.expire_due_runs(db, now=now) for _ in range(3)] == [2, 1, 0]
    await check_consistency(db)

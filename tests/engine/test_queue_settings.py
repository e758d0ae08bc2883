"""Queues as users see and change them: counts, pause, overrides; and the same for environments."""

import asyncio
from datetime import timedelta

import pytest

from runwell.core.errors import RequestError
from runwell.core.protocol import QueueManifest
from runwell.core.waits import DateWait
from runwell.engine import environments, queue_settings, waitpoints
from runwell.engine.db import Database
from runwell.engine.queries import Query
from runwell.engine.queue_settings import Queue, QueueReference
from tests.support.factories import (
    Scene,
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
from tests.support.waits import go_on

# As a dequeue does first.
_HOLD_COUNTERS = Query(
    name="hold_counters",
    text="SELECT FROM environment_concurrency FOR NO KEY UPDATE",
    parameters=(),
)
MAIL = QueueReference(type="custom", value="mail")


async def _get(scene: Scene, reference: QueueReference = MAIL) -> Queue:
    async with scene.db.connection() as tx:
        return await queue_settings.get_queue(tx, scene.environment, reference)


async def _pause(scene: Scene, *, db: Database | None = None) -> Queue:
    return await queue_settings.set_paused(db or scene.db, scene.environment, MAIL, is_paused=True)


async def _resume(scene: Scene) -> Queue:
    return await queue_settings.set_paused(scene.db, scene.environment, MAIL, is_paused=False)


async def _override(scene: Scene, limit: int) -> Queue:
    return await queue_settings.override_limit(
        scene.db, scene.environment, MAIL, limit, now=scene.now
    )


async def test_a_queue_shows_what_runs_and_what_waits_over_all_its_keys(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=1))
    for key in ("a", "b", None):
        await scene.trigger_many(2, concurrencyKey=key)
    await scene.trigger(delay="1m")
    worker = await scene.connect()
    await worker.dequeue(2)
    queue = await _get(scene)
    assert (queue.running, queue.queued, queue.has_more_queued) == (2, 4, False)
    assert (queue.name, queue.task_id, queue.concurrency_limit) == ("mail", None, 1)
    by_id = await _get(scene, QueueReference(type="id", value=queue.id))
    assert by_id == queue


async def test_a_task_without_a_queue_has_one_of_its_own(db: Database) -> None:
    scene = await make_scene(db, make_task("send mail"))
    queue = await _get(scene, QueueReference(type="task", value="send mail"))
    assert (queue.name, queue.task_id) == ("task/sendmail", "sendmail")


async def test_a_backlog_is_counted_up_to_a_number(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_settings, "MOST_COUNTED", 3)
    monkeypatch.setattr(environments, "MOST_COUNTED", 3)
    scene = await make_scene(db, make_task(queue="mail"))
    await scene.trigger_many(3)
    assert not (await _get(scene)).has_more_queued
    await scene.trigger_many(2)
    queue = await _get(scene)
    assert (queue.queued, queue.has_more_queued) == (3, True)
    async with db.connection() as tx:
        load = await environments.get_load(tx, scene.environment)
    assert (load.queued, load.has_more_queued) == (3, True)


async def test_a_queue_that_is_not_there_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    of_dev = await make_scene(db, make_task("other", queue="elsewhere"), slug="dev")
    elsewhere = await _get(of_dev, QueueReference(type="custom", value="elsewhere"))
    for reference in (
        QueueReference(type="custom", value="elsewhere"),
        QueueReference(type="id", value=elsewhere.id),
        QueueReference(type="id", value="mail"),
        QueueReference(type="task", value="mail"),
    ):
        with pytest.raises(RequestError, match="there is no queue") as refused:
            await _get(scene, reference)
        assert refused.value.status == 404


async def test_queues_are_listed_by_name_a_page_at_a_time(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    await scene.register(
        make_task(queue="mail"), queues=[QueueManifest(name=name) for name in ("z", "a", "m")]
    )
    await scene.trigger()
    pages: list[list[str]] = []
    for number in (1, 2, 3):
        async with db.connection() as tx:
            page = await queue_settings.list_queues(tx, scene.environment, page=number, page_size=3)
        assert page.count == 4
        pages.append([queue.name for queue in page.queues])
    assert pages == [["a", "m", "mail"], ["z"], []]


async def test_a_paused_queue_holds_new_starts_and_lets_go_what_executes(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"), make_task("free"))
    first, second, third = await scene.trigger_many(3)
    worker = await scene.connect()
    run = await worker.start_one()
    assert (await _pause(scene)).is_paused
    # Also for keys that are new, retries and other queues' sake.
    await scene.trigger(concurrencyKey="new")
    other = (await scene.trigger("free")).run_id
    assert [found.run_id for found in await worker.dequeue()] == [other]
    assert await worker.report(fail(run, retry_at=scene.now)) == ["accepted"]
    assert await worker.dequeue() == []
    assert not (await _resume(scene)).is_paused
    given = [found.run_id for found in await worker.dequeue()]
    assert given[:1] == [first]
    assert {second, third} < set(given)
    assert len(given) == 4
    await check_consistency(db)


async def test_a_pause_does_not_hold_a_run_that_goes_on_after_a_wait(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    run_id = (await scene.trigger()).run_id
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.wait(run, DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1)))
    await _pause(scene)
    await environments.set_paused(db, scene.environment, is_paused=True)
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    assert await go_on(scene) == {worker.id}
    assert await scene.read_status(run_id) == "EXECUTING/EXECUTING"
    assert await worker.report(complete(run)) == ["accepted"]


async def test_pausing_twice_changes_nothing_the_second_time(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    await _pause(scene)
    versions = await read(
        db, "SELECT xmin::text FROM queues UNION SELECT xmin::text FROM subqueues"
    )
    assert (await _pause(scene)).is_paused
    assert versions == await read(
        db, "SELECT xmin::text FROM queues UNION SELECT xmin::text FROM subqueues"
    )


async def test_a_pause_that_comes_before_a_dequeue_holds_the_run(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    await scene.trigger()
    worker = await scene.connect()
    async with one_transaction(db) as held:
        await _pause(scene, db=held)
        # It passes over what is being paused instead of waiting for it.
        assert await worker.dequeue() == []
    assert await worker.dequeue() == []
    assert (await _get(scene)).running == 0
    await check_consistency(db)


async def test_a_pause_that_comes_during_a_dequeue_waits_for_it_and_holds_the_next(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    first, second = await scene.trigger_many(2)
    worker = await scene.connect()
    async with one_transaction(db) as held:
        (run,) = await worker.dequeue(1, db=held)
        pausing = asyncio.create_task(_pause(scene))
        await wait_until_blocked(db)
        assert not pausing.done()
    assert (await pausing).running == 1
    assert run.run_id == first
    assert await worker.dequeue() == []
    assert await worker.report(start(run), complete(run)) == ["accepted", "accepted"]
    assert await worker.dequeue() == []
    await _resume(scene)
    assert [found.run_id for found in await worker.dequeue()] == [second]
    await check_consistency(db)


async def test_a_pause_holds_a_dequeue_that_began_before_it_and_waited_meanwhile(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task(queue="mail"), make_task("free"))
    await scene.trigger_many(2)
    other = (await scene.trigger("free")).run_id
    worker = await scene.connect()
    async with db.transaction() as tx:
        await tx.execute(_HOLD_COUNTERS)
        dequeuing = asyncio.create_task(worker.dequeue())
        await wait_until_blocked(db)
        await _pause(scene)
    assert [run.run_id for run in await dequeuing] == [other]
    await check_consistency(db)


async def test_a_key_that_is_new_while_its_queue_is_paused_is_paused(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    async with one_transaction(db) as held:
        await _pause(scene, db=held)
        triggering = asyncio.create_task(scene.trigger(concurrencyKey="new"))
        await wait_until_blocked(db)
    await triggering
    worker = await scene.connect()
    assert await worker.dequeue() == []
    await _resume(scene)
    assert len(await worker.dequeue()) == 1


async def test_an_override_holds_through_deploys_and_triggers_until_it_is_reset(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=1))
    await scene.trigger_many(6)
    queue = await _override(scene, 2)
    assert (queue.concurrency_limit, queue.base_limit) == (2, 1)
    assert (queue.limit_override, queue.overridden_at) == (2, scene.now)
    await scene.register(make_task(queue="mail", limit=3))
    worker = await scene.connect()
    assert len(await worker.dequeue()) == 2
    await scene.trigger(queue={"name": "mail", "concurrencyLimit": 4}, concurrencyKey="new")
    assert len(await worker.dequeue()) == 1
    queue = await _get(scene)
    assert (queue.concurrency_limit, queue.base_limit) == (2, 4)
    queue = await queue_settings.reset_limit(db, scene.environment, MAIL)
    assert (queue.concurrency_limit, queue.limit_override, queue.overridden_at) == (4, None, None)
    assert len(await worker.dequeue()) == 2
    await check_consistency(db)


async def test_an_override_of_zero_holds_everything(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    await scene.trigger()
    await _override(scene, 0)
    worker = await scene.connect()
    assert await worker.dequeue() == []
    queue = await queue_settings.reset_limit(db, scene.environment, MAIL)
    assert queue.concurrency_limit is None
    assert len(await worker.dequeue()) == 1


async def test_an_override_above_the_environments_limit_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    with pytest.raises(RequestError, match="more than the limit of the environment") as refused:
        await _override(scene, 1_001)
    assert refused.value.status == 422
    await environments.set_concurrency_limit(db, scene.environment, 2_000)
    assert (await _override(scene, 1_001)).concurrency_limit == 1_001


async def test_a_paused_environment_holds_new_starts_in_all_queues(db: Database) -> None:
    scene = await make_scene(db, make_task("a"), make_task("b"))
    await scene.trigger("a")
    worker = await scene.connect()
    run = await worker.start_one()
    await environments.set_paused(db, scene.environment, is_paused=True)
    await scene.trigger("a")
    await scene.trigger("b")
    assert await worker.dequeue() == []
    assert await worker.report(complete(run)) == ["accepted"]
    async with db.connection() as tx:
        load = await environments.get_load(tx, scene.environment)
    assert (load.is_paused, load.running, load.queued) == (True, 0, 2)
    await environments.set_paused(db, scene.environment, is_paused=False)
    assert len(await worker.dequeue()) == 2


async def test_a_pause_of_the_environment_waits_for_a_dequeue_and_holds_the_next_that_waits(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    first, _ = await scene.trigger_many(2)
    worker, other = await scene.connect(), await scene.connect()
    async with one_transaction(db) as held:
        (run,) = await worker.dequeue(1, db=held)
        pausing = asyncio.create_task(
            environments.set_paused(db, scene.environment, is_paused=True)
        )
        await wait_until_blocked(db)
        dequeuing = asyncio.create_task(other.dequeue())
        await wait_until_blocked(db, 2)
    await pausing
    assert run.run_id == first
    # It began when nothing was paused, and sees the pause that was made while it waited.
    assert await dequeuing == []


async def test_a_limit_of_the_environment_holds_from_the_next_dequeue_on(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(5)
    worker = await scene.connect()
    await environments.set_concurrency_limit(db, scene.environment, 2)
    assert len(await worker.dequeue()) == 2
    assert await worker.dequeue() == []
    await environments.set_concurrency_limit(db, scene.environment, 4)
    assert len(await worker.dequeue()) == 2
    await environments.set_concurrency_limit(db, scene.environment, 0)
    assert await worker.dequeue() == []

"""Slots of runs that wait: given back, taken again, and refused when the wait would never end."""

from datetime import timedelta

from runwell.core.errors import InternalError
from runwell.core.waits import DateWait, RunsWait
from runwell.engine import waitpoints
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
    start,
)
from tests.support.waits import go_on, wait_for_child


async def _set_environment_limit(scene: Scene, limit: int) -> None:
    await read(
        scene.db,
        "UPDATE environments SET concurrency_limit = :limit WHERE id = :id RETURNING id",
        limit=limit,
        id=scene.environment.id,
    )


async def test_the_environments_slot_is_given_back_and_the_queues_is_kept(db: Database) -> None:
    scene = await make_scene(db, make_task("parent", queue="p", limit=1), make_task())
    await _set_environment_limit(scene, 1)
    worker = await scene.connect()
    parent_ids = await scene.trigger_many(2, "parent")
    _, child_id = await wait_for_child(scene, worker)
    # The other parent has no slot of its queue; the child has the environment's.
    (child,) = await worker.dequeue()
    assert child.run_id == child_id
    await worker.report(start(child))
    await check_consistency(db)
    await worker.report(complete(child))
    await go_on(scene)
    assert await scene.read_status(parent_ids[0]) == "EXECUTING/EXECUTING"
    assert await worker.dequeue() == []
    await check_consistency(db)


async def test_a_child_on_the_same_queue_gets_the_slot_of_its_parent(db: Database) -> None:
    scene = await make_scene(
        db, make_task("parent", queue="q", limit=1), make_task(queue="q", limit=1)
    )
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    await wait_for_child(scene, worker)
    child = await worker.start_one()
    # Its result would be there, and its slot is not.
    await check_consistency(db)
    await worker.report(complete(child))
    await go_on(scene)
    assert await scene.read_status(parent_id) == "EXECUTING/EXECUTING"
    await check_consistency(db)


async def test_a_run_waits_for_a_slot_to_go_on_and_gets_the_next_one(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    await _set_environment_limit(scene, 1)
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    parent = await worker.start_one()
    await worker.wait(parent, DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1)))
    await scene.trigger()
    other = await worker.start_one()
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    assert await go_on(scene) == set()
    assert await scene.read_status(parent_id) == "QUEUED_EXECUTING/FROZEN"
    assert await worker.resume() == []
    await check_consistency(db)
    # It goes before what waits in queues.
    await scene.trigger()
    await worker.report(complete(other))
    assert await worker.dequeue() == []
    assert await go_on(scene) == {worker.id}
    assert await scene.read_status(parent_id) == "EXECUTING/EXECUTING"
    assert len(await worker.resume()) == 1
    await check_consistency(db)


async def test_a_wait_that_would_never_end_is_refused(db: Database) -> None:
    scene = await make_scene(
        db,
        make_task("parent", queue="q", limit=1),
        make_task("child", queue="q", limit=1),
        make_task("grandchild", queue="q", limit=1),
    )
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    _, child_id = await wait_for_child(scene, worker, child="child")
    await read(
        db,
        "UPDATE runs SET parent_run_id = :parent WHERE id = :child RETURNING id",
        parent=parent_id,
        child=child_id,
    )
    child = await worker.start_one()
    grandchild_id = (await scene.trigger("grandchild")).run_id
    answer = await worker.wait(child, RunsWait(wait_id="w", run_ids=[grandchild_id]))
    assert not answer.is_blocked
    (refusal,) = answer.refused
    assert isinstance(refusal.error, InternalError)
    assert refusal.error.code == "RECURSIVE_WAIT_DEADLOCK"
    assert await scene.read_status(child_id) == "EXECUTING/EXECUTING"


async def test_runs_that_have_nothing_to_do_with_each_other_do_not_lock_up(db: Database) -> None:
    scene = await make_scene(
        db, make_task("parent", queue="q", limit=1), make_task(queue="q", limit=1)
    )
    worker = await scene.connect()
    parent_ids = await scene.trigger_many(2, "parent")
    first, _ = await wait_for_child(scene, worker, wait_id="a")
    second, _ = await wait_for_child(scene, worker, wait_id="b")
    assert first != second
    for _ in parent_ids:
        await worker.report(complete(await worker.start_one()))
        await go_on(scene)
        (wait,) = await worker.resume()
        parent = first if wait.wait_id == "a" else second
        await worker.report(complete(parent))
        await go_on(scene)
    await check_all_at_rest(db)


async def test_a_run_that_is_canceled_when_it_was_to_go_on_claims_no_slot(db: Database) -> None:
    scene = await make_scene(db, make_task("sleeper"), make_task())
    await _set_environment_limit(scene, 1)
    worker = await scene.connect()
    sleeper_id = (await scene.trigger("sleeper")).run_id
    sleeper = await worker.start_one()
    date = scene.now + timedelta(seconds=1)
    await worker.wait(sleeper, DateWait(wait_id="w", date=date))
    first_id, second_id = await scene.trigger_many(2)
    first = await worker.start_one()
    assert first.run_id == first_id
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await go_on(scene)
    assert await scene.read_status(sleeper_id) == "QUEUED_EXECUTING/FROZEN"
    await scene.cancel(sleeper_id)
    await worker.report(complete(first))
    # Its worker has yet to say that it stopped; the slot is for who can use it.
    (second,) = await worker.dequeue()
    assert second.run_id == second_id
    await check_consistency(db)

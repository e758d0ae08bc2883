"""Waits as the engine keeps them: slots given back and taken again, results given once received."""

import asyncio
from datetime import timedelta

from runwell.core.errors import InternalError, StringError
from runwell.core.waits import DateWait, RunsWait
from runwell.engine import timers, waitpoints
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    Supervisor,
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


async def _go_on(scene: Scene) -> set[str]:
    return (await waitpoints.continue_runs(scene.db, now=scene.now)).worker_ids


async def _set_environment_limit(scene: Scene, limit: int) -> None:
    await read(
        scene.db,
        "UPDATE environments SET concurrency_limit = :limit WHERE id = :id RETURNING id",
        limit=limit,
        id=scene.environment.id,
    )


async def _wait_for_child(
    scene: Scene, worker: Supervisor, *, child: str = "add", wait_id: str = "w1"
) -> tuple[object, str]:
    parent = await worker.start_one()
    child_id = (await scene.trigger(child)).run_id
    answer = await worker.wait(parent, RunsWait(wait_id=wait_id, run_ids=[child_id]))
    assert answer.is_blocked
    return parent, child_id


async def test_a_run_that_waits_for_a_child_gets_its_output_and_goes_on(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    parent = await worker.start_one()
    child_id = (await scene.trigger()).run_id
    answer = await worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id]))
    assert answer.is_blocked
    assert not answer.refused
    assert await scene.read_status(parent_id) == "EXECUTING_WITH_WAITPOINTS/FROZEN"
    assert await worker.resume() == []
    child = await worker.start_one()
    await worker.report(complete(child, '"done"'))
    assert await _go_on(scene) == {worker.id}
    assert await scene.read_status(parent_id) == "EXECUTING/EXECUTING"
    (wait,) = await worker.resume()
    (result,) = wait.results
    assert (wait.run_id, wait.snapshot_id, wait.wait_id) == (parent_id, parent.snapshot_id, "w1")
    assert (result.is_ok, result.output, result.run_id) == (True, '"done"', child_id)
    # Until it was received it is given again.
    assert await worker.resume() == [wait]
    assert await worker.resume(wait) == []
    await worker.report(complete(parent))
    await check_all_at_rest(db)


async def test_a_failed_child_gives_its_error(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    await scene.trigger("parent")
    await _wait_for_child(scene, worker)
    child = await worker.start_one()
    await worker.report(fail(child))
    await _go_on(scene)
    (wait,) = await worker.resume()
    assert not wait.results[0].is_ok
    assert wait.results[0].error is not None
    assert wait.results[0].status == "FAILED"


async def test_waiting_for_a_run_that_has_ended_does_not_block(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    child_id = (await scene.trigger()).run_id
    await worker.report(complete(await worker.start_one()))
    await scene.trigger("parent")
    parent = await worker.start_one()
    answer = await worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id]))
    assert not answer.is_blocked
    (wait,) = await worker.resume()
    assert wait.results[0].is_ok
    await check_consistency(db)


async def test_a_batch_is_complete_with_its_last_run_and_keeps_its_order(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    ids = await scene.trigger_many(3)
    await worker.wait(parent, RunsWait(wait_id="w1", run_ids=ids))
    children = await worker.dequeue()
    for child in reversed(children):
        assert await worker.resume() == []
        await worker.report(start(child), complete(child, f'"{child.run_id}"'))
        await _go_on(scene)
    (wait,) = await worker.resume()
    assert [result.run_id for result in wait.results] == ids
    assert [result.output for result in wait.results] == [f'"{run_id}"' for run_id in ids]


async def test_the_same_run_may_be_waited_for_twice_in_one_wait(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    child_id = (await scene.trigger()).run_id
    await worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id, child_id]))
    await worker.report(complete(await worker.start_one()))
    await _go_on(scene)
    (wait,) = await worker.resume()
    assert [result.run_id for result in wait.results] == [child_id, child_id]


async def test_a_wait_told_of_twice_is_one_wait(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    until = DateWait(wait_id="w1", date=scene.now + timedelta(seconds=5))
    assert (await worker.wait(parent, until)).is_blocked
    assert (await worker.wait(parent, until)).is_blocked
    assert len(await read(db, "SELECT * FROM run_waits")) == 1
    assert len(await read(db, "SELECT * FROM waitpoints")) == 1


async def test_a_date_lets_the_run_go_on_when_it_comes(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    run = await worker.start_one()
    await worker.wait(run, DateWait(wait_id="w1", date=scene.now + timedelta(seconds=5)))
    assert await waitpoints.find_next_due(db) == scene.now + timedelta(seconds=5)
    scene.later(4.9)
    assert await waitpoints.complete_due_waitpoints(db, now=scene.now) == 0
    scene.later(0.1)
    assert await waitpoints.complete_due_waitpoints(db, now=scene.now) == 1
    await _go_on(scene)
    assert await scene.read_status(run_id) == "EXECUTING/EXECUTING"
    (wait,) = await worker.resume()
    assert wait.results == []


async def test_the_first_of_several_waits_lets_the_run_go_on(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    run = await worker.start_one()
    early = DateWait(wait_id="early", date=scene.now + timedelta(seconds=1))
    late = DateWait(wait_id="late", date=scene.now + timedelta(seconds=9))
    await worker.wait(run, late, early)
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await _go_on(scene)
    (wait,) = await worker.resume()
    assert wait.wait_id == "early"
    # It can do nothing else again: blocked by what is left.
    answer = await worker.wait(run, received=["early"])
    assert answer.is_blocked
    assert await scene.read_status(run_id) == "EXECUTING_WITH_WAITPOINTS/FROZEN"
    scene.later(8)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await _go_on(scene)
    (wait,) = await worker.resume()
    assert wait.wait_id == "late"


async def test_a_run_with_a_result_to_take_is_not_blocked(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    past = DateWait(wait_id="past", date=scene.now)
    late = DateWait(wait_id="late", date=scene.now + timedelta(seconds=9))
    await worker.wait(run, past, late, is_blocked=False)
    assert not (await worker.wait(run)).is_blocked
    assert (await worker.wait(run, received=["past"])).is_blocked


async def test_the_environments_slot_is_given_back_and_the_queues_is_kept(db: Database) -> None:
    scene = await make_scene(db, make_task("parent", queue="p", limit=1), make_task())
    await _set_environment_limit(scene, 1)
    worker = await scene.connect()
    parent_ids = await scene.trigger_many(2, "parent")
    _, child_id = await _wait_for_child(scene, worker)
    # The other parent has no slot of its queue; the child has the environment's.
    (child,) = await worker.dequeue()
    assert child.run_id == child_id
    await worker.report(start(child))
    await check_consistency(db)
    await worker.report(complete(child))
    await _go_on(scene)
    assert await scene.read_status(parent_ids[0]) == "EXECUTING/EXECUTING"
    assert await worker.dequeue() == []
    await check_consistency(db)


async def test_a_child_on_the_same_queue_gets_the_slot_of_its_parent(db: Database) -> None:
    scene = await make_scene(
        db, make_task("parent", queue="q", limit=1), make_task(queue="q", limit=1)
    )
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    await _wait_for_child(scene, worker)
    child = await worker.start_one()
    # Its result would be there, and its slot is not.
    await check_consistency(db)
    await worker.report(complete(child))
    await _go_on(scene)
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
    assert await _go_on(scene) == set()
    assert await scene.read_status(parent_id) == "QUEUED_EXECUTING/FROZEN"
    assert await worker.resume() == []
    await check_consistency(db)
    # It goes before what waits in queues.
    await scene.trigger()
    await worker.report(complete(other))
    assert await worker.dequeue() == []
    assert await _go_on(scene) == {worker.id}
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
    _, child_id = await _wait_for_child(scene, worker, child="child")
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
    first, _ = await _wait_for_child(scene, worker, wait_id="a")
    second, _ = await _wait_for_child(scene, worker, wait_id="b")
    assert first != second
    for _ in parent_ids:
        await worker.report(complete(await worker.start_one()))
        await _go_on(scene)
        (wait,) = await worker.resume()
        parent = first if wait.wait_id == "a" else second
        await worker.report(complete(parent))  # type: ignore[arg-type]
        await _go_on(scene)
    await check_all_at_rest(db)


async def test_waits_for_what_is_not_there_are_refused_one_by_one(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    answer = await worker.wait(
        run,
        RunsWait(wait_id="none", run_ids=["run_nothere"]),
        RunsWait(wait_id="self", run_ids=[run.run_id]),
        DateWait(wait_id="date", date=scene.now),
    )
    assert not answer.is_blocked
    assert [refusal.wait_id for refusal in answer.refused] == ["none", "self"]
    assert all(isinstance(refusal.error, StringError) for refusal in answer.refused)
    assert [wait.wait_id for wait in await worker.resume()] == ["date"]


async def test_a_worker_that_lost_the_run_hears_of_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.lose_workers()
    answer = await worker.wait(run, DateWait(wait_id="w1", date=scene.now))
    assert answer.is_lost


async def test_what_a_lost_worker_waited_for_is_forgotten(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    await _wait_for_child(scene, worker)
    await scene.lose_workers()
    assert await scene.read_status(parent_id) == "QUEUED/REATTEMPTING"
    assert await read(db, "SELECT * FROM run_waits") == []
    await check_consistency(db)
    other = await scene.connect()
    for run in await other.dequeue():
        await other.report(start(run), complete(run))
    await _go_on(scene)
    await check_all_at_rest(db)


async def test_a_canceled_run_waits_for_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    parent, child_id = await _wait_for_child(scene, worker)
    await scene.cancel(parent_id)
    await scene.cancel(child_id)
    await _go_on(scene)
    assert await scene.read_status(parent_id) == "PENDING_CANCEL/CANCELED"
    await worker.report(fail(parent))  # type: ignore[arg-type]
    await check_all_at_rest(db)


async def test_every_way_in_which_a_child_ends_lets_its_parent_go_on(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()

    async def cancel(run_id: str) -> None:
        await scene.cancel(run_id)

    async def expire(_: str) -> None:
        scene.later(100)
        await timers.expire_due_runs(db, now=scene.now)

    for end, status in ((cancel, "CANCELED"), (expire, "EXPIRED")):
        await scene.trigger("parent")
        parent = await worker.start_one()
        child_id = (await scene.trigger(ttl="1m")).run_id
        await worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id]))
        await end(child_id)
        assert await _go_on(scene) == {worker.id}
        (wait,) = await worker.resume()
        assert wait.results[0].status == status
        await worker.report(complete(parent))
    await check_all_at_rest(db)


async def test_a_child_that_ends_while_its_parent_begins_to_wait_is_heard_of(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    child_id = (await scene.trigger()).run_id
    child = await worker.start_one()
    async with one_transaction(db) as held:
        await worker.report(complete(child), db=held)
        waiting = asyncio.create_task(
            worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id]))
        )
        await wait_until_blocked(db)
    assert not (await waiting).is_blocked
    assert len(await worker.resume()) == 1


async def test_a_child_that_ends_right_after_its_parent_began_to_wait_wakes_it(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    child_id = (await scene.trigger()).run_id
    child = await worker.start_one()
    async with one_transaction(db) as held:
        await worker.wait(parent, RunsWait(wait_id="w1", run_ids=[child_id]), db=held)
        ending = asyncio.create_task(worker.report(complete(child)))
        await wait_until_blocked(db)
    await ending
    assert await _go_on(scene) == {worker.id}
    assert len(await worker.resume()) == 1


async def test_a_date_that_comes_while_the_run_is_blocked_by_it_wakes_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    date = DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1))
    await worker.wait(run, date, is_blocked=False)
    scene.later(1)
    async with one_transaction(db) as held:
        # It looks at the date before that has come, and commits after.
        assert (await worker.wait(run, db=held)).is_blocked
        await waitpoints.complete_due_waitpoints(db, now=scene.now)
    assert await _go_on(scene) == {worker.id}
    await check_consistency(db)


async def test_two_servers_let_a_run_go_on_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    run = await worker.start_one()
    await worker.wait(run, DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1)))
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    async with one_transaction(db) as held:
        await waitpoints.continue_runs(held, now=scene.now)
        assert (await waitpoints.continue_runs(db, now=scene.now)).seen == 0
    assert (await scene.read_events(run_id)).count("CONTINUE") == 1
    await check_consistency(db)

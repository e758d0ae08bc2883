"""Waits as the engine keeps them: slots given back and taken again, results given once received."""

import asyncio
from datetime import timedelta

import pytest

from runwell.core.errors import StringError
from runwell.core.waits import DateWait, RunsWait
from runwell.engine import timers, waitpoints
from runwell.engine.db import Database
from tests.support.factories import (
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
from tests.support.waits import go_on, wait_for_child


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
    assert await go_on(scene) == {worker.id}
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
    await wait_for_child(scene, worker)
    child = await worker.start_one()
    await worker.report(fail(child))
    await go_on(scene)
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
        await go_on(scene)
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
    await go_on(scene)
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
    await go_on(scene)
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
    await go_on(scene)
    (wait,) = await worker.resume()
    assert wait.wait_id == "early"
    # It can do nothing else again: blocked by what is left.
    answer = await worker.wait(run, received=["early"])
    assert answer.is_blocked
    assert await scene.read_status(run_id) == "EXECUTING_WITH_WAITPOINTS/FROZEN"
    scene.later(8)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await go_on(scene)
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
    await wait_for_child(scene, worker)
    await scene.lose_workers()
    assert await scene.read_status(parent_id) == "QUEUED/REATTEMPTING"
    assert await read(db, "SELECT * FROM run_waits") == []
    await check_consistency(db)
    other = await scene.connect()
    for run in await other.dequeue():
        await other.report(start(run), complete(run))
    await go_on(scene)
    await check_all_at_rest(db)


async def test_a_canceled_run_waits_for_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task("parent"), make_task())
    worker = await scene.connect()
    parent_id = (await scene.trigger("parent")).run_id
    parent, child_id = await wait_for_child(scene, worker)
    await scene.cancel(parent_id)
    await scene.cancel(child_id)
    await go_on(scene)
    assert await scene.read_status(parent_id) == "PENDING_CANCEL/CANCELED"
    await worker.report(fail(parent))
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
        assert await go_on(scene) == {worker.id}
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
    assert await go_on(scene) == {worker.id}
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
    assert await go_on(scene) == {worker.id}
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


async def test_a_blocked_run_may_begin_a_wait_that_is_complete_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    run = await worker.start_one()
    late = DateWait(wait_id="late", date=scene.now + timedelta(seconds=9))
    assert (await worker.wait(run, late)).is_blocked
    # As another thread of the task does.
    past = DateWait(wait_id="past", date=scene.now)
    await worker.wait(run, past, is_blocked=False)
    assert await go_on(scene) == {worker.id}
    assert await scene.read_status(run_id) == "EXECUTING/EXECUTING"
    assert [wait.wait_id for wait in await worker.resume()] == ["past"]


async def test_of_many_large_results_the_later_ones_are_left_out_and_said_to_be(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waitpoints, "MOST_BYTES_PER_ANSWER", 10)
    scene = await make_scene(db, make_task("parent"), make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    await scene.trigger("parent")
    parent = await worker.start_one()
    child_ids = await scene.trigger_many(4)
    await worker.wait(parent, RunsWait(wait_id="w1", run_ids=child_ids))
    children = [run for _ in range(4) for run in await worker.dequeue(1)]
    assert [child.run_id for child in children] == child_ids
    await worker.report(*(start(child) for child in children))
    await worker.report(
        complete(children[0], '"small"'),
        complete(children[1], '"too much"'),
        fail(children[2]),
        complete(children[3], None),
    )
    await go_on(scene)
    (wait,) = await worker.resume()
    found = [(result.is_ok, result.output, result.is_left_out) for result in wait.results]
    assert found == [
        (True, '"small"', False),
        (True, None, True),
        (False, None, True),
        (True, None, False),
    ]
    assert wait.results[2].error is None

"""Supervisors: leases, what a lost one held, what a heartbeat answers."""

import pytest

from runwell.core.errors import ErrorCode, InternalError, RequestError
from runwell.core.protocol import LEASE_SECONDS, ConnectBody
from runwell.core.statuses import AttemptStatus, RunStatus
from runwell.engine import run_tags, workers
from runwell.engine.db import Database
from tests.support.factories import (
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    read,
    start,
)


async def test_a_worker_learns_who_it_is_and_where(db: Database) -> None:
    scene = await make_scene(db, make_task())
    answer = await workers.connect(
        db,
        scene.environment,
        ConnectBody(name="m", capacity=1, package_version="1"),
        now=scene.now,
        lease_seconds=6,
    )
    assert answer.worker_id.startswith("worker_")
    assert answer.environment.type == "PRODUCTION"
    assert answer.project.ref == scene.environment.project.ref
    assert answer.organization.id == scene.environment.organization.public_id
    assert (answer.lease_seconds, answer.heartbeat_seconds) == (6, 2)


async def test_a_worker_that_renews_its_lease_keeps_its_runs(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    for _ in range(5):
        scene.later(LEASE_SECONDS - 1)
        answer = await worker.heartbeat(run)
        assert (answer.lost, answer.canceled) == ([], [])
        assert await workers.take_lost_runs(db, now=scene.now) == set()
    assert await worker.report(complete(run)) == ["accepted"]


async def test_a_lost_workers_runs_that_had_not_started_go_back(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    ids = await scene.trigger_many(3)
    await worker.dequeue(2)
    assert await scene.lose_workers() == {scene.environment.id}
    assert await scene.read_events(ids[0]) == ["TRIGGER", "DEQUEUE", "HAND_BACK"]
    await check_consistency(db)
    other = await scene.connect()
    again = await other.dequeue()
    assert [run.run_id for run in again] == ids
    assert {run.attempt_number for run in again} == {1}
    assert await scene.lose_workers() == {scene.environment.id}
    assert await scene.lose_workers() == set()


async def test_a_lost_workers_attempt_is_followed_by_another_one_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 2}))
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.lose_workers()
    assert await scene.read_status(run.run_id) == "QUEUED/REATTEMPTING"
    (attempt,) = (await scene.get(run.run_id)).attempts
    assert attempt.status is AttemptStatus.FAILED
    assert isinstance(attempt.error, InternalError)
    assert attempt.error.code is ErrorCode.TASK_RUN_HEARTBEAT_TIMEOUT
    assert "until its lease ended" in str(attempt.error.message)
    assert await worker.report(complete(run)) == ["stale"]
    other = await scene.connect()
    assert (await other.dequeue_one()).attempt_number == 2
    await check_consistency(db)


@pytest.mark.parametrize(("slug", "status"), [("prod", "CRASHED"), ("dev", "INTERRUPTED")])
async def test_a_lost_workers_last_attempt_ends_its_run(
    db: Database, slug: str, status: str
) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}), slug=slug)
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await scene.lose_workers()
    assert (await scene.get(run.run_id)).status == status
    assert (await worker.heartbeat(run)).lost == [run.run_id]
    await check_all_at_rest(db)


async def test_what_a_lost_worker_was_to_cancel_is_canceled(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger_many(2)
    first, second = await worker.dequeue(2)
    await worker.report(start(first))
    await scene.cancel(first.run_id)
    await scene.cancel(second.run_id)
    await scene.lose_workers()
    for run in (first, second):
        assert await scene.read_status(run.run_id) == "FINISHED/CANCELED"
    await check_all_at_rest(db)


async def test_a_worker_that_comes_back_keeps_what_nobody_took(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    scene.later(1000)
    assert (await worker.heartbeat(run)).lost == []
    assert await workers.take_lost_runs(db, now=scene.now) == set()
    assert await worker.report(complete(run)) == ["accepted"]


async def test_a_worker_that_ends_gives_back_what_it_holds_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    ids = await scene.trigger_many(2)
    first, _ = await worker.dequeue()
    await worker.report(start(first))
    await worker.disconnect()
    await worker.disconnect()
    await check_consistency(db)
    other = await scene.connect()
    assert [run.run_id for run in await other.dequeue()] == ids


async def test_a_worker_takes_over_from_the_one_that_was_killed_in_its_folder(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    killed, bystander = await scene.connect(), await scene.connect()
    ids = await scene.trigger_many(3)
    first, _ = await killed.dequeue(2)
    await killed.report(start(first))
    (kept,) = await bystander.dequeue(1)
    successor = await scene.connect(previous=killed.id)
    assert [run.run_id for run in await successor.dequeue()] == ids[:2]
    assert await bystander.report(complete(kept)) == ["accepted"]
    await check_consistency(db)


async def test_a_previous_worker_that_is_unknown_or_elsewhere_is_no_hindrance(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    other = await of_dev.connect()
    await of_dev.trigger()
    run = await other.start_one()
    await scene.connect(previous="worker_unknown")
    await scene.connect(previous=other.id)
    assert await other.report(complete(run)) == ["accepted"]


async def test_a_heartbeat_names_what_is_lost_and_what_is_canceled(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger_many(4)
    fine, gone, stopped, retaken = await worker.dequeue(4)
    await worker.report(complete(gone), hand_back(retaken))
    await scene.cancel(stopped.run_id)
    (again,) = await worker.dequeue(1)
    assert again.run_id == retaken.run_id
    answer = await worker.heartbeat(fine, gone, stopped, retaken)
    assert sorted(answer.lost) == sorted([gone.run_id, retaken.run_id])
    assert answer.canceled == [stopped.run_id]


async def test_a_heartbeat_of_a_worker_that_is_unknown_says_to_connect(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    stranger = await of_dev.connect()
    stranger.scene = scene
    with pytest.raises(RequestError, match="connect again") as refused:
        await stranger.heartbeat()
    assert refused.value.status == 409


async def test_a_run_that_the_worker_never_heard_of_goes_elsewhere_after_a_while(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger_many(2)
    known, unknown = await worker.dequeue(2)
    # The answer may still be on its way.
    scene.later(LEASE_SECONDS - 1)
    await worker.heartbeat(known)
    assert await scene.read_status(unknown.run_id) == "PENDING_EXECUTING/DEQUEUED"
    # Somebody writes to it, which says nothing of the worker.
    await run_tags.add_tags(db, scene.environment, unknown.run_id, ["new"], now=scene.now)
    scene.later(2)
    assert (await worker.heartbeat(known)).lost == []
    assert await scene.read_status(unknown.run_id) == "QUEUED/QUEUED"
    assert await scene.read_status(known.run_id) == "PENDING_EXECUTING/DEQUEUED"
    await check_consistency(db)


async def test_hundreds_of_lost_runs_are_taken_back_some_at_a_time(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger_many(210)
    for _ in range(3):
        await worker.dequeue(100)
    await scene.lose_workers()
    (row,) = await read(db, "SELECT count(*) AS number FROM runs WHERE lease_id IS NOT NULL")
    assert row["number"] == 10
    await scene.lose_workers()
    assert await scene.lose_workers() == set()
    await check_consistency(db)


async def test_workers_that_were_gone_a_day_ago_are_forgotten_unless_they_hold_a_run(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await scene.connect()
    holder = await scene.connect()
    await scene.trigger()
    await holder.dequeue_one()
    scene.later(23 * 3600)
    await workers.delete_old_workers(db, now=scene.now)
    assert len(await read(db, "SELECT id FROM workers")) == 2
    scene.later(2 * 3600)
    await workers.delete_old_workers(db, now=scene.now)
    rows = await read(db, "SELECT public_id FROM workers")
    assert [row["public_id"] for row in rows] == [holder.id]


async def test_a_lost_attempt_that_began_counts_and_one_given_back_does_not(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 2}))
    run_id = (await scene.trigger()).run_id
    for is_lost in (False, True, False):
        worker = await scene.connect()
        run = await worker.start_one()
        if is_lost:
            await scene.lose_workers()
        else:
            await worker.report(hand_back(run))
    worker = await scene.connect()
    await worker.report(fail(await worker.start_one()))
    found = await scene.get(run_id)
    assert (found.status, len(found.attempts)) == (RunStatus.FAILED, 4)
    await check_all_at_rest(db)

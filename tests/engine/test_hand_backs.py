"""Runs that their worker gives back, and canceled ones that it has stopped."""

from datetime import timedelta

import pytest

from runwell.core.errors import (
    StringError,
)
from runwell.core.statuses import AttemptStatus, RunStatus
from runwell.engine.db import Database
from tests.support.factories import (
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    start,
)


@pytest.mark.parametrize("is_started", [True, False])
async def test_a_run_given_back_starts_elsewhere_in_its_old_place(
    db: Database, is_started: bool
) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    ids = await scene.trigger_many(3)
    run = await (worker.start_one() if is_started else worker.dequeue_one())
    assert await worker.report(hand_back(run)) == ["accepted"]
    assert await scene.read_status(run.run_id) == "QUEUED/QUEUED"
    await check_consistency(db)
    other = await scene.connect()
    again = await other.dequeue(3)
    assert [found.run_id for found in again] == ids
    # An attempt that began keeps its number, and counts for nothing.
    assert again[0].attempt_number == (2 if is_started else 1)
    await other.report(complete(again[0]))
    found = await scene.get(run.run_id)
    assert found.status is RunStatus.COMPLETED
    assert [tried.status for tried in found.attempts] == (
        [AttemptStatus.FAILED, AttemptStatus.COMPLETED] if is_started else [AttemptStatus.COMPLETED]
    )
    await check_consistency(db)


async def test_a_run_given_back_many_times_still_has_all_its_attempts(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 2}))
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    for _ in range(5):
        await worker.report(hand_back(await worker.start_one()))
    await worker.report(fail(await worker.start_one(), retry_at=scene.now))
    assert await scene.read_status(run_id) == "QUEUED/REATTEMPTING"
    run = await worker.start_one()
    assert (run.attempt_number, run.counted_attempts) == (7, 2)
    await worker.report(fail(run))
    assert (await scene.get(run_id)).status is RunStatus.FAILED
    await check_all_at_rest(db)


async def test_a_canceled_report_of_a_run_that_is_not_canceled_gives_it_back(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    assert await worker.report(canceled(run)) == ["accepted"]
    assert await scene.read_status(run.run_id) == "QUEUED/QUEUED"
    await check_consistency(db)


@pytest.mark.parametrize("is_started", [True, False])
@pytest.mark.parametrize("way", ["complete", "fail", "hand_back", "canceled"])
async def test_a_canceled_run_stays_canceled_however_its_worker_ends_it(
    db: Database, way: str, is_started: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await (worker.start_one() if is_started else worker.dequeue_one())
    scene.later(1)
    assert (await scene.cancel(run.run_id)).worker_id == worker.id
    assert (await scene.get(run.run_id)).status is RunStatus.CANCELED
    await check_consistency(db)
    end = {"complete": complete, "fail": fail, "hand_back": hand_back, "canceled": canceled}[way]
    scene.later(1)
    assert await worker.report(start(run), end(run), end(run)) == ["accepted", "accepted", "stale"]
    found = await scene.get(run.run_id)
    assert (found.status, found.output) == (RunStatus.CANCELED, None)
    assert found.error == StringError(raw="Run was canceled by a user")
    assert found.finished_at == scene.now - timedelta(seconds=1)
    assert [tried.status for tried in found.attempts] == [AttemptStatus.CANCELED] * is_started
    await check_all_at_rest(db)

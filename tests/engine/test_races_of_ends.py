"""Races about who holds a run: an attempt ends while its lease does, a dequeue is sent again.

Which race is forced where: see `test_races.py`.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest

from runwell.core.protocol import DequeueBody, DequeuedRun, RunReport
from runwell.engine import maintenance, queues, timers, workers
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from tests.support.factories import (
    Scene,
    Supervisor,
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    read,
)
from tests.support.instants import NOW
from tests.support.races import in_order, in_order_of_death, old_snapshot

LATER = NOW + timedelta(days=1)
Taking = Callable[[Supervisor, Database], Awaitable[object]]


async def _lose(worker: Supervisor, db: Database) -> None:
    await workers.take_lost_runs(db, now=worker.scene.now)


async def _replace(worker: Supervisor, db: Database) -> None:
    await worker.scene.connect(previous=worker.id, db=db)


async def _disconnect(worker: Supervisor, db: Database) -> None:
    scene = worker.scene
    await workers.disconnect(db, scene.environment, worker.id, now=scene.now)


async def _forget(worker: Supervisor, db: Database) -> None:
    """It says that it lives, and doesn't know the run."""
    await worker.heartbeat(db=db)


#: What takes a run from its worker.
TAKINGS: dict[str, Taking] = {
    "lost": _lose,
    "replaced": _replace,
    "disconnected": _disconnect,
    "unknown": _forget,
}
#: How an attempt ends, and what becomes of its run by that, and when the run is taken before.
ENDS: dict[str, tuple[Callable[[DequeuedRun], RunReport], str, str]] = {
    "complete": (complete, "FINISHED/COMPLETED", "QUEUED/REATTEMPTING"),
    "fail": (partial(fail, skip_retrying=True), "FINISHED/FAILED", "QUEUED/REATTEMPTING"),
    "retry": (
        partial(fail, retry_at=LATER),
        "WAITING_TO_RETRY/REATTEMPTING",
        "QUEUED/REATTEMPTING",
    ),
    "hand back": (hand_back, "QUEUED/QUEUED", "QUEUED/REATTEMPTING"),
    "canceled": (canceled, "FINISHED/CANCELED", "FINISHED/CANCELED"),
}


_PAIRS = [("lost", end) for end in ENDS] + [(taking, "complete") for taking in TAKINGS][1:]


@pytest.mark.parametrize(("taking_name", "end_name"), _PAIRS)
@pytest.mark.parametrize("is_reported_first", [True, False])
async def test_of_the_end_of_an_attempt_and_the_taking_of_its_run_the_first_counts(
    db: Database, taking_name: str, end_name: str, is_reported_first: bool
) -> None:
    take = TAKINGS[taking_name]
    end, status, status_if_taken = ENDS[end_name]
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    run = await worker.start_one()
    if end is canceled:
        await scene.cancel(run_id)
    scene.later(100)

    async def tell(at: Database) -> list[str]:
        return await worker.report(end(run), db=at)

    if is_reported_first:
        words, _ = await in_order(db, tell, partial(take, worker))
    else:
        _, words = await in_order(db, partial(take, worker), tell)
    assert words == (["accepted"] if is_reported_first else ["stale"])
    assert await scene.read_status(run_id) == (status if is_reported_first else status_if_taken)
    events = await scene.read_events(run_id)
    # Whoever comes second changed nothing, and neither does what is done again.
    assert await tell(db) == ["stale"]
    await take(worker, db)
    assert await scene.read_events(run_id) == events
    await scene.cancel(run_id)
    await check_all_at_rest(db)


async def test_an_end_whose_answer_was_lost_is_not_undone_by_the_end_of_the_lease(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker, other = await scene.connect(), await scene.connect()
    for report, output in ((complete, "3"), (fail, None)):
        await worker.heartbeat()
        await scene.trigger()
        run = await worker.start_one()
        # It is committed, and the worker doesn't hear of it.
        assert await worker.report(report(run)) == ["accepted"]
        events = await scene.read_events(run.run_id)
        assert (await worker.heartbeat(run)).lost == [run.run_id]
        scene.later(100)
        await _lose(worker, db)
        assert await worker.report(report(run)) == ["stale"]
        assert await scene.read_events(run.run_id) == events
        assert (await scene.get(run.run_id)).output == output
        await scene.cancel(run.run_id)
    await other.heartbeat()
    assert await other.dequeue() == []
    await check_all_at_rest(db)


async def test_an_end_that_was_not_committed_comes_too_late_after_the_lease(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker, other = await scene.connect(), await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    scene.later(100)
    # The server dies with the report, while another one waits to take the run.
    await in_order_of_death(
        db, lambda held: worker.report(complete(run, "1"), db=held), partial(_lose, worker)
    )
    await other.heartbeat()
    again = await other.start_one()
    assert (again.run_id, again.attempt_number) == (run.run_id, 2)
    _, words = await in_order(
        db,
        lambda held: other.report(complete(again, "2"), db=held),
        lambda at: worker.report(complete(run, "1"), db=at),
    )
    assert words == ["stale"]
    assert (await scene.get(run.run_id)).output == "2"
    assert (await scene.read_events(run.run_id)).count("COMPLETE") == 1
    await check_all_at_rest(db)


async def test_a_heartbeat_hears_of_a_run_whose_end_is_on_its_way_only_after_that(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    scene.later(100)
    # It is named, since its end has no answer yet; so nobody takes it.
    _, heard = await in_order(
        db,
        lambda held: worker.report(complete(run), db=held),
        lambda at: worker.heartbeat(run, db=at),
        passes_over=True,
    )
    assert heard.lost == []
    assert (await worker.heartbeat(run)).lost == [run.run_id]
    # The lease was renewed: nothing else of the worker's is lost.
    assert await workers.take_lost_runs(db, now=scene.now) == set()
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_renewed_first", [True, False])
async def test_a_lease_that_is_renewed_while_its_runs_are_taken(
    db: Database, is_renewed_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    scene.later(100)

    async def renew(at: Database) -> list[str]:
        return (await worker.heartbeat(run, db=at)).lost

    if is_renewed_first:
        lost, _ = await in_order(db, renew, partial(_lose, worker), passes_over=True)
    else:
        _, lost = await in_order(db, partial(_lose, worker), renew)
    assert lost == ([] if is_renewed_first else [run.run_id])
    await _lose(worker, db)
    assert await worker.report(complete(run)) == (["accepted"] if is_renewed_first else ["stale"])
    await check_consistency(db)


async def test_a_lease_renewed_since_it_was_seen_to_have_ended_is_kept(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    scene.later(100)
    query = load_queries("workers").list_lost_runs
    async with old_snapshot(db, query, now=scene.now, most=10) as lost:
        await worker.heartbeat(run)
        assert await lost() == []


async def _ask(worker: Supervisor, db: Database, max_runs: int, *versions: str) -> list[str]:
    body = DequeueBody(
        worker_id=worker.id,
        request_id="again",
        background_worker_ids=list(versions),
        max_runs=max_runs,
    )
    scene = worker.scene
    given = await queues.dequeue_runs(db, scene.environment, body, now=scene.now)
    return [run.run_id for run in given]


@pytest.mark.parametrize("more", [0, 2])
async def test_a_dequeue_sent_again_while_it_is_carried_out_gives_the_same_runs(
    db: Database, more: int
) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(5)
    worker = await scene.connect()
    # Meanwhile a run of the worker may have ended: it asks for more.
    first, second = await in_order(
        db,
        lambda held: _ask(worker, held, 2, *worker.versions),
        lambda other: _ask(worker, other, 2 + more, *worker.versions),
    )
    assert first == second == ids[:2]
    await check_consistency(db)


async def test_a_dequeue_sent_again_with_another_version_gives_what_the_first_one_took(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    old = await scene.trigger(lockToVersion=scene.versions[0].version)
    await scene.register(make_task())
    new = await scene.trigger()
    worker = await scene.connect()
    first, second = await in_order(
        db,
        lambda held: _ask(worker, held, 5, worker.versions[0]),
        lambda other: _ask(worker, other, 5, *worker.versions),
    )
    assert first == second == [old.run_id]
    assert [run.run_id for run in await worker.dequeue()] == [new.run_id]
    # As a worker that is about to end asks, which can take nothing new.
    await scene.trigger()
    worker = await scene.connect()
    first, second = await in_order(
        db,
        lambda held: _ask(worker, held, 5, *worker.versions),
        lambda other: _ask(worker, other, 1),
    )
    assert first == second
    assert len(first) == 1


@pytest.mark.parametrize("is_expired_first", [True, False])
async def test_of_an_expiry_and_a_dequeue_the_first_has_the_run(
    db: Database, is_expired_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger(ttl="10s")).run_id

    async def dequeue(at: Database) -> list[DequeuedRun]:
        # By the clock of its server the run lives yet.
        return await worker.dequeue(db=at)

    async def expire(at: Database) -> int:
        return await timers.expire_due_runs(at, now=scene.now + timedelta(seconds=11))

    if is_expired_first:
        assert await in_order(db, expire, dequeue, passes_over=True) == (1, [])
        assert await worker.dequeue() == []
        assert await scene.read_status(run_id) == "FINISHED/EXPIRED"
    else:
        given, number = await in_order(db, dequeue, expire, passes_over=True)
        assert ([run.run_id for run in given], number) == ([run_id], 0)
        assert await expire(db) == 0
        await worker.report(complete(given[0]))
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_gone_first", [True, False])
async def test_a_worker_that_disconnects_while_it_dequeues_keeps_nothing(
    db: Database, is_gone_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker, other = await scene.connect(), await scene.connect()
    run_id = (await scene.trigger()).run_id

    async def dequeue(at: Database) -> list[str]:
        return [run.run_id for run in await worker.dequeue(db=at)]

    # Neither waits for the other one: the run is given, and its lease is over.
    order = (partial(_disconnect, worker), dequeue)
    await in_order(db, *(order if is_gone_first else order[::-1]), passes_over=True)
    assert await scene.read_status(run_id) == "PENDING_EXECUTING/DEQUEUED"
    await _lose(worker, db)
    (run,) = await other.dequeue()
    assert await other.report(complete(run)) == ["accepted"]
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_deployed_first", [True, False])
async def test_a_trigger_and_the_first_deploy_of_its_task_find_each_other(
    db: Database, is_deployed_first: bool
) -> None:
    scene = await make_scene(db)
    # The task's queue is there: else the trigger would wait for who makes it.
    await scene.trigger()

    async def trigger(at: Database) -> str:
        return (await scene.trigger(db=at)).run_id

    async def deploy(at: Database) -> None:
        await Scene(db=at, environment=scene.environment, now=scene.now).register(make_task())

    order = (deploy, trigger) if is_deployed_first else (trigger, deploy)
    await in_order(db, *order, passes_over=True)
    await maintenance.release_waiting_runs(db, now=scene.now)
    rows = await read(db, "SELECT execution_status FROM runs")
    assert [row["execution_status"] for row in rows] == ["QUEUED", "QUEUED"]
    await check_consistency(db)

"""Statements that saw a row, waited or were slow, and found the run in the same status again.

A statement reads a row again when it has locked it, but not the rows that this one is joined to:
those stay as they were when the statement began.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta

import asyncpg

from runwell.core.protocol import ReportBody
from runwell.core.waits import DateWait, RunsWait
from runwell.engine import attempts, timers, waitpoints
from runwell.engine.db import Database, Row
from runwell.engine.queries import load_queries, parse_queries
from tests.support.factories import (
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
from tests.support.waits import go_on


@contextlib.asynccontextmanager
async def _connection(db: Database) -> AsyncGenerator["asyncpg.Connection[Row]"]:
    connection = await asyncpg.connect(db.dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_run_given_back_while_a_dequeue_that_saw_it_waits_is_in_the_queue_once(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    one, other = await scene.connect(), await scene.connect()
    async with one_transaction(db) as held:
        (first,) = await one.dequeue(db=held)
        await one.report(hand_back(first), db=held)
        dequeuing = asyncio.create_task(other.dequeue())
        await wait_until_blocked(db)
    (second,) = await dequeuing
    assert second.run_id == run_id
    await check_consistency(db)
    assert await other.report(hand_back(second)) == ["accepted"]
    await check_consistency(db)
    assert [run.run_id for run in await one.dequeue()] == [run_id]


async def test_a_run_that_started_since_it_was_seen_to_expire_lives_on(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"min_timeout_in_ms": 0}))
    worker = await scene.connect()
    run_id = (await scene.trigger(ttl="10s")).run_id
    query = load_queries("timers").find_expired_runs
    values = query.arguments({"now": scene.now + timedelta(seconds=11), "most": 1})
    async with _connection(db) as connection, connection.transaction():
        # What it sees is settled now, what it locks when its rows are fetched.
        expired = await connection.cursor(query.text, *values)
        first = await worker.start_one()
        await worker.report(fail(first, retry_at=scene.now))
        await timers.enqueue_due_runs(db, now=scene.now)
        assert await expired.fetch(1) == []
    assert await scene.read_status(run_id) == "QUEUED/REATTEMPTING"
    await check_consistency(db)


async def test_a_run_that_begins_another_wait_while_a_look_at_it_waits_stays_blocked(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    soon = DateWait(wait_id="w1", date=scene.now + timedelta(seconds=1))
    await worker.wait(run, soon)
    scene.later(1)
    await waitpoints.complete_due_waitpoints(db, now=scene.now)
    await go_on(scene)
    (result,) = await worker.resume()
    assert result.wait_id == "w1"
    await read(db, "INSERT INTO run_wakes (run_id) SELECT id FROM runs RETURNING id")
    later = DateWait(wait_id="w2", date=scene.now + timedelta(seconds=60))
    async with one_transaction(db) as held:
        answer = await worker.wait(run, later, received=["w1"], db=held)
        assert answer.is_blocked
        looking = asyncio.create_task(go_on(scene))
        await wait_until_blocked(db)
    await looking
    assert await scene.read_status(run.run_id) == "EXECUTING_WITH_WAITPOINTS/FROZEN"
    await check_consistency(db)


async def test_a_report_that_waited_while_its_run_was_waited_for_lets_the_parent_continue(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    parent = await worker.start_one()
    await scene.trigger()
    child = await worker.start_one()
    async with one_transaction(db) as held:
        await worker.wait(parent, RunsWait(wait_id="w", run_ids=[child.run_id]), db=held)
        body = ReportBody(worker_id=worker.id, reports=[complete(child)])
        reporting = asyncio.create_task(
            attempts.apply_reports(db, scene.environment, body, now=scene.now)
        )
        await wait_until_blocked(db)
    # Else the parent would wait for the next look of a loop.
    assert (await reporting).lets_runs_continue
    await waitpoints.continue_runs(db, now=scene.now)
    assert await scene.read_status(parent.run_id) == "EXECUTING/EXECUTING"


async def test_what_decides_about_a_run_is_that_of_the_version_that_took_it_meanwhile(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    run_id = (await scene.trigger()).run_id
    (lock,) = parse_queries("-- name: lock\nSELECT id FROM runs WHERE id = :id FOR UPDATE")
    async with db.transaction() as tx:
        async with one_transaction(db) as held:
            await held.fetch(lock, id=run_id)
            locking = asyncio.create_task(attempts.lock_runs(tx, [run_id]))
            await wait_until_blocked(db)
            # All of this is after the other one has looked, and before it has the lock.
            meanwhile = Scene(db=held, environment=scene.environment, now=scene.now)
            await meanwhile.register(make_task(retry={"max_attempts": 7}))
            worker = await meanwhile.connect()
            (run,) = await worker.dequeue()
            assert run.run_id == run_id
        found = (await locking)[run_id]
    assert (found.max_attempts, found.worker_id) == (7, worker.id)

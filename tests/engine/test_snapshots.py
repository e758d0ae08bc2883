"""The history of a run, and the one place that its statuses are written in."""

import asyncpg
import pytest

from runwell.core.statuses import INITIAL, TRANSITIONS, ExecutionStatus, RunEvent
from runwell.engine import timers
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    read,
)

_ALLOWED = [(status, event) for status, events in TRANSITIONS.items() for event in events]
_REFUSED = [
    (status, event)
    for status in ExecutionStatus
    for event in RunEvent
    if event not in TRANSITIONS[status]
]


async def _apply(scene: Scene, run_id: str, event: RunEvent) -> None:
    await read(
        scene.db,
        "UPDATE runs SET event = :event, worker_id = coalesce(worker_id, "
        "CASE WHEN :event::text = 'DEQUEUE' THEN 1 END), "
        "finished_at = coalesce(finished_at, updated_at) WHERE id = :id RETURNING id",
        event=event.value,
        id=run_id,
    )


# The shortest way to each execution status, from a run that waits in its queue.
_WAYS: dict[ExecutionStatus, list[RunEvent]] = {
    ExecutionStatus.QUEUED: [],
    ExecutionStatus.RUN_CREATED: [RunEvent.AWAIT_VERSION],
    ExecutionStatus.PENDING_EXECUTING: [RunEvent.DEQUEUE],
    ExecutionStatus.EXECUTING: [RunEvent.DEQUEUE, RunEvent.START],
    ExecutionStatus.WAITING_TO_RETRY: [RunEvent.DEQUEUE, RunEvent.START, RunEvent.RETRY],
    ExecutionStatus.EXECUTING_WITH_WAITPOINTS: [
        RunEvent.DEQUEUE,
        RunEvent.START,
        RunEvent.BLOCK,
    ],
    ExecutionStatus.QUEUED_EXECUTING: [
        RunEvent.DEQUEUE,
        RunEvent.START,
        RunEvent.BLOCK,
        RunEvent.UNBLOCK,
    ],
    ExecutionStatus.SUSPENDED: [
        RunEvent.DEQUEUE,
        RunEvent.START,
        RunEvent.BLOCK,
        RunEvent.SUSPEND,
    ],
    ExecutionStatus.PENDING_CANCEL: [RunEvent.DEQUEUE, RunEvent.CANCEL],
    ExecutionStatus.FINISHED: [RunEvent.CANCEL],
}


async def _make_run(scene: Scene, status: ExecutionStatus) -> str:
    delay = "1h" if status is ExecutionStatus.DELAYED else None
    run_id = (await scene.trigger(delay=delay)).run_id
    for event in _WAYS.get(status, []):
        await _apply(scene, run_id, event)
    assert (await scene.read_status(run_id)).split("/")[0] == status
    return run_id


async def test_the_database_applies_every_transition_of_the_table(db: Database) -> None:
    scene = await make_scene(db, make_task())
    for status, event in _ALLOWED:
        run_id = await _make_run(scene, status)
        before = (await scene.read_status(run_id)).split("/")[1]
        await _apply(scene, run_id, event)
        moved = TRANSITIONS[status][event]
        assert await scene.read_status(run_id) == (
            f"{moved.execution_status}/{moved.run_status or before}"
        )
        assert (await scene.read_events(run_id))[-1] == event


async def test_the_database_refuses_every_event_that_the_table_lacks(db: Database) -> None:
    scene = await make_scene(db, make_task())
    runs = {status: await _make_run(scene, status) for status in ExecutionStatus}
    for status, event in _REFUSED:
        with pytest.raises(asyncpg.PostgresError, match="can't happen to it there") as refused:
            await _apply(scene, runs[status], event)
        assert refused.value.sqlstate == "RW001"
        assert f"run {runs[status]} is {status}: {event} " in str(refused.value)


@pytest.mark.parametrize("status", [status for status in ExecutionStatus if status not in INITIAL])
async def test_a_run_can_not_begin_in_the_middle(db: Database, status: ExecutionStatus) -> None:
    with pytest.raises(asyncpg.PostgresError, match="is new: TRIGGER can't happen") as refused:
        await read(
            db,
            "INSERT INTO runs (id, environment_id, task_id, execution_status, status, snapshot_id, "
            "queue_id, subqueue_id, order_at, payload_type, created_at, updated_at) "
            "VALUES ('run_x', 1, 'a', :status, 'QUEUED', 0, 1, 1, now(), '', now(), now()) "
            "RETURNING id",
            status=status.value,
        )
    assert refused.value.sqlstate == "RW001"


async def test_the_history_of_a_run_is_complete(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger(delay="1s")).run_id
    scene.later(1)
    await timers.enqueue_due_runs(db, now=scene.now)
    worker = await scene.connect()
    await worker.report(fail(await worker.start_one(), at=scene.now))
    scene.later(1)
    await timers.enqueue_due_runs(db, now=scene.now)
    await worker.report(complete(await worker.start_one()))
    rows = await read(
        db,
        "SELECT s.event, s.execution_status, s.status, s.attempt_number, w.public_id "
        "FROM run_snapshots s LEFT JOIN workers w ON w.id = s.worker_id "
        "WHERE s.run_id = :id ORDER BY s.id",
        id=run_id,
    )
    assert [tuple(row) for row in rows] == [
        ("TRIGGER", "DELAYED", "DELAYED", 0, None),
        ("ENQUEUE", "QUEUED", "QUEUED", 0, None),
        ("DEQUEUE", "PENDING_EXECUTING", "DEQUEUED", 1, worker.id),
        ("START", "EXECUTING", "EXECUTING", 1, worker.id),
        ("RETRY", "WAITING_TO_RETRY", "REATTEMPTING", 1, worker.id),
        ("ENQUEUE", "QUEUED", "REATTEMPTING", 1, None),
        ("DEQUEUE", "PENDING_EXECUTING", "DEQUEUED", 2, worker.id),
        ("START", "EXECUTING", "EXECUTING", 2, worker.id),
        ("COMPLETE", "FINISHED", "COMPLETED", 2, worker.id),
    ]
    await check_consistency(db)


async def test_a_change_without_an_event_leaves_no_snapshot(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    await read(db, "UPDATE runs SET tags = '{x}' WHERE id = :id RETURNING id", id=run_id)
    assert await scene.read_events(run_id) == ["TRIGGER"]

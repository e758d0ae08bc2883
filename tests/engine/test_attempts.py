"""What reports do to runs, and what becomes of runs whose worker is lost."""

import pytest

from runwell.core.errors import ErrorCode, InternalError
from runwell.core.protocol import CapturedLine, HeartbeatBody, HeldRun, LogsReport
from runwell.core.statuses import AttemptStatus, RunEvent, RunStatus
from runwell.engine import attempts, runs, timers, workers
from runwell.engine.db import Database
from tests.support.factories import ERROR, World, make_task


async def test_a_run_that_starts_and_returns_is_completed(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    assert (await world.get(run_id)).status is RunStatus.DEQUEUED
    assert await world.report(world.started(run)) == ["accepted"]
    assert (await world.get(run_id)).status is RunStatus.EXECUTING
    assert await world.report(world.completed(run, '{"a":1}')) == ["accepted"]
    found = await world.get(run_id)
    assert (found.status, found.output, found.duration_ms) == (RunStatus.COMPLETED, '{"a":1}', 5)
    assert [attempt.status for attempt in found.attempts] == [AttemptStatus.COMPLETED]
    await world.assert_counts_are_right(0)


async def test_an_end_stands_in_for_a_start_that_was_lost(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.completed(run))
    found = await world.get(run_id)
    assert found.started_at == world.now
    history = await world.fetch(
        "SELECT event FROM run_snapshots WHERE run_id = $1 ORDER BY id", run_id
    )
    assert [row["event"] for row in history] == ["TRIGGER", "DEQUEUE", "START", "COMPLETE"]


async def test_a_result_that_is_sent_again_is_stale_and_changes_nothing(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    assert await world.report(world.completed(run, "1")) == ["accepted"]
    assert await world.report(world.completed(run, "2"), world.failed(run)) == ["stale", "stale"]
    assert (await world.get(run_id)).output == "1"


async def test_a_late_worker_can_not_end_the_attempt_of_another_one(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [late] = await world.dequeue()
    await world.report(world.handed_back(late))
    [now_held] = await world.dequeue()
    assert await world.report(world.completed(late, '"late"')) == ["stale"]
    await world.report(world.completed(now_held, '"good"'))
    assert (await world.get(run_id)).output == '"good"'


async def test_a_failed_attempt_is_tried_again_after_its_backoff(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    for attempt in (1, 2):
        [run] = await world.dequeue()
        assert run.attempt_number == attempt
        await world.report(world.failed(run))
        assert (await world.get(run_id)).status is RunStatus.REATTEMPTING
        assert (await timers.enqueue_due_runs(db, now=world.now))[0] == 0
        world.later(2.0 ** (attempt - 1))
        assert (await timers.enqueue_due_runs(db, now=world.now))[0] == 1
    [run] = await world.dequeue()
    await world.report(world.failed(run))
    found = await world.get(run_id)
    assert found.status is RunStatus.FAILED
    assert found.error == ERROR
    assert [attempt.status for attempt in found.attempts] == [AttemptStatus.FAILED] * 3


async def test_a_failure_can_say_when_to_retry_or_that_nothing_follows(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.failed(run, retry_at=world.now))
    [run] = await world.dequeue()
    await world.report(world.failed(run, skip_retrying=True))
    assert (await world.get(run_id)).status is RunStatus.FAILED


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCode.MAX_DURATION_EXCEEDED, RunStatus.TIMED_OUT),
        (ErrorCode.TASK_PROCESS_OOM_KILLED, RunStatus.CRASHED),
        (ErrorCode.COULD_NOT_FIND_TASK, RunStatus.SYSTEM_FAILURE),
    ],
)
async def test_errors_that_are_not_retried_end_the_run_at_once(
    db: Database, code: ErrorCode, status: RunStatus
) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.failed(run, InternalError(code=code)))
    assert (await world.get(run_id)).status is status


def test_every_error_code_has_an_end() -> None:
    for code in ErrorCode:
        for is_development in (True, False):
            event = attempts.decide_failure(
                InternalError(code=code),
                attempts_left=0,
                skip_retrying=False,
                is_development=is_development,
            )
            assert event not in (RunEvent.RETRY, RunEvent.FAIL)


async def test_an_output_that_can_not_be_stored_fails_the_run(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.completed(run, '"\x00"'))
    found = await world.get(run_id)
    assert isinstance(found.error, InternalError)
    assert found.error.code is ErrorCode.TASK_OUTPUT_ERROR


async def test_lines_are_stored_once_and_without_what_no_database_holds(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    lines = LogsReport(
        run_id=run_id,
        snapshot_id=run.snapshot_id,
        attempt_number=1,
        lines=[
            CapturedLine(
                seq=n, time=world.now, level="INFO", message="a\x00", attributes={"k": "\x00"}
            )
            for n in (1, 2, 3)
        ],
    )
    assert await world.report(world.started(run), lines, lines) == ["accepted"] * 3
    async with db.transaction() as tx:
        first = await runs.read_logs(tx, world.environment, run_id, after=None, limit=2)
        rest = await runs.read_logs(tx, world.environment, run_id, after=first.next, limit=2)
    assert [line.seq for line in first.data + rest.data] == [1, 2, 3]
    assert first.data[0].message == "a\ufffd"


async def test_a_queued_run_is_canceled_at_once_and_never_given_out(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    assert await world.cancel(run_id) is None
    assert (await world.get(run_id)).status is RunStatus.CANCELED
    assert await world.dequeue() == []
    assert await world.cancel(run_id) is None


async def test_an_executing_run_keeps_its_slot_until_its_worker_says_that_it_stopped(
    db: Database,
) -> None:
    world = await World.make(db, make_task("one", limit=1))
    run_id = await world.trigger("one")
    [run] = await world.dequeue()
    await world.report(world.started(run))
    assert await world.cancel(run_id) == world.worker_id
    assert (await world.get(run_id)).status is RunStatus.CANCELED
    await world.trigger("one")
    assert await world.dequeue() == []
    heard = await workers.heartbeat(
        db,
        world.environment,
        HeartbeatBody(
            worker_id=world.worker_id, runs=[HeldRun(run_id=run_id, snapshot_id=run.snapshot_id)]
        ),
        now=world.now,
    )
    assert heard.canceled == [run_id]
    await world.report(world.stopped(run))
    assert len(await world.dequeue()) == 1


async def test_a_run_that_returns_in_the_instant_of_its_cancel_stays_canceled(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.started(run))
    await world.cancel(run_id)
    assert await world.report(world.completed(run)) == ["accepted"]
    assert (await world.get(run_id)).status is RunStatus.CANCELED
    await world.assert_counts_are_right(0)


async def test_a_lost_workers_runs_go_on_elsewhere(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    not_started, executing = await world.trigger("add"), await world.trigger("add")
    taken = {run.run_id: run for run in await world.dequeue()}
    await world.report(world.started(taken[executing]))
    world.later(60)
    assert await workers.take_lost_runs(db, now=world.now) == {world.environment.id}
    await world.assert_counts_are_right(0)
    await world.connect()
    again = {run.run_id: run for run in await world.dequeue()}
    assert again[not_started].attempt_number == 1
    assert again[executing].attempt_number == 2


@pytest.mark.parametrize(
    ("slug", "status"), [("prod", RunStatus.CRASHED), ("dev", RunStatus.INTERRUPTED)]
)
async def test_a_lost_workers_last_attempt_is_not_made_twice(
    db: Database, slug: str, status: RunStatus
) -> None:
    world = await World.make(db, make_task("add"), slug=slug)
    run_id = await world.trigger("add", max_attempts=1)
    [run] = await world.dequeue()
    await world.report(world.started(run))
    world.later(60)
    await workers.take_lost_runs(db, now=world.now)
    assert (await world.get(run_id)).status is status


async def test_a_worker_that_outlived_an_outage_keeps_its_runs(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    [run] = await world.dequeue()
    await world.report(world.started(run))
    world.later(60)
    held = HeldRun(run_id=run_id, snapshot_id=run.snapshot_id)
    body = HeartbeatBody(worker_id=world.worker_id, runs=[held])
    heard = await workers.heartbeat(db, world.environment, body, now=world.now)
    assert (heard.lost, heard.canceled) == ([], [])
    assert await workers.take_lost_runs(db, now=world.now) == set()
    assert await world.report(world.completed(run)) == ["accepted"]


async def test_the_successor_of_a_killed_worker_takes_its_runs_over_at_once(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    await world.dequeue()
    await world.connect(previous=world.worker_id)
    assert [run.run_id for run in await world.dequeue()] == [run_id]


async def test_a_run_that_its_worker_never_heard_of_goes_elsewhere(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add")
    await world.dequeue()
    body = HeartbeatBody(worker_id=world.worker_id, runs=[])
    await workers.heartbeat(db, world.environment, body, now=world.now)
    assert (await world.get(run_id)).status is RunStatus.DEQUEUED
    world.later(20)
    await workers.heartbeat(db, world.environment, body, now=world.now)
    assert (await world.get(run_id)).status is RunStatus.QUEUED


async def test_a_run_that_is_given_back_starts_again_without_losing_an_attempt(
    db: Database,
) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add", max_attempts=1)
    [run] = await world.dequeue()
    await world.report(world.started(run))
    await world.report(world.handed_back(run))
    [run] = await world.dequeue()
    assert run.attempt_number == 2
    await world.report(world.failed(run))
    found = await world.get(run_id)
    assert found.status is RunStatus.FAILED
    assert len(found.attempts) == 2

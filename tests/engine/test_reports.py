"""Reports in every order and again: how attempts end, and what errors and outputs become."""

from datetime import timedelta
from itertools import permutations

import pytest

from runwell.core.errors import (
    MAX_ERROR_CHARACTERS,
    RETRIED_CODES,
    SYSTEM_CODES,
    BuiltInError,
    CustomError,
    ErrorCode,
    InternalError,
    StringError,
    TaskRunError,
)
from runwell.core.payloads import MAX_OUTPUT_BYTES
from runwell.core.protocol import (
    CompleteReport,
    RunReport,
)
from runwell.core.statuses import AttemptStatus, RunEvent, RunStatus
from runwell.core.timing import MAX_ATTEMPTS
from runwell.engine import timers
from runwell.engine.db import Database
from runwell.engine.retrying import decide_failure
from tests.support.factories import (
    ERROR,
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    hand_back,
    make_scene,
    make_task,
    read,
    start,
    write_lines,
)


async def test_a_run_that_returns_keeps_its_output_and_its_times(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.dequeue_one()
    began, ended = scene.later(1), scene.later(2)
    report = CompleteReport(
        run_id=run.run_id,
        snapshot_id=run.snapshot_id,
        output='{"sum":3}',
        started_at=began,
        finished_at=ended,
        duration_ms=2000,
    )
    assert await worker.report(start(run, began), report) == ["accepted", "accepted"]
    found = await scene.get(run.run_id)
    assert found.status is RunStatus.COMPLETED
    assert (found.output, found.output_type) == ('{"sum":3}', "application/json")
    assert (found.started_at, found.finished_at, found.duration_ms) == (began, ended, 2000)
    assert found.version == scene.versions[0].version
    (attempt,) = found.attempts
    assert attempt.status is AttemptStatus.COMPLETED
    assert (attempt.number, attempt.started_at, attempt.completed_at) == (1, began, ended)
    assert attempt.id == run.attempt_id
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_failure", [True, False])
async def test_an_end_stands_in_for_a_start_that_was_lost(db: Database, is_failure: bool) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.dequeue_one()
    await worker.report(fail(run) if is_failure else complete(run))
    assert await scene.read_events(run.run_id) == [
        "TRIGGER",
        "DEQUEUE",
        "START",
        "FAIL" if is_failure else "COMPLETE",
    ]
    assert len((await scene.get(run.run_id)).attempts) == 1
    await check_all_at_rest(db)


async def test_whatever_the_order_of_reports_a_run_ends_once(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    for order in permutations(range(5)):
        await scene.trigger()
        run = await worker.dequeue_one()
        reports: list[RunReport] = [
            start(run),
            write_lines(run, "hi"),
            complete(run),
            fail(run),
            write_lines(run, "ho", first=2),
        ]
        await worker.report(*(reports[number] for number in order))
        ends = [number for number in order if number in (2, 3)]
        expected = RunStatus.COMPLETED if ends[0] == 2 else RunStatus.FAILED
        assert (await scene.get(run.run_id)).status is expected
    await check_all_at_rest(db)


async def test_reports_one_by_one_and_again_change_nothing_more(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.dequeue_one()
    assert await worker.report(start(run)) == ["accepted"]
    assert await worker.report(start(run)) == ["accepted"]
    assert await worker.report(complete(run, "1")) == ["accepted"]
    before = await scene.get(run.run_id)
    for late in (start(run), complete(run, "2"), fail(run), hand_back(run), canceled(run)):
        assert await worker.report(late) == ["stale"]
    assert await worker.report(write_lines(run, "late")) == ["stale"]
    assert await scene.get(run.run_id) == before
    await check_all_at_rest(db)


async def test_reports_of_an_earlier_lease_are_stale(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    first = await worker.start_one()
    await worker.report(hand_back(first))
    second = await worker.start_one()
    assert (first.run_id, first.snapshot_id < second.snapshot_id) == (second.run_id, True)
    assert await worker.report(complete(first), complete(second)) == ["stale", "accepted"]
    await check_all_at_rest(db)


async def test_reports_of_runs_that_are_unknown_or_elsewhere_are_stale(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    worker, stranger = await scene.connect(), await of_dev.connect()
    await scene.trigger()
    run = await worker.start_one()
    unknown = run.model_copy(update={"run_id": "run_unknown"})
    assert await stranger.report(complete(run)) == ["stale"]
    assert await worker.report(complete(unknown), complete(run)) == ["stale", "accepted"]


async def test_reports_of_many_runs_travel_together(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    await scene.trigger_many(10)
    held = await worker.dequeue(10)
    reports = [fail(run) if number % 2 else complete(run) for number, run in enumerate(held)]
    assert await worker.report(*map(start, reversed(held)), *reversed(reports)) == ["accepted"] * 20
    for number, run in enumerate(held):
        assert (await scene.get(run.run_id)).status == ("FAILED" if number % 2 else "COMPLETED")
    await check_all_at_rest(db)


async def test_no_reports_at_all_are_fine(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    assert await worker.report() == []


async def test_retries_follow_after_their_backoff_until_there_were_enough(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 3, "min_timeout_in_ms": 1000}))
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    for number, backoff in ((1, 1), (2, 2)):
        run = await worker.start_one()
        assert (run.attempt_number, run.max_attempts) == (number, 3)
        await worker.report(fail(run, at=scene.now))
        assert await scene.read_status(run_id) == "WAITING_TO_RETRY/REATTEMPTING"
        assert (await scene.get(run_id)).error is None
        scene.later(backoff - 0.01)
        assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
        scene.later(0.01)
        assert await timers.enqueue_due_runs(db, now=scene.now) == (1, {scene.environment.id})
        assert await scene.read_status(run_id) == "QUEUED/REATTEMPTING"
        await check_consistency(db)
    run = await worker.start_one()
    await worker.report(fail(run, at=scene.now))
    found = await scene.get(run_id)
    assert (found.status, found.error, found.duration_ms) == (RunStatus.FAILED, ERROR, 15)
    assert [(tried.number, tried.status, tried.error) for tried in found.attempts] == [
        (number, AttemptStatus.FAILED, ERROR) for number in (1, 2, 3)
    ]
    await check_all_at_rest(db)


async def test_the_triggers_max_attempts_goes_before_the_tasks(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 5}))
    worker = await scene.connect()
    await scene.trigger(maxAttempts=1)
    run = await worker.start_one()
    assert run.max_attempts == 1
    await worker.report(fail(run))
    assert (await scene.get(run.run_id)).status is RunStatus.FAILED


async def test_a_failure_may_say_when_to_retry(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(fail(run, retry_at=scene.now + timedelta(minutes=5)))
    scene.later(299)
    assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 0
    scene.later(1)
    assert (await timers.enqueue_due_runs(db, now=scene.now))[0] == 1


async def test_a_retry_that_the_task_itself_asks_for_goes_beyond_its_options(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    for _ in range(3):
        await worker.report(fail(await worker.start_one(), retry_at=scene.now))
        assert await scene.read_status(run_id) == "QUEUED/REATTEMPTING"
    # But not for ever.
    await read(
        db,
        "UPDATE runs SET attempt_number = :last WHERE id = :id RETURNING id",
        last=MAX_ATTEMPTS - 1,
        id=run_id,
    )
    await worker.report(fail(await worker.start_one(), retry_at=scene.now))
    assert (await scene.get(run_id)).status is RunStatus.FAILED
    await check_all_at_rest(db)


async def test_a_retry_that_is_due_is_queued_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(fail(run, retry_at=scene.now))
    assert await scene.read_status(run.run_id) == "QUEUED/REATTEMPTING"
    assert (await worker.dequeue_one()).attempt_number == 2
    await check_consistency(db)


async def test_a_failure_may_say_that_nothing_follows(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(fail(run, skip_retrying=True, retry_at=scene.now))
    assert (await scene.get(run.run_id)).status is RunStatus.FAILED
    await check_all_at_rest(db)


ENDS: dict[RunEvent, RunStatus] = {
    RunEvent.FAIL: RunStatus.FAILED,
    RunEvent.CRASH: RunStatus.CRASHED,
    RunEvent.TIME_OUT: RunStatus.TIMED_OUT,
    RunEvent.SYSTEM_FAIL: RunStatus.SYSTEM_FAILURE,
    RunEvent.INTERRUPT: RunStatus.INTERRUPTED,
}


def expected_end(code: ErrorCode, *, is_development: bool) -> RunEvent:
    """The table of `protocol.md` 3.6, written another way."""
    if code is ErrorCode.MAX_DURATION_EXCEEDED:
        return RunEvent.TIME_OUT
    if code in SYSTEM_CODES:
        return RunEvent.SYSTEM_FAIL
    if code is ErrorCode.TASK_RUN_HEARTBEAT_TIMEOUT and is_development:
        return RunEvent.INTERRUPT
    return RunEvent.CRASH


@pytest.mark.parametrize("is_development", [True, False])
@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_end(code: ErrorCode, is_development: bool) -> None:
    error = InternalError(code=code)
    end = expected_end(code, is_development=is_development)

    def decide(attempts_left: int, *, skip_retrying: bool) -> RunEvent:
        return decide_failure(
            error,
            attempts_left=attempts_left,
            skip_retrying=skip_retrying,
            is_development=is_development,
        )

    assert decide(0, skip_retrying=False) is end
    assert decide(-1, skip_retrying=False) is end
    assert decide(1, skip_retrying=True) is end
    assert decide(1, skip_retrying=False) is (RunEvent.RETRY if code in RETRIED_CODES else end)


@pytest.mark.parametrize("error", [ERROR, StringError(raw="no"), CustomError(raw="{}")])
def test_errors_of_the_users_own_are_retried_and_then_fail(error: TaskRunError) -> None:
    for left, event in ((1, RunEvent.RETRY), (0, RunEvent.FAIL)):
        decided = decide_failure(
            error, attempts_left=left, skip_retrying=False, is_development=False
        )
        assert decided is event


async def test_every_code_ends_a_run_with_its_status(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    for code in ErrorCode:
        await scene.trigger()
        run = await worker.start_one()
        await worker.report(fail(run, InternalError(code=code, message="why")))
        found = await scene.get(run.run_id)
        assert found.status is ENDS[expected_end(code, is_development=False)]
        assert found.error == InternalError(code=code, message="why")
    await check_all_at_rest(db)


async def test_an_output_that_is_too_large_fails_the_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    # In bytes, not in characters.
    await worker.report(complete(run, '"' + "ü" * (MAX_OUTPUT_BYTES // 2) + '"'))
    found = await scene.get(run.run_id)
    assert (found.status, found.output) == (RunStatus.CRASHED, None)
    assert isinstance(found.error, InternalError)
    assert found.error.code is ErrorCode.TASK_OUTPUT_ERROR
    assert "10485762 bytes, and 10485760 is the most" in str(found.error.message)
    await check_all_at_rest(db)


async def test_an_output_with_a_nul_fails_the_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger_many(2)
    held = await worker.dequeue(2)
    assert await worker.report(complete(held[0], "a\x00"), complete(held[1], None)) == [
        "accepted",
        "accepted",
    ]
    found = await scene.get(held[0].run_id)
    assert found.status is RunStatus.CRASHED
    assert isinstance(found.error, InternalError)
    assert "NUL" in str(found.error.message)
    assert (await scene.get(held[1].run_id)).status is RunStatus.COMPLETED
    await check_all_at_rest(db)


@pytest.mark.parametrize(
    "error",
    [
        BuiltInError(name="E\x00" * 1000, message="m\x00" * 90_000, stack_trace="s\x00" * 90_000),
        StringError(raw="\x00" * 90_000),
        CustomError(raw="\x00" * 90_000),
        InternalError(
            code=ErrorCode.TASK_EXECUTION_FAILED, message="\x00" * 90_000, stack_trace="\x00"
        ),
    ],
)
async def test_errors_are_clipped_and_fit_for_the_database(
    db: Database, error: TaskRunError
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(fail(run, error, skip_retrying=True))
    found = await scene.get(run.run_id)
    assert found.error is not None
    texts = [text for text in found.error.model_dump().values() if isinstance(text, str)]
    assert max(map(len, texts)) <= MAX_ERROR_CHARACTERS
    assert not any("\x00" in text for text in texts)
    assert any("characters cut" in text for text in texts)
    assert found.attempts[0].error == found.error

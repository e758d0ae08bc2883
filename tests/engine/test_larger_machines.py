"""A run whose memory ran out goes on once on the larger machine that its task names."""

from typing import Any

import pytest

from runwell.core.errors import ErrorCode, InternalError
from runwell.core.machines import MachineName
from runwell.core.protocol import MachineManifest
from runwell.core.statuses import RunEvent, RunStatus
from runwell.core.timing import RetryOptions, larger_machine
from runwell.engine import replays, timers
from runwell.engine.db import Database
from runwell.engine.retrying import decide_failure
from tests.support.factories import (
    ERROR,
    Scene,
    Supervisor,
    check_all_at_rest,
    complete,
    fail,
    make_scene,
    make_task,
)

KILLED = InternalError(code=ErrorCode.TASK_PROCESS_OOM_KILLED, message="out of memory")
MAYBE_KILLED = InternalError(code=ErrorCode.TASK_PROCESS_MAYBE_OOM_KILLED)


def _task(machine: str = "micro", larger: str = "large-1x", **retry: Any) -> Any:
    return make_task(
        machine=MachineManifest(preset=MachineName(machine)),
        retry={"out_of_memory": {"machine": larger}, **retry},
    )


async def _next_attempt(scene: Scene, worker: Supervisor) -> str:
    """Let the backoff pass, start the next attempt and return its machine."""
    scene.later(5)
    await timers.enqueue_due_runs(scene.db, now=scene.now)
    return (await worker.start_one()).machine


@pytest.mark.parametrize("error", [KILLED, MAYBE_KILLED])
async def test_a_run_goes_on_on_the_larger_machine_and_stays_there(
    db: Database, error: InternalError
) -> None:
    scene = await make_scene(db, _task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    assert run.machine == "micro"
    await worker.report(fail(run, error))
    assert await scene.read_status(run.run_id) == "WAITING_TO_RETRY/REATTEMPTING"
    scene.later(5)
    await timers.enqueue_due_runs(db, now=scene.now)
    second = await worker.start_one()
    assert second.machine == "large-1x"
    await worker.report(fail(second))
    scene.later(5)
    await timers.enqueue_due_runs(db, now=scene.now)
    third = await worker.start_one()
    assert third.machine == "large-1x"
    await worker.report(complete(third))
    found = await scene.get(run.run_id)
    assert [attempt.machine for attempt in found.attempts] == ["micro", "large-1x", "large-1x"]
    assert found.status is RunStatus.COMPLETED
    await check_all_at_rest(db)


async def test_memory_that_runs_out_on_the_larger_machine_too_ends_the_run(db: Database) -> None:
    scene = await make_scene(db, _task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    await worker.report(fail(await worker.start_one(), KILLED))
    scene.later(5)
    await timers.enqueue_due_runs(db, now=scene.now)
    await worker.report(fail(await worker.start_one(), KILLED))
    found = await scene.get(run_id)
    assert (found.status, found.error) == (RunStatus.CRASHED, KILLED)
    assert len(found.attempts) == 2


async def test_the_larger_machine_is_tried_even_after_the_last_attempt(db: Database) -> None:
    scene = await make_scene(db, _task(max_attempts=1))
    worker = await scene.connect()
    await scene.trigger()
    await worker.report(fail(await worker.start_one(), KILLED))
    assert await _next_attempt(scene, worker) == "large-1x"


async def test_a_machine_chosen_by_the_trigger_that_is_as_large_is_the_last(db: Database) -> None:
    scene = await make_scene(db, _task())
    worker = await scene.connect()
    run_id = (await scene.trigger(machine="large-2x")).run_id
    await worker.report(fail(await worker.start_one(), KILLED))
    assert (await scene.get(run_id)).status is RunStatus.CRASHED


async def test_a_replay_begins_on_the_machine_of_the_task_again(db: Database) -> None:
    scene = await make_scene(db, _task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    await worker.report(fail(await worker.start_one(), KILLED))
    await replays.replay_run(db, scene.environment, run_id, now=scene.now)
    assert (await worker.start_one()).machine == "micro"


async def test_without_a_larger_machine_memory_that_ran_out_ends_the_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = (await scene.trigger()).run_id
    await worker.report(fail(await worker.start_one(), KILLED))
    assert (await scene.get(run_id)).status is RunStatus.CRASHED


def test_only_memory_that_ran_out_gets_an_attempt_beyond_the_last() -> None:
    for error, skip_retrying, event in (
        (KILLED, False, RunEvent.RETRY),
        (KILLED, True, RunEvent.CRASH),
        (ERROR, False, RunEvent.FAIL),
    ):
        decided = decide_failure(
            error,
            attempts_left=0,
            skip_retrying=skip_retrying,
            is_development=False,
            has_larger_machine=True,
        )
        assert decided is event


def test_a_larger_machine_has_more_memory() -> None:
    options = RetryOptions.model_validate({"outOfMemory": {"machine": "medium-1x"}})
    larger = {name for name in MachineName if larger_machine(options, name) is not None}
    assert larger == {MachineName.MICRO, MachineName.SMALL_1X, MachineName.SMALL_2X}
    assert larger_machine(RetryOptions(), MachineName.MICRO) is None

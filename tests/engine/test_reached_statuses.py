"""Every status of the documentation can be reached by what really happens to a run."""

from collections.abc import Awaitable, Callable

import pytest

from runwell.core.errors import ErrorCode, InternalError
from runwell.core.statuses import RunStatus
from runwell.engine.db import Database
from runwell.engine.timers import expire_due_runs
from tests.support.factories import (
    Scene,
    Supervisor,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
)

Reach = Callable[[Scene, Supervisor], Awaitable[str]]


async def _start(scene: Scene, worker: Supervisor) -> str:
    await scene.trigger()
    return (await worker.start_one()).run_id


async def _wait_for_deploy(scene: Scene, worker: Supervisor) -> str:
    return (await scene.trigger("unknown")).run_id


async def _be_delayed(scene: Scene, worker: Supervisor) -> str:
    return (await scene.trigger(delay="1h")).run_id


async def _be_queued(scene: Scene, worker: Supervisor) -> str:
    return (await scene.trigger()).run_id


async def _be_dequeued(scene: Scene, worker: Supervisor) -> str:
    await scene.trigger()
    return (await worker.dequeue_one()).run_id


async def _end(scene: Scene, worker: Supervisor, code: ErrorCode | None, attempts: int = 1) -> str:
    await scene.trigger(maxAttempts=attempts)
    run = await worker.start_one()
    if code is None:
        await worker.report(fail(run))
    else:
        await worker.report(fail(run, InternalError(code=code)))
    return run.run_id


async def _reattempt(scene: Scene, worker: Supervisor) -> str:
    return await _end(scene, worker, None, attempts=2)


async def _complete(scene: Scene, worker: Supervisor) -> str:
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(complete(run))
    return run.run_id


async def _be_canceled(scene: Scene, worker: Supervisor) -> str:
    run_id = await _start(scene, worker)
    await scene.cancel(run_id)
    return run_id


async def _fail(scene: Scene, worker: Supervisor) -> str:
    return await _end(scene, worker, None)


async def _crash(scene: Scene, worker: Supervisor) -> str:
    return await _end(scene, worker, ErrorCode.TASK_PROCESS_OOM_KILLED)


async def _fail_of_the_system(scene: Scene, worker: Supervisor) -> str:
    return await _end(scene, worker, ErrorCode.COULD_NOT_FIND_TASK)


async def _time_out(scene: Scene, worker: Supervisor) -> str:
    return await _end(scene, worker, ErrorCode.MAX_DURATION_EXCEEDED)


async def _expire(scene: Scene, worker: Supervisor) -> str:
    run_id = (await scene.trigger(ttl="1m")).run_id
    scene.later(61)
    await expire_due_runs(scene.db, now=scene.now)
    return run_id


async def _be_interrupted(scene: Scene, worker: Supervisor) -> str:
    await scene.trigger(maxAttempts=1)
    run = await worker.start_one()
    await worker.disconnect()
    return run.run_id


_REACHED: dict[RunStatus, Reach] = {
    RunStatus.WAITING_FOR_DEPLOY: _wait_for_deploy,
    RunStatus.DELAYED: _be_delayed,
    RunStatus.QUEUED: _be_queued,
    RunStatus.DEQUEUED: _be_dequeued,
    RunStatus.EXECUTING: _start,
    RunStatus.REATTEMPTING: _reattempt,
    RunStatus.COMPLETED: _complete,
    RunStatus.CANCELED: _be_canceled,
    RunStatus.FAILED: _fail,
    RunStatus.CRASHED: _crash,
    RunStatus.SYSTEM_FAILURE: _fail_of_the_system,
    RunStatus.TIMED_OUT: _time_out,
    RunStatus.EXPIRED: _expire,
    RunStatus.INTERRUPTED: _be_interrupted,
}


@pytest.mark.parametrize("status", _REACHED)
async def test_a_status_is_reached_by_what_happens_to_a_run(
    db: Database, status: RunStatus
) -> None:
    slug = "dev" if status is RunStatus.INTERRUPTED else "prod"
    scene = await make_scene(db, make_task(), slug=slug)
    worker = await scene.connect()
    run_id = await _REACHED[status](scene, worker)
    assert (await scene.get(run_id)).status is status
    await check_consistency(db)


def test_no_status_is_left_out() -> None:
    # What waits is reached in `test_waits`.
    assert set(_REACHED) == set(RunStatus) - {RunStatus.FROZEN}


async def test_in_production_a_worker_that_is_gone_is_a_crash(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_id = await _be_interrupted(scene, worker)
    assert (await scene.get(run_id)).status is RunStatus.CRASHED

"""A cancel reaches everything that a run has triggered, in steps that may be interrupted."""

import asyncio

import pytest

from runwell.core.statuses import RunStatus
from runwell.engine import canceling
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    Supervisor,
    canceled,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    one_transaction,
    read,
    start,
    wait_until_blocked,
)


async def _step(scene: Scene, db: Database | None = None) -> list[canceling.Canceled]:
    return await canceling.cancel_descendants(db or scene.db, now=scene.now)


async def _cancel_all(scene: Scene) -> list[str]:
    """Step until nothing is due now; the runs that were canceled."""
    found: list[str] = []
    while step := await _step(scene):
        found += [one.run_id for one in step]
    return found


async def _count_notes(scene: Scene) -> int:
    return len(await read(scene.db, "SELECT run_id FROM canceled_parents"))


async def _start(scene: Scene, worker: Supervisor, parent: str | None = None) -> str:
    """Trigger and start a run, by another one if there is a parent."""
    await scene.trigger(parentRunId=parent)
    return (await worker.start_one()).run_id


async def test_a_cancel_reaches_children_and_grandchildren_and_nobody_else(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = await _start(scene, worker)
    child = await _start(scene, worker, root)
    other = await _start(scene, worker)
    await scene.trigger(parentRunId=root)
    done = await worker.start_one()
    await worker.report(complete(done))
    grandchild = (await scene.trigger(parentRunId=child)).run_id
    delayed = (await scene.trigger(parentRunId=child, delay="1h")).run_id
    undeployed = (await scene.trigger("unknown", parentRunId=child)).run_id
    await scene.cancel(child)
    assert sorted(await _cancel_all(scene)) == sorted([grandchild, delayed, undeployed])
    assert (await scene.get(root)).status is RunStatus.EXECUTING
    await scene.cancel(root)
    assert await _cancel_all(scene) == []
    assert (await scene.get(done.run_id)).status is RunStatus.COMPLETED
    assert (await scene.get(other)).status is RunStatus.EXECUTING
    assert (await scene.get(grandchild)).error == (
        canceling.StringError(raw="Run was canceled because its parent was")
    )
    await check_consistency(db)


async def test_workers_hear_of_the_descendants_that_they_are_to_stop(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker, other = await scene.connect("one"), await scene.connect("two")
    root = await _start(scene, worker)
    child = await _start(scene, other, root)
    grandchild = await _start(scene, worker, child)
    assert (await scene.cancel(root)).worker_id == worker.id
    assert [(one.run_id, one.worker_id) for one in await _step(scene)] == [(child, other.id)]
    assert [(one.run_id, one.worker_id) for one in await _step(scene)] == [(grandchild, worker.id)]


async def test_a_run_that_never_started_leaves_nothing_to_look_at(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.cancel((await scene.trigger()).run_id)
    assert await _count_notes(scene) == 0


async def test_children_that_a_run_triggers_while_it_is_being_stopped_are_canceled(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    root = await worker.start_one()
    await scene.cancel(root.run_id)
    assert await _cancel_all(scene) == []
    late = (await scene.trigger(parentRunId=root.run_id)).run_id
    scene.later(1)
    assert await _cancel_all(scene) == [late]
    await worker.report(canceled(root))
    scene.later(1)
    assert await _cancel_all(scene) == []
    # Its trigger was still on its way when its process had ended.
    last = (await scene.trigger(parentRunId=root.run_id)).run_id
    scene.later(5)
    assert await _cancel_all(scene) == [last]
    for _ in range(3):
        scene.later(5)
        await _step(scene)
    assert await _count_notes(scene) == 0
    await check_all_at_rest(db)


async def test_many_children_are_canceled_in_batches(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canceling, "CHILDREN_AT_ONCE", 2)
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = await _start(scene, worker)
    children = await scene.trigger_many(5, parentRunId=root)
    await scene.cancel(root)
    steps = [[one.run_id for one in await _step(scene)] for _ in range(4)]
    assert [sorted(step) for step in steps] == [children[:2], children[2:4], children[4:], []]


async def test_a_step_that_was_interrupted_is_done_by_another_server(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = await _start(scene, worker)
    child = (await scene.trigger(parentRunId=root)).run_id
    await scene.cancel(root)

    async def interrupted() -> None:
        async with one_transaction(db) as held:
            assert len(await _step(scene, held)) == 1
            # While one server is at it, another one has nothing to do.
            assert await _step(scene) == []
            raise KeyError

    with pytest.raises(KeyError):
        await interrupted()
    assert await scene.read_status(child) == "QUEUED/QUEUED"
    assert await _cancel_all(scene) == [child]


@pytest.mark.parametrize("is_canceled_first", [True, False])
async def test_of_the_end_of_a_child_and_its_cancel_the_first_to_commit_decides(
    db: Database, is_canceled_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = await _start(scene, worker)
    await scene.trigger(parentRunId=root)
    child = await worker.start_one()
    await scene.cancel(root)
    async with one_transaction(db) as held:
        if is_canceled_first:
            await _step(scene, held)
            waiting = asyncio.ensure_future(worker.report(complete(child)))
        else:
            await worker.report(complete(child), db=held)
            waiting = asyncio.ensure_future(_step(scene))
        await wait_until_blocked(db)
    await waiting
    expected = RunStatus.CANCELED if is_canceled_first else RunStatus.COMPLETED
    assert (await scene.get(child.run_id)).status is expected
    await check_consistency(db)


async def test_a_child_that_is_dequeued_while_it_is_canceled_is_stopped(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = await _start(scene, worker)
    await scene.trigger(parentRunId=root)
    await scene.cancel(root)
    async with one_transaction(db) as held:
        (child,) = await worker.dequeue(db=held)
        stepping = asyncio.create_task(_step(scene))
        await wait_until_blocked(db)
    (found,) = await stepping
    assert (found.run_id, found.worker_id) == (child.run_id, worker.id)
    assert (await worker.heartbeat(child)).canceled == [child.run_id]
    await worker.report(start(child), canceled(child))
    assert await scene.read_status(child.run_id) == "FINISHED/CANCELED"
    await check_consistency(db)

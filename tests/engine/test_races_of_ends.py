"""Races about who holds a run: an attempt ends while its lease does, a dequeue is sent again.

Which race is forced where: see `test_races.py`.
"""

import pytest

from runwell.core.protocol import DequeueBody
from runwell.engine import queues
from runwell.engine.db import Database
from tests.support.factories import (
    Supervisor,
    check_consistency,
    make_scene,
    make_task,
)
from tests.support.races import in_order


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

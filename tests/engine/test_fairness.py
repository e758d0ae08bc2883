"""Turns: nobody waits for longer than a round, however much another one has queued."""

import math
import random

import pytest

from runwell.engine.db import Database
from runwell.engine.queries import Query
from tests.support.factories import (
    Scene,
    Supervisor,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
)

_MANY = 100_000

# They would take many times as long as the rows themselves.
_WITHOUT_TRIGGERS = "SET LOCAL session_replication_role = replica"
_FILL = """
INSERT INTO runs (id, environment_id, task_id, execution_status, status, snapshot_id, queue_id,
    subqueue_id, concurrency_key, order_at, payload_type, created_at, updated_at)
SELECT id || '_' || n, environment_id, task_id, execution_status, status, 0, queue_id, subqueue_id,
    concurrency_key, order_at, payload_type, created_at, updated_at
FROM runs, generate_series(1, {number}) n WHERE id = '{id}'
"""
_QUEUE = """
INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at)
SELECT id, subqueue_id, 0, order_at FROM runs WHERE id LIKE '{id}\\_%'
"""


async def _fill(scene: Scene, run_id: str, number: int) -> None:
    """Queue so many more runs like this one."""
    async with scene.db.transaction() as tx:
        for text in (_WITHOUT_TRIGGERS, _FILL, _QUEUE):
            filled = text.replace("{id}", run_id).replace("{number}", str(number))
            await tx.execute(Query(name="fill", text=filled, parameters=()))
    await read(scene.db, "ANALYZE runs, queued_runs")


async def _take_until(worker: Supervisor, run_id: str, at_once: int, most: int) -> list[str]:
    """Dequeue and complete until this run came; the runs that came, in `most` dequeues at most."""
    taken: list[str] = []
    for _ in range(most):
        runs = await worker.dequeue(at_once)
        taken += [run.run_id for run in runs]
        await worker.report(*(complete(run) for run in runs))
        if run_id in taken:
            return taken
    raise AssertionError(f"{run_id} has not come in {most} dequeues, but {len(taken)} others")


async def test_a_tenant_with_a_hundred_thousand_runs_delays_one_run_by_a_round_at_most(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await _fill(scene, (await scene.trigger(concurrencyKey="big")).run_id, _MANY)
    for number in range(4):
        await scene.trigger_many(3, concurrencyKey=f"other-{number}")
    worker = await scene.connect()
    for _ in range(3):
        await worker.report(*(complete(run) for run in await worker.dequeue(1)))
    scene.later(1)
    of_key = (await scene.trigger(concurrencyKey="single")).run_id
    # Six have runs: each of the others comes before it once at most.
    taken = await _take_until(worker, of_key, 1, 6)
    keys = [(await scene.get(run_id)).concurrency_key for run_id in taken]
    assert len(set(keys)) == len(keys)
    # And a queue of its own has a turn of its own.
    of_queue = (await scene.trigger(queue={"name": "single"})).run_id
    await _take_until(worker, of_queue, 1, 6)


@pytest.mark.parametrize("seed", range(3))
async def test_a_newcomer_comes_within_a_round_of_as_many_as_have_runs(
    db: Database, seed: int
) -> None:
    choice = random.Random(seed)
    scene = await make_scene(db, make_task(), make_task("narrow", queue="narrow", limit=1))
    tenants = [f"tenant-{number}" for number in range(choice.randint(3, 12))]
    for tenant in tenants:
        task_id = choice.choice(["add", "narrow"])
        await scene.trigger_many(choice.choice([1, 2, 40]), task_id, concurrencyKey=tenant)
    worker = await scene.connect()
    for number in range(6):
        at_once = choice.randint(1, 5)
        newcomer = (await scene.trigger(concurrencyKey=f"new-{seed}-{number}")).run_id
        scene.later(0.01)
        ready = await read(db, "SELECT count(*) AS number FROM subqueues WHERE has_queued")
        rounds = math.ceil(ready[0]["number"] / at_once)
        await _take_until(worker, newcomer, at_once, rounds + 1)
        for _ in range(choice.randint(0, 3)):
            await worker.report(*(complete(run) for run in await worker.dequeue(at_once)))
    await check_consistency(db)

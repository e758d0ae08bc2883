"""Dequeueing: order, turns, limits, versions, and what a lost answer or a lost race may not do."""

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from runwell.core.errors import RequestError
from runwell.core.statuses import RunStatus
from runwell.engine import maintenance, queues
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from tests.support.factories import World, make_task


async def test_runs_of_a_queue_come_first_in_first_out(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    ids: list[str] = []
    for _ in range(5):
        ids.append(await world.trigger("add"))
        world.later(0.01)
    assert [run.run_id for run in await world.dequeue()] == ids


async def test_priority_is_a_head_start_in_seconds(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    first = await world.trigger("add")
    world.later(5)
    later = await world.trigger("add", priority=10)
    last = await world.trigger("add", priority=2)
    assert [run.run_id for run in await world.dequeue()] == [later, first, last]


async def test_a_queue_never_runs_more_than_its_limit(db: Database) -> None:
    world = await World.make(db, make_task("one", limit=2))
    for _ in range(5):
        await world.trigger("one")
    first = await world.dequeue()
    assert len(first) == 2
    assert await world.dequeue() == []
    await world.report(world.completed(first[0]))
    assert len(await world.dequeue()) == 1
    await world.assert_counts_are_right(2)


async def test_each_concurrency_key_has_the_limit_for_itself(db: Database) -> None:
    world = await World.make(db, make_task("one", limit=1))
    for key in ("a", "b"):
        for _ in range(2):
            await world.trigger("one", concurrency_key=key)
    taken = await world.dequeue()
    assert len(taken) == 2
    assert await world.dequeue() == []


async def test_the_environments_limit_holds_over_all_queues(db: Database) -> None:
    world = await World.make(db, make_task("a"), make_task("b"))
    await world.fetch(
        "UPDATE environments SET concurrency_limit = 3 WHERE id = $1", world.environment.id
    )
    for _ in range(4):
        await world.trigger("a")
        await world.trigger("b")
    assert len(await world.dequeue()) == 3
    assert await world.dequeue() == []


async def test_a_limit_given_with_a_trigger_changes_the_queue(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    for _ in range(3):
        await world.trigger("add", queue={"name": "main", "concurrencyLimit": 1})
    assert len(await world.dequeue()) == 1
    await world.trigger("add", queue={"name": "main", "concurrencyLimit": None})
    assert len(await world.dequeue()) == 3


async def test_a_tenant_with_many_runs_does_not_delay_the_one_run_of_another(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    for _ in range(60):
        await world.trigger("add", concurrency_key="big")
    await world.dequeue(3)
    mine = await world.trigger("add", concurrency_key="small")
    assert mine in {run.run_id for run in await world.dequeue(3)}


async def test_subqueues_take_turns(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    for key in "abc":
        for _ in range(4):
            await world.trigger("add", payload=f'"{key}"', concurrency_key=key)
    served = [(await world.dequeue(1))[0].payload for _ in range(6)]
    assert sorted(served[:3]) == sorted(served[3:]) == ['"a"', '"b"', '"c"']


async def test_the_same_request_gives_the_same_runs_again(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    for _ in range(4):
        await world.trigger("add")
    first = await world.dequeue(2, request_id="r1")
    assert await world.dequeue(2, request_id="r1") == first
    await world.assert_counts_are_right(2)
    other = await world.dequeue(2, request_id="r2")
    assert {run.run_id for run in other}.isdisjoint(run.run_id for run in first)


async def test_a_worker_that_nobody_knows_must_connect(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    world.worker_id = "worker_unknown"
    with pytest.raises(RequestError, match="connect again") as caught:
        await world.dequeue()
    assert caught.value.status == 409


async def test_a_worker_whose_lease_has_ended_gets_no_runs(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    world.later(3600)
    await world.trigger("add")
    assert await world.dequeue() == []


async def test_a_run_whose_task_is_gone_from_the_current_version_waits_for_a_deploy(
    db: Database,
) -> None:
    world = await World.make(db, make_task("old"), make_task("add"))
    run_id = await world.trigger("old")
    await world.register(make_task("add"))
    assert await world.dequeue() == []
    assert (await world.get(run_id)).status is RunStatus.WAITING_FOR_DEPLOY
    await world.register(make_task("old"))
    assert [run.run_id for run in await world.dequeue()] == [run_id]


async def test_a_run_for_a_version_is_given_only_to_who_has_it(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    first = world.version
    run_id = await world.trigger("add", lock_to_version=first.version)
    second = await world.register(make_task("add"))
    assert await world.dequeue() == []
    world.version = first
    assert [run.run_id for run in await world.dequeue()] == [run_id]
    world.version = second


async def test_an_empty_subqueue_is_retired_and_wakes_with_the_next_trigger(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    await world.trigger("add")
    await world.report(world.completed((await world.dequeue())[0]))
    assert await maintenance.retire_empty_subqueues(db) == 1
    assert await world.fetch("SELECT 1 FROM subqueues WHERE has_queued") == []
    run_id = await world.trigger("add")
    assert [run.run_id for run in await world.dequeue()] == [run_id]


async def test_a_subqueue_that_a_trigger_is_using_is_not_retired(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    await world.trigger("add")
    await world.dequeue()
    [subqueue] = await world.fetch("SELECT id FROM subqueues WHERE has_queued")
    trigger = await asyncpg.connect(db.dsn)
    async with trigger.transaction():
        # As a trigger does, before its run is there for others to see.
        await trigger.fetch("SELECT 1 FROM subqueues WHERE id = $1 FOR KEY SHARE", subqueue["id"])
        await queues.retire_subqueues(db, [subqueue["id"]])
        assert await world.fetch("SELECT 1 FROM subqueues WHERE has_queued") != []
    await trigger.close()
    await queues.retire_subqueues(db, [subqueue["id"]])
    assert await world.fetch("SELECT 1 FROM subqueues WHERE has_queued") == []


async def test_no_run_is_lost_while_subqueues_are_retired(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    wanted: set[str] = set()
    taken: set[str] = set()

    async def trigger() -> None:
        for _ in range(40):
            wanted.add(await world.trigger("add"))

    async def take() -> None:
        while len(taken) < 80:
            found = await world.dequeue(3)
            taken.update(run.run_id for run in found)
            await world.report(*(world.completed(run) for run in found))
            await maintenance.retire_empty_subqueues(db)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for act in (trigger, trigger, take, take):
            group.create_task(act())
    assert taken == wanted
    await world.assert_counts_are_right(0)


@pytest.mark.parametrize("seed", range(3))
async def test_limits_hold_whatever_happens_in_whatever_order(db: Database, seed: int) -> None:
    world = await World.make(db, make_task("wide"), make_task("narrow", limit=2))
    choose = random.Random(seed)
    await world.fetch(
        "UPDATE environments SET concurrency_limit = 5 WHERE id = $1", world.environment.id
    )

    async def act(step: random.Random) -> None:
        for _ in range(15):
            match step.choice(["trigger", "trigger", "take", "take", "cancel"]):
                case "trigger":
                    task = step.choice(["wide", "narrow"])
                    await world.trigger(task, concurrency_key=step.choice(["a", "b", None]))
                case "take":
                    for run in await world.dequeue(step.randint(1, 4)):
                        end: list[Any] = [world.completed, world.failed, world.handed_back]
                        await world.report(world.started(run))
                        await _check_limits(world)
                        await world.report(step.choice(end)(run))
                case _:
                    some = await world.fetch("SELECT id FROM runs ORDER BY id LIMIT 20")
                    if some:
                        await world.cancel(step.choice(some)["id"])

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(act(random.Random(choose.random())))
    await world.assert_counts_are_right()


async def _check_limits(world: World) -> None:
    [row] = await world.fetch(
        "SELECT (SELECT max(running) FROM environment_concurrency) AS environment,"
        " (SELECT coalesce(max(running), 0) FROM subqueues WHERE concurrency_limit = 2) AS narrow"
    )
    assert row["environment"] <= 5
    assert row["narrow"] <= 2


async def test_a_dequeue_reads_the_queue_by_its_index(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    query = load_queries("queues").dequeue_runs
    values = {
        "environment_id": world.environment.id,
        "worker_id": world.worker_id,
        "request_id": "r",
        "background_worker_ids": [world.version.id],
        "max_runs": 1,
        "now": world.now,
    }
    async with db.transaction() as tx:
        explain = type(query)(
            name="explain", text=f"EXPLAIN {query.text}", parameters=query.parameters
        )
        plan = "\n".join(row[0] for row in await tx.fetch(explain, **values))
    assert "queued_runs_in_order" in plan
    for table in ("queued_runs", "runs", "run_transitions"):
        assert f"Seq Scan on {table} " not in plan

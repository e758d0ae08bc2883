"""Dequeues: order, turns, limits, versions, and what they don't look at."""

import asyncio
from collections import Counter

import pytest

from runwell.core.errors import RequestError
from runwell.core.protocol import LEASE_SECONDS
from runwell.engine import maintenance
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from tests.support.factories import (
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    read,
    start,
)
from tests.support.plans import explain

_sql = load_queries("queues")


async def _copy_runs(scene: Scene, run_id: str, number: int) -> None:
    """Queue so many more runs like this one, behind it."""
    await read(
        scene.db,
        """WITH made AS (
            INSERT INTO runs (id, environment_id, task_id, execution_status, status, snapshot_id,
                queue_id, subqueue_id, concurrency_key, order_at, payload_type, created_at,
                updated_at)
            SELECT id || '_' || n, environment_id, task_id, execution_status, status, 0, queue_id,
                subqueue_id, concurrency_key, order_at + make_interval(secs => n * 0.001),
                payload_type, created_at, updated_at
            FROM runs, generate_series(1, :number::integer) n WHERE id = :id
            RETURNING id, subqueue_id, order_at
        )
        INSERT INTO queued_runs (run_id, subqueue_id, background_worker_id, order_at)
        SELECT id, subqueue_id, 0, order_at FROM made""",
        id=run_id,
        number=number,
    )


async def test_runs_of_a_queue_come_in_the_order_of_their_triggers(db: Database) -> None:
    scene = await make_scene(db, make_task("a", queue="q"), make_task("b", queue="q"))
    ids = [(await scene.trigger(task_id)).run_id for task_id in "abba" if scene.later(0.01)]
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue(3)] == ids[:3]
    assert [run.run_id for run in await worker.dequeue(3)] == ids[3:]


async def test_a_priority_is_a_head_start_in_seconds(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = (await scene.trigger()).run_id
    scene.later(5)
    less = (await scene.trigger(priority=3)).run_id
    more = (await scene.trigger(priority=9)).run_id
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [more, first, less]


async def test_a_retry_comes_before_runs_that_were_triggered_later(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(3)
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.report(fail(run, retry_at=scene.now))
    assert [run.run_id for run in await worker.dequeue()] == ids


async def test_a_run_has_all_that_its_worker_needs(db: Database) -> None:
    scene = await make_scene(
        db, make_task(queue="mail", max_duration=60, machine={"preset": "micro"})
    )
    await scene.trigger(
        payload={"a": 1},
        tags=["x"],
        metadata={"m": 1},
        test=True,
        idempotencyKey="k",
        maxAttempts=9,
    )
    worker = await scene.connect()
    run = await worker.dequeue_one()
    assert (run.payload, run.payload_type) == ('{"a":1}', "application/json")
    assert (run.tags, run.metadata, run.is_test, run.idempotency_key) == (
        ["x"],
        {"m": 1},
        True,
        "k",
    )
    assert (run.max_attempts, run.max_duration, run.machine) == (9, 60, "micro")
    assert run.queue.name == "mail"
    assert run.background_worker_id == scene.versions[0].id
    assert run.attempt_id == f"attempt_{run.run_id.removeprefix('run_')}1"
    # What is built without checking is what checking would have made of it.
    assert type(run).model_validate_json(run.model_dump_json()) == run


async def test_a_tenant_with_a_thousand_runs_delays_the_one_of_another_by_a_round_at_most(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await _copy_runs(scene, (await scene.trigger(concurrencyKey="big")).run_id, 999)
    scene.later(60)
    worker = await scene.connect()
    assert len(await worker.dequeue(10)) == 10
    small = (await scene.trigger(concurrencyKey="small")).run_id
    given = await worker.dequeue(10)
    assert small in [run.run_id for run in given]
    await check_consistency(db)


async def test_subqueues_share_what_a_worker_takes(db: Database) -> None:
    scene = await make_scene(db, make_task("a"), make_task("b"), make_task("c"))
    tasks = {(await scene.trigger(task_id)).run_id: task_id for task_id in "abc"}
    for run_id in tasks:
        await _copy_runs(scene, run_id, 50)
    worker = await scene.connect()
    taken: Counter[str] = Counter()
    for _ in range(9):
        taken.update(run.task_id for run in await worker.dequeue(2))
    assert taken == {"a": 6, "b": 6, "c": 6}
    taken.update(run.task_id for run in await worker.dequeue(30))
    assert taken == {"a": 16, "b": 16, "c": 16}


async def test_a_queue_that_is_new_goes_behind_those_that_wait(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await _copy_runs(scene, (await scene.trigger(concurrencyKey="old")).run_id, 9)
    old = [run for _ in range(3) for run in await worker.dequeue(1)]
    assert len(old) == 3
    # Not three times in a row to make up for what it did not have.
    for key in ("new", "newer"):
        await scene.trigger(concurrencyKey=key)
    given = [run for _ in range(4) for run in await worker.dequeue(1)]
    keys = [(await scene.get(run.run_id)).concurrency_key for run in given]
    assert set(keys[:3]) == {"old", "new", "newer"}
    assert keys[3] == "old"


async def test_many_empty_subqueues_do_not_hide_one_that_has_a_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    for number in range(120):
        await scene.trigger(concurrencyKey=f"{number}")
    worker = await scene.connect()
    held = await worker.dequeue(100) + await worker.dequeue(100)
    await worker.report(*(complete(run) for run in held))
    await read(db, "UPDATE subqueues SET has_queued = true RETURNING id")
    last = (await scene.trigger(concurrencyKey="last")).run_id
    assert [run.run_id for run in await worker.dequeue(1)] == [last]
    (row,) = await read(db, "SELECT count(*) AS number FROM subqueues WHERE has_queued")
    assert row["number"] < 60
    assert await maintenance.retire_empty_subqueues(db) == row["number"]
    (row,) = await read(db, "SELECT count(*) AS number FROM subqueues WHERE has_queued")
    assert row["number"] == 0
    await check_consistency(db)


async def test_the_same_request_gives_the_same_runs_until_they_start(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(5)
    worker = await scene.connect()
    first = await worker.dequeue(3, request_id="r1")
    assert await worker.dequeue(3, request_id="r1") == first
    await worker.report(start(first[0]))
    assert await worker.dequeue(3, request_id="r1") == first[1:]
    assert len(await worker.dequeue(3, request_id="r2")) == 2
    await check_consistency(db)


async def test_the_same_request_of_another_worker_is_another_request(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(2)
    one, other = await scene.connect(), await scene.connect()
    given = await one.dequeue(1, request_id="r") + await other.dequeue(1, request_id="r")
    assert [run.run_id for run in given] == ids


async def test_a_worker_that_is_unknown_must_connect(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    worker = await scene.connect()
    for stranger in (await of_dev.connect(), worker):
        stranger.scene = scene
        if stranger is worker:
            worker.id = "worker_unknown"
        with pytest.raises(RequestError, match="connect again") as refused:
            await stranger.dequeue()
        assert refused.value.status == 409


async def test_a_worker_whose_lease_has_ended_gets_nothing_until_it_renews_it(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect()
    scene.later(LEASE_SECONDS)
    assert await worker.dequeue() == []
    await worker.heartbeat()
    assert len(await worker.dequeue()) == 1


async def test_runs_go_to_workers_that_have_the_current_version(db: Database) -> None:
    scene = await make_scene(db, make_task())
    old = await scene.connect()
    await scene.register(make_task())
    run_id = (await scene.trigger()).run_id
    assert await old.dequeue() == []
    new = await scene.connect()
    assert [run.run_id for run in await new.dequeue()] == [run_id]


async def test_a_retry_stays_on_its_version_but_in_development(db: Database) -> None:
    for slug, is_pinned in (("prod", True), ("dev", False)):
        scene = await make_scene(db, make_task(), slug=slug)
        old = await scene.connect()
        await scene.trigger()
        run = await old.start_one()
        await scene.register(make_task())
        new = await scene.connect()
        new.versions = [scene.versions[-1].id]
        await old.report(fail(run, retry_at=scene.now))
        taking, other = (old, new) if is_pinned else (new, old)
        assert await other.dequeue() == []
        assert (await taking.dequeue_one()).run_id == run.run_id


async def test_runs_of_no_version_of_the_workers_do_not_hide_others(db: Database) -> None:
    scene = await make_scene(db, make_task())
    old = scene.versions[0]
    for number in range(100):
        await scene.trigger(concurrencyKey=str(number), lockToVersion=old.version)
    await scene.register(make_task())
    run_id = (await scene.trigger(concurrencyKey="last")).run_id
    worker = await scene.connect()
    worker.versions = [scene.versions[-1].id]
    assert [run.run_id for run in await worker.dequeue(1)] == [run_id]
    await check_consistency(db)


async def test_a_run_whose_task_is_gone_waits_for_a_deploy_and_does_not_block(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("a", queue="q"), make_task("b", queue="q"))
    gone = await scene.trigger_many(3, "a")
    (kept,) = await scene.trigger_many(1, "b")
    await scene.register(make_task("b", queue="q"))
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue(2)] == [kept]
    for run_id in gone:
        assert await scene.read_status(run_id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    await check_consistency(db)
    await scene.register(make_task("a", queue="q"))
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == gone
    assert await scene.read_events(gone[0]) == [
        "TRIGGER",
        "AWAIT_VERSION",
        "ENQUEUE",
        "DEQUEUE",
    ]


async def test_an_expired_run_is_not_given_even_before_the_timer_saw_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(ttl="10s")
    (fresh,) = await scene.trigger_many(1)
    scene.later(10)
    worker = await scene.connect()
    assert [run.run_id for run in await worker.dequeue()] == [fresh]


async def test_two_servers_drain_a_queue_without_giving_a_run_twice(database_url: str) -> None:
    async with (
        await Database.open(database_url, max_size=4) as one,
        await Database.open(database_url, max_size=4) as other,
    ):
        scene = await make_scene(one, make_task(queue="q", limit=7), make_task("free"))
        ids = await scene.trigger_many(40) + await scene.trigger_many(40, "free")
        given: list[str] = []

        async def drain(db: Database) -> None:
            worker = await scene.connect(db=db)
            misses = 0
            while misses < 3:
                held = await worker.dequeue(6)
                misses = 0 if held else misses + 1
                given.extend(run.run_id for run in held)
                await worker.report(*(complete(run) for run in held))

        await asyncio.gather(*(drain(db) for db in (one, other, one, other)))
        worker = await scene.connect()
        while held := await worker.dequeue(6):
            given.extend(run.run_id for run in held)
            await worker.report(*(complete(run) for run in held))
        assert sorted(given) == sorted(ids)
        await check_all_at_rest(one)


@pytest.mark.parametrize("has_runs", [True, False])
async def test_a_dequeue_reads_by_its_indexes_however_much_waits(
    db: Database, has_runs: bool
) -> None:
    scene = await make_scene(db, make_task())
    if has_runs:
        await _copy_runs(scene, (await scene.trigger()).run_id, 2000)
        await read(db, "ANALYZE runs, queued_runs, subqueues")
    async with db.transaction() as tx:
        nodes = await explain(
            tx,
            _sql.dequeue_runs,
            environment_id=scene.environment.id,
            worker_id="worker_x",
            request_id="r",
            background_worker_ids="{worker_y}",
            max_runs=10,
            now=str(scene.now),
        )
    assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []
    indexes = {node.get("Index Name") for node in nodes}
    assert {"queued_runs_in_order", "subqueues_ready", "runs_held"} <= indexes
    (in_order,) = (node for node in nodes if node.get("Index Name") == "queued_runs_in_order")
    assert "subqueue_id" in in_order["Index Cond"]
    assert "background_worker_id" in in_order["Index Cond"]

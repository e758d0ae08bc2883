"""Old runs and lines go in small steps, with all that belongs to them; what is needed stays."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from runwell.core.payloads import STORE_TYPE
from runwell.core.schemas import TriggerBody, TriggerOptions
from runwell.engine import packets, retention
from runwell.engine.batch_streams import BatchOpening, open_batch
from runwell.engine.batches import BatchRequest, get_batch, trigger_batch
from runwell.engine.db import Database
from runwell.engine.file_store import FileStore
from runwell.engine.queries import parse_queries
from runwell.engine.retention import BatchSweep, LineSweep, RunSweep
from runwell.engine.trigger_options import TriggerRequest
from tests.support.factories import (
    Scene,
    Supervisor,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    one_transaction,
    read,
    write_lines,
)

DAY = 24 * 3600
LIFETIME = timedelta(days=30)

(LOCK,) = parse_queries("-- name: lock\nSELECT id FROM runs WHERE id = :run_id FOR UPDATE")
TABLES = ("runs", "run_snapshots", "run_attempts", "run_logs", "idempotency_keys", "waitpoints")


def make_body(**options: object) -> TriggerBody:
    return TriggerBody(options=TriggerOptions.model_validate(options))


async def count(db: Database, table: str) -> int:
    return int((await read(db, f"SELECT count(*) AS number FROM {table}"))[0]["number"])


async def counts(db: Database) -> dict[str, int]:
    return {table: await count(db, table) for table in TABLES}


async def list_ids(db: Database) -> list[str]:
    return [row["id"] for row in await read(db, "SELECT id FROM runs ORDER BY id")]


async def sweep(scene: Scene, sweeper: RunSweep | None = None) -> None:
    """Walk from the oldest run to the limit."""
    sweeper = sweeper or RunSweep(scene.db, LIFETIME)
    while await sweeper.tick(scene.now) == retention.RUNS:
        pass


async def finish(worker: Supervisor, *messages: str) -> str:
    await worker.heartbeat()
    run = await worker.start_one()
    if messages:
        await worker.report(write_lines(run, *messages))
    assert await worker.report(complete(run, at=worker.scene.now)) == ["accepted"]
    return run.run_id


async def test_a_run_is_deleted_with_all_that_belongs_to_it_once_it_has_ended_long_ago(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(idempotencyKey="key", idempotencyKeyTTL="1d")
    await finish(worker, "a", "b")
    scene.later(30 * DAY)
    await sweep(scene)
    assert (await counts(db))["run_logs"] == 2
    scene.later(1)
    await sweep(scene)
    assert set((await counts(db)).values()) == {0}
    await check_all_at_rest(db)


async def test_every_kind_of_end_is_deleted_and_what_goes_on_stays(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    worker = await scene.connect()
    await scene.trigger()
    await worker.report(fail(await worker.start_one(), at=scene.now))
    canceled = (await scene.trigger()).run_id
    await scene.cancel(canceled)
    delayed = (await scene.trigger(delay="60d")).run_id
    waiting = (await scene.trigger("no-such-task")).run_id
    await scene.trigger()
    running = (await worker.start_one()).run_id
    queued = (await scene.trigger()).run_id
    scene.later(31 * DAY)
    await sweep(scene)
    assert set(await list_ids(db)) == {delayed, waiting, running, queued}
    await check_consistency(db)


async def test_the_end_counts_and_not_the_trigger(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    scene.later(31 * DAY)
    run_id = await finish(worker)
    await sweep(scene)
    assert await list_ids(db) == [run_id]
    scene.later(31 * DAY)
    await sweep(scene)
    assert await list_ids(db) == []


async def test_a_child_stays_while_its_parent_or_its_root_goes_on(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    root = (await scene.trigger()).run_id
    held = await worker.start_one()
    parent = (await scene.trigger(parentRunId=root)).run_id
    child = (await scene.trigger(parentRunId=parent)).run_id
    await finish(worker)
    await finish(worker)
    scene.later(31 * DAY)
    await sweep(scene)
    assert set(await list_ids(db)) == {root, parent, child}
    await worker.report(complete(held, at=scene.now))
    await sweep(scene)
    assert await list_ids(db) == [root]
    scene.later(31 * DAY)
    await sweep(scene)
    assert await list_ids(db) == []


async def test_a_run_stays_while_another_one_has_yet_to_hear_of_its_end(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    awaited = await finish(worker)
    await scene.trigger()
    waiting = await worker.start_one()
    await read(
        db,
        "WITH made AS (INSERT INTO waitpoints (id, environment_id, type, status, run_id, "
        "created_at, completed_at) SELECT 'waitpoint_1', environment_id, 'RUN', 'COMPLETED', id, "
        "created_at, created_at FROM runs WHERE id = :awaited RETURNING id) "
        "INSERT INTO run_waits (run_id, wait_id, position, waitpoint_id, created_at) "
        "SELECT :waiting, 'wait', 0, id, now() FROM made RETURNING run_id",
        awaited=awaited,
        waiting=waiting.run_id,
    )
    scene.later(31 * DAY)
    await sweep(scene)
    assert awaited in await list_ids(db)
    await read(db, "DELETE FROM run_waits RETURNING run_id")
    await sweep(scene)
    assert awaited not in await list_ids(db)
    assert await count(db, "waitpoints") == 0


async def test_a_run_stays_while_its_idempotency_key_holds(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(idempotencyKey="key", idempotencyKeyTTL="60d")
    run_id = await finish(worker)
    scene.later(31 * DAY)
    await sweep(scene)
    again = await scene.trigger(idempotencyKey="key", idempotencyKeyTTL="60d")
    assert (again.run_id, again.is_cached) == (run_id, True)
    scene.later(30 * DAY)
    await sweep(scene)
    assert await counts(db) == dict.fromkeys(TABLES, 0)


async def test_a_batch_goes_with_its_last_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger(idempotencyKey="key", idempotencyKeyTTL="1d")
    item = TriggerRequest(task_id="add", body=make_body())
    cached = TriggerRequest(task_id="add", body=make_body(idempotencyKey="key"))
    request = BatchRequest(items=[item, cached])
    batch = await trigger_batch(db, scene.environment, request, now=scene.now)
    await finish(worker)
    scene.later(DAY)
    await finish(worker)
    scene.later(29 * DAY + 1)
    await sweep(scene)
    assert len(await list_ids(db)) == 1
    async with db.connection() as tx:
        found = await get_batch(tx, scene.environment, batch.id)
    assert (found.status, found.run_count, len(found.items)) == ("COMPLETED", 2, 1)
    scene.later(DAY)
    await sweep(scene)
    assert await list_ids(db) == []
    assert await count(db, "batches") == 0
    assert await count(db, "batch_items") == 0


async def test_packets_go_with_the_last_run_that_refers_to_them(
    db: Database, tmp_path: Path
) -> None:
    scene, store = await make_scene(db, make_task()), FileStore(tmp_path, b"secret")
    worker = await scene.connect()
    for path in ("p", "o"):
        await packets.register_upload(db, scene.environment, path, now=scene.now)
        await store.write(packets.key_of(scene.environment, path), b"1", "application/json")
    await scene.trigger(payload="p", payloadType=STORE_TYPE)
    run = await worker.start_one()
    report = complete(run, "o").model_copy(update={"output_type": STORE_TYPE})
    await worker.report(report)
    await packets.sweep(db, store, now=scene.later(DAY))
    # As a replay does.
    await scene.trigger(payload="p", payloadType=STORE_TYPE)
    await finish(worker)
    scene.later(29 * DAY + 1)
    await sweep(scene)
    assert len(await list_ids(db)) == 1
    await packets.sweep(db, store, now=scene.later(3601))
    assert await store.find_size(packets.key_of(scene.environment, "p")) == 1
    assert await store.find_size(packets.key_of(scene.environment, "o")) is None
    scene.later(DAY)
    await sweep(scene)
    await packets.sweep(db, store, now=scene.later(3601))
    assert await store.find_size(packets.key_of(scene.environment, "p")) is None
    assert await count(db, "packets") == 0


async def test_many_runs_go_in_small_steps_and_a_new_walk_finds_what_the_last_one_left(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RUNS", 3)
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    run_ids = await scene.trigger_many(8)
    for _ in range(8):
        await finish(worker)
    kept = (await scene.trigger()).run_id
    scene.later(31 * DAY)
    sweeper = RunSweep(db, LIFETIME)
    async with db.transaction() as tx:
        # Somebody has the second run: nobody waits for that.
        await tx.fetch(LOCK, run_id=run_ids[1])
        assert await sweeper.tick(scene.now) == 3
        assert await list_ids(db) == [run_ids[1], *run_ids[3:], kept]
        assert await sweeper.tick(scene.now) == 3
        assert await sweeper.tick(scene.now) == 3
        assert await sweeper.tick(scene.now) == 0
    assert await list_ids(db) == [run_ids[1], kept]
    assert await sweeper.tick(scene.now) == 2
    assert await list_ids(db) == [kept]


async def test_a_run_with_very_many_lines_loses_them_in_steps_before_it_goes(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LINES", 10)
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    await finish(worker, *"abcdefghijklmnopqrstuvwxy")
    await scene.trigger()
    await finish(worker, "z")
    scene.later(31 * DAY)
    sweeper = RunSweep(db, LIFETIME)
    for lines, runs in ((16, 2), (6, 2), (0, 0)):
        await sweeper.tick(scene.now)
        assert (await count(db, "run_logs"), await count(db, "runs")) == (lines, runs)


class KilledError(Exception):
    """The server is no more."""


async def sweep_and_die(scene: Scene) -> None:
    async with one_transaction(scene.db) as dying:
        await RunSweep(dying, LIFETIME).tick(scene.now)
        raise KilledError


async def test_a_sweep_that_dies_in_the_middle_leaves_whole_runs(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    await finish(worker, "a")
    scene.later(31 * DAY)
    before = await counts(db)
    with pytest.raises(KilledError):
        await sweep_and_die(scene)
    assert await counts(db) == before
    await sweep(scene)
    assert await list_ids(db) == []


async def test_lines_go_before_their_runs_when_they_are_kept_for_less_long(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LINES", 2)
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    for _ in range(3):
        await scene.trigger()
        await finish(worker, "a", "b", "c")
    scene.later(2 * DAY)
    await read(db, "UPDATE run_logs SET logged_at = :now WHERE message = 'b' RETURNING seq",
        now=scene.now)  # fmt: skip
    sweeper = LineSweep(db, timedelta(days=1))
    steps = 1
    while await sweeper.tick(scene.now):
        steps += 1
    assert steps == 5
    rows = await read(db, "SELECT message FROM run_logs")
    assert [row["message"] for row in rows] == ["b"] * 3
    assert await count(db, "runs") == 3


async def test_runs_of_today_are_never_looked_at(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(3)
    assert await RunSweep(db, LIFETIME).tick(scene.now) == 0
    nodes = json.dumps(await explain(db))
    assert "Seq Scan" not in nodes
    assert "Sort" not in nodes


async def explain(db: Database) -> list[object]:
    rows = await read(
        db,
        "EXPLAIN (FORMAT JSON) SELECT r.id FROM runs r "
        "WHERE r.id > '' AND r.id < 'run_2' ORDER BY r.id LIMIT 200",
    )
    return [json.loads(row[0]) for row in rows]


async def test_batches_without_runs_are_deleted_and_those_with_runs_or_a_living_key_stay(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCHES", 2)
    scene = await make_scene(db, make_task())

    async def open_one(key: str | None = None) -> str:
        opening = BatchOpening(run_count=1, idempotency_key=key, key_lifetime=timedelta(days=60))
        return (await open_batch(db, scene.environment, opening, now=scene.now)).id

    # Nobody ever sent their items.
    for _ in range(3):
        await open_one()
    with_key = await open_one("key")
    request = BatchRequest(items=[TriggerRequest(task_id="add", body=make_body())])
    with_run = (await trigger_batch(db, scene.environment, request, now=scene.now)).id
    scene.later(31 * DAY)
    young = await open_one()
    walk = BatchSweep(db, LIFETIME)
    while await walk.tick(scene.now) == 2:
        pass
    rows = await read(db, "SELECT id FROM batches ORDER BY id")
    assert [row["id"] for row in rows] == sorted([with_key, with_run, young])

"""Batches: all items or none, their keys and requests, and when they are complete."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.engine import batches, runs
from runwell.engine.batches import Batch, BatchRequest, TriggeredBatch
from runwell.engine.db import Database
from runwell.engine.queries import load_queries
from runwell.engine.trigger_options import TriggerRequest
from tests.support.factories import (
    Scene,
    an_item,
    check_consistency,
    complete,
    make_scene,
    make_task,
    one_transaction,
    read,
    start,
    wait_until_blocked,
)
from tests.support.plans import explain


async def trigger_batch(
    scene: Scene,
    items: Sequence[TriggerRequest],
    *,
    db: Database | None = None,
    **fields: Any,
) -> TriggeredBatch:
    request = BatchRequest(items=items, **fields)
    return await batches.trigger_batch(db or scene.db, scene.environment, request, now=scene.now)


async def get_batch(scene: Scene, batch_id: str) -> Batch:
    async with scene.db.connection() as tx:
        return await batches.get_batch(tx, scene.environment, batch_id)


async def count(db: Database, table: str) -> int:
    return (await read(db, f"SELECT count(*) AS number FROM {table}"))[0]["number"]


def run_ids(batch: TriggeredBatch | Batch) -> list[str]:
    return [item.run_id for item in batch.items]


async def test_a_batch_is_many_runs_of_several_tasks_in_their_order(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other", queue="mail", limit=2))
    batch = await trigger_batch(
        scene, [an_item(payload="0"), an_item("other", payload="1"), an_item(payload="2")]
    )
    assert batch.id.startswith("batch_")
    assert not batch.is_cached
    assert [item.task_id for item in batch.items] == ["add", "other", "add"]
    for place, run_id in enumerate(run_ids(batch)):
        run = await scene.get(run_id)
        assert (run.payload, run.batch_id) == (str(place), batch.id)
        assert run.trigger_function == "batchTrigger"
    await check_consistency(db)


async def test_runs_of_a_batch_are_dequeued_in_the_order_of_their_items(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch = await trigger_batch(scene, [an_item(payload=str(n)) for n in range(20)])
    worker = await scene.connect()
    taken = [run.run_id for _ in range(4) for run in await worker.dequeue(5)]
    assert taken == run_ids(batch)
    assert (await worker.dequeue(1)) == []


async def test_each_item_has_options_of_its_own(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch = await trigger_batch(
        scene,
        [
            an_item(delay="1h", tags=["a", "b"]),
            an_item(concurrencyKey="user 1", priority=5, metadata={"a": 1}),
            an_item("unknown"),
        ],
    )
    delayed, keyed, waiting = [await scene.get(run_id) for run_id in run_ids(batch)]
    assert delayed.delayed_until == scene.now + timedelta(hours=1)
    assert delayed.tags == ["a", "b"]
    assert (keyed.concurrency_key, keyed.metadata) == ("user 1", {"a": 1})
    assert await scene.read_status(waiting.id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    await check_consistency(db)


async def test_a_batch_of_a_thousand_is_one_statement_of_runs(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch = await trigger_batch(scene, [an_item(concurrencyKey=str(n % 50)) for n in range(1_000)])
    assert len(set(run_ids(batch))) == 1_000
    assert await count(db, "queued_runs") == 1_000
    rows = await read(db, "SELECT count(DISTINCT xmin::text) AS number FROM runs")
    assert rows[0]["number"] == 1
    await check_consistency(db)


@pytest.mark.parametrize("number", [0, 1_001])
async def test_a_batch_takes_one_to_a_thousand_items(db: Database, number: int) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=f"1 to 1,000 items, and {number} were") as refused:
        await trigger_batch(scene, [an_item()] * number)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (an_item(delay="soon"), r"^items\[2\]\.options\.delay: 'soon'"),
        (an_item(lockToVersion="20200101.1"), r"^items\[2\]\.options\.lockToVersion: there is no"),
        (an_item(task_id=""), r"^items\[2\]: '' is no task id"),
        (an_item(payload='{"a":'), r"^items\[2\]: .*not valid JSON"),
        (an_item(queue={"name": "!!"}), r"^items\[2\]: '!!' is no queue name"),
    ],
)
async def test_a_bad_item_is_named_and_nothing_is_triggered(
    db: Database, bad: TriggerRequest, words: str
) -> None:
    scene = await make_scene(db, make_task())
    good = an_item(queue={"name": "new", "concurrencyLimit": 1}, idempotencyKey="k")
    with pytest.raises(RequestError, match=words):
        await trigger_batch(scene, [good, an_item(), bad], idempotency_key="b")
    for table in ("runs", "batches", "batch_items", "idempotency_keys"):
        assert await count(db, table) == 0
    assert await read(db, "SELECT 1 FROM queues WHERE name = 'new'") == []


async def test_an_item_may_set_the_limit_of_a_queue(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await trigger_batch(
        scene,
        [
            an_item(queue={"name": "mail", "concurrencyLimit": 7}, concurrencyKey="a"),
            an_item(queue={"name": "mail", "concurrencyLimit": 3}, concurrencyKey="b"),
        ],
    )
    rows = await read(db, "SELECT concurrency_limit FROM subqueues WHERE concurrency_key <> ''")
    assert [row["concurrency_limit"] for row in rows] == [3, 3]


async def test_a_key_that_is_twice_in_a_batch_is_one_run_of_both_items(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other"))
    batch = await trigger_batch(
        scene,
        [
            an_item(idempotencyKey="k", payload="1"),
            an_item("other", idempotencyKey="k"),
            an_item(idempotencyKey="k", payload="2"),
        ],
    )
    first, other, again = batch.items
    assert first.run_id == again.run_id != other.run_id
    assert [item.is_cached for item in batch.items] == [False, False, True]
    assert (await scene.get(first.run_id)).payload == "1"
    assert await count(db, "runs") == 2
    assert run_ids(await get_batch(scene, batch.id)) == run_ids(batch)


async def test_a_key_that_has_a_run_gives_that_run_to_the_item(db: Database) -> None:
    scene = await make_scene(db, make_task())
    earlier = await scene.trigger(idempotencyKey="k")
    batch = await trigger_batch(scene, [an_item(), an_item(idempotencyKey="k")])
    assert run_ids(batch)[1] == earlier.run_id
    assert [item.is_cached for item in batch.items] == [False, True]
    assert (await scene.get(earlier.run_id)).batch_id is None
    await check_consistency(db)


async def test_batches_with_the_same_keys_in_other_orders_give_the_same_runs(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    keys = [f"k{n}" for n in range(50)]
    made = await asyncio.gather(
        *(
            trigger_batch(scene, [an_item(idempotencyKey=key) for key in order])
            for order in (keys, keys[::-1], keys[25:] + keys[:25])
        )
    )
    by_key = [{item.idempotency_key: item.run_id for item in batch.items} for batch in made]
    assert by_key[0] == by_key[1] == by_key[2]
    assert await count(db, "runs") == 50
    await check_consistency(db)


async def test_a_request_sent_again_is_the_same_batch(db: Database) -> None:
    scene = await make_scene(db, make_task())
    key = make_request_key(scene.now)
    first = await trigger_batch(scene, [an_item(), an_item()], request_key=key)
    again = await trigger_batch(scene, [an_item(), an_item()], request_key=key)
    assert again == first
    assert await count(db, "runs") == 2


async def test_a_request_sent_again_while_it_is_carried_out_is_the_same_batch(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    items = [an_item(idempotencyKey=str(n)) for n in range(3)]
    async with one_transaction(db) as first_db:
        first = await trigger_batch(scene, items, request_key="r", db=first_db)
        again = asyncio.create_task(trigger_batch(scene, items, request_key="r"))
        await wait_until_blocked(db)
    assert await again == first
    assert await count(db, "runs") == 3


async def test_a_request_that_died_before_its_commit_can_be_sent_again(db: Database) -> None:
    scene = await make_scene(db, make_task())
    items = [an_item(idempotencyKey="k"), an_item()]
    with contextlib.suppress(EOFError):
        async with one_transaction(db) as first_db:
            await trigger_batch(scene, items, request_key="r", db=first_db)
            raise EOFError
    assert await count(db, "batches") == await count(db, "runs") == 0
    again = await trigger_batch(scene, items, request_key="r")
    assert not any(item.is_cached for item in again.items)
    assert await count(db, "runs") == 2
    await check_consistency(db)


async def test_an_idempotency_key_of_a_batch_gives_that_batch_until_it_expires(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    first = await trigger_batch(
        scene, [an_item()], idempotency_key="b", key_lifetime=timedelta(minutes=1), request_key="1"
    )
    scene.later(59)
    again = await trigger_batch(scene, [an_item()] * 2, idempotency_key="b", request_key="2")
    assert (again.id, again.is_cached, run_ids(again)) == (first.id, True, run_ids(first))
    scene.later(2)
    other = await trigger_batch(scene, [an_item()] * 2, idempotency_key="b", request_key="3")
    assert (other.is_cached, len(other.items)) == (False, 2)
    assert (await get_batch(scene, first.id)).idempotency_key is None


async def test_an_idempotency_key_of_a_batch_belongs_to_its_environment(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    first = await trigger_batch(scene, [an_item()], idempotency_key="b", request_key="r")
    other = await trigger_batch(of_dev, [an_item()], idempotency_key="b", request_key="r")
    assert first.id != other.id
    with pytest.raises(RequestError, match="no batch") as refused:
        await get_batch(of_dev, first.id)
    assert refused.value.status == 404


async def test_a_batch_is_complete_when_its_last_run_has_ended(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch = await trigger_batch(scene, [an_item(), an_item()])
    worker = await scene.connect()
    first, last = await worker.dequeue(2)
    await worker.report(start(first), complete(first))
    assert (await get_batch(scene, batch.id)).status == "PENDING"
    await scene.cancel(last.run_id)
    assert (await get_batch(scene, batch.id)).status == "PENDING"
    scene.later(1000)
    await scene.lose_workers()
    found = await get_batch(scene, batch.id)
    assert (found.status, found.run_count) == ("COMPLETED", 2)
    assert found.updated_at >= found.created_at


async def test_a_batch_waits_for_a_run_that_an_item_found_by_its_key(db: Database) -> None:
    scene = await make_scene(db, make_task())
    earlier = await scene.trigger(idempotencyKey="k")
    batch = await trigger_batch(scene, [an_item(idempotencyKey="k")])
    assert (await get_batch(scene, batch.id)).status == "PENDING"
    await scene.cancel(earlier.run_id)
    assert (await get_batch(scene, batch.id)).status == "COMPLETED"


async def test_runs_are_listed_by_their_batch(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    batch = await trigger_batch(scene, [an_item(), an_item()])
    filters = runs.RunFilters(batch_id=batch.id)
    async with db.transaction() as tx:
        page = await runs.list_runs(tx, scene.environment, filters, runs.Page())
    assert [run.id for run in reversed(page.runs)] == run_ids(batch)


async def test_batches_and_a_dequeue_side_by_side_lose_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    taken: list[str] = []

    async def take() -> None:
        while len(taken) < 120:
            taken.extend(run.run_id for run in await worker.dequeue(7))
            await asyncio.sleep(0)

    async with asyncio.timeout(60):
        made, _ = await asyncio.gather(
            asyncio.gather(*(trigger_batch(scene, [an_item()] * 30) for _ in range(4))), take()
        )
    assert sorted(taken) == sorted(run_id for batch in made for run_id in run_ids(batch))
    await check_consistency(db)


async def test_the_insert_looks_rows_up_one_by_one_also_when_planned_on_empty_tables(
    db: Database,
) -> None:
    query = load_queries("triggering").insert_runs
    async with db.transaction() as tx:
        nodes = await explain(tx, query, **dict.fromkeys(query.parameters))
    # A join by a filter reads all runs of an environment for each item, as soon as there are many.
    assert not [node for node in nodes if "Join Filter" in node]
    read_tables = {"runs", "queues", "subqueues", "background_worker_tasks", "background_workers"}
    scans = [node for node in nodes if node.get("Relation Name") in read_tables]
    lookups = [node for node in scans if node["Node Type"] == "Index Scan"]
    assert len(lookups) >= len(read_tables)
    assert all("Index Cond" in node for node in lookups)
    assert not [node for node in scans if node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan")]

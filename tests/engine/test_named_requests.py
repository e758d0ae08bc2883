"""Triggers that are sent again, and triggers that name what their run belongs to."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.engine import backlogs, batches, bulk_actions, queues, replays, runs
from runwell.engine.batches import BatchRequest
from runwell.engine.bulk_actions import BulkAct, Selection
from runwell.engine.db import Database
from runwell.engine.runs import Page, RunFilters
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


async def count_runs(db: Database) -> int:
    return (await read(db, "SELECT count(*) AS number FROM runs"))[0]["number"]


@pytest.mark.parametrize(
    "request_key",
    ["0b8cb3a9-7b1c-4b1d-9d0e-0d2f6d1c8a11", "my own words", make_request_key()],
    ids=["uuid4", "words", "uuid7"],
)
async def test_a_trigger_whose_answer_was_lost_makes_one_run_whatever_its_key_is(
    db: Database, request_key: str
) -> None:
    scene = await make_scene(db, make_task())
    first = await scene.trigger(request_key=request_key)
    scene.later(5)
    second = await scene.trigger(request_key=request_key)
    assert second == first
    assert not second.is_cached
    assert await count_runs(db) == 1
    other = await scene.trigger(request_key=request_key + "1")
    assert other.run_id != first.run_id
    await check_consistency(db)


async def test_a_key_that_is_old_names_its_run_too(db: Database) -> None:
    scene = await make_scene(db, make_task())
    key = make_request_key(scene.now - timedelta(hours=1))
    first, second = await scene.trigger(request_key=key), await scene.trigger(request_key=key)
    assert first == second


async def test_a_request_that_is_sent_again_while_it_is_carried_out_waits_for_it(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    async with one_transaction(db) as first_db:
        first = await scene.trigger(request_key="k", db=first_db)
        second = asyncio.create_task(scene.trigger(request_key="k"))
        await wait_until_blocked(db)
    assert await second == first
    assert await count_runs(db) == 1


async def test_a_request_that_failed_is_tried_afresh(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match="no version"):
        await scene.trigger(request_key="k", lockToVersion="20200101.1")
    assert (await read(db, "SELECT count(*) AS n FROM trigger_requests"))[0]["n"] == 0
    await scene.trigger(request_key="k")
    assert await count_runs(db) == 1


async def test_a_debounced_trigger_with_a_key_of_words_is_carried_out_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    made = [
        await scene.trigger(request_key="k", debounce={"key": "d", "delay": "10s"})
        for _ in range(2)
    ]
    assert made[0].run_id == made[1].run_id
    assert await count_runs(db) == 1


async def test_a_request_of_words_is_known_when_too_many_wait(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger(request_key="k")
    for key, is_known in (("k", True), ("other", False)):
        found = await backlogs.is_known_run(
            db, scene.environment, "add", request_key=key, idempotency_key=None, now=scene.now
        )
        assert found is is_known


@pytest.mark.parametrize("slug", ["dev", "prod"])
async def test_a_replay_of_a_run_without_a_time_to_live_has_none(db: Database, slug: str) -> None:
    scene = await make_scene(db, make_task(), slug=slug)
    for given, ttl in ((0, None), ("5m", "5m")):
        original = await scene.trigger(ttl=given)
        replayed = await replays.replay_run(db, scene.environment, original.run_id, now=scene.now)
        assert (await scene.get(replayed.run_id)).ttl == ttl


async def test_a_run_that_its_parent_waits_for_says_so(db: Database) -> None:
    scene = await make_scene(db, make_task())
    parent = (await scene.trigger()).run_id
    attempt = queues.make_attempt_id(parent, 1)
    both: tuple[dict[str, Any], ...] = (
        {"parentRunId": parent, "resumeParentOnCompletion": True},
        {"dependentAttempt": attempt},
    )
    for options in both:
        child = await scene.get((await scene.trigger(**options)).run_id)
        assert child.parent is not None
        assert (child.parent.id, child.trigger_function) == (parent, "triggerAndWait")
    child = await scene.get((await scene.trigger(parentAttempt=attempt)).run_id)
    assert child.trigger_function == "trigger"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"resumeParentOnCompletion": True}, 400, "say with options.parentRunId which run waits"),
        ({"dependentAttempt": "nonsense"}, 400, "'nonsense' is no id of an attempt"),
        (
            {"resumeParentOnCompletion": True, "parentRunId": "run_none"},
            422,
            "options.parentRunId: the run run_none can't wait for this one",
        ),
        ({"parentBatch": "batch_none"}, 422, "options.parentBatch: there is no batch batch_none"),
        ({"bulkActionId": "bulk_none"}, 422, "options.bulkActionId: there is no bulk action"),
    ],
)
async def test_what_a_trigger_cannot_belong_to_is_refused(
    db: Database, options: dict[str, Any], status: int, words: str
) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=words) as refused:
        await scene.trigger(**options)
    assert refused.value.status == status
    assert await count_runs(db) == 0


async def test_a_run_that_has_ended_waits_for_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    parent = (await scene.trigger()).run_id
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.report(complete(run))
    with pytest.raises(RequestError, match="has ended"):
        await scene.trigger(parentRunId=parent, resumeParentOnCompletion=True)
    # Without waiting it may have children still.
    await scene.trigger(parentRunId=parent)


async def trigger_batch(scene: Scene, number: int) -> str:
    request = BatchRequest(items=[an_item() for _ in range(number)])
    return (await batches.trigger_batch(scene.db, scene.environment, request, now=scene.now)).id


async def test_a_run_joins_a_batch_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    batch_id = await trigger_batch(scene, 1)
    key = make_request_key(scene.now)
    joined = [
        await scene.trigger(request_key=key, dependentBatch=batch_id, idempotencyKey="k")
        for _ in range(2)
    ]
    assert joined[0].run_id == joined[1].run_id
    async with db.connection() as tx:
        batch = await batches.get_batch(tx, scene.environment, batch_id)
    assert batch.run_count == 2
    assert batch.items[1].run_id == joined[0].run_id
    assert (await scene.get(joined[0].run_id)).batch_id == batch_id
    worker = await scene.connect()
    first, second = await worker.dequeue(2)
    await worker.report(start(first, scene.now), complete(first))
    async with db.connection() as tx:
        assert (await batches.get_batch(tx, scene.environment, batch_id)).status == "PENDING"
    await worker.report(start(second, scene.now), complete(second))
    async with db.connection() as tx:
        assert (await batches.get_batch(tx, scene.environment, batch_id)).status == "COMPLETED"


async def test_a_run_that_names_its_bulk_action_is_found_by_it(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    action = await bulk_actions.create_bulk_action(
        db, scene.environment, BulkAct.REPLAY, Selection(filters=RunFilters()), now=scene.now
    )
    run_id = (await scene.trigger(bulkActionId=action.id)).run_id
    async with db.transaction() as tx:
        found = await runs.list_runs(
            tx, scene.environment, RunFilters(bulk_action_id=action.id), Page()
        )
    assert [run.id for run in found.runs] == [run_id]

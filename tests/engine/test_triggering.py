"""Triggering: options, keys, delays, and what is refused."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.core.protocol import MachineName
from runwell.core.schemas import TriggerBody, TriggerOptions
from runwell.core.statuses import RunStatus
from runwell.engine import runs, timers, triggering
from runwell.engine.db import Database
from runwell.engine.runs import Page, RunFilters
from tests.support.factories import World, make_task


async def test_options_are_kept_with_the_run(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger(
        "add",
        tags=["b", "a", "b"],
        metadata={"k": [1]},
        max_duration=1,
        machine=MachineName.MICRO,
        test=True,
    )
    [run] = await world.dequeue()
    assert (run.tags, run.metadata, run.max_duration) == (["b", "a"], {"k": [1]}, 5)
    assert (run.machine, run.is_test, run.run_id) == ("micro", True, run_id)


async def test_a_run_for_a_task_that_is_not_deployed_waits_for_it(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("new")
    assert (await world.get(run_id)).status is RunStatus.WAITING_FOR_DEPLOY
    await world.register(make_task("new"))
    assert [run.run_id for run in await world.dequeue()] == [run_id]


async def test_an_idempotency_key_stands_for_one_run_as_long_as_it_lives(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    key: dict[str, Any] = {"idempotency_key": "k", "idempotency_key_ttl": "1h"}
    first = await world.trigger("add", **key)
    assert await world.trigger("add", **key) == first
    assert await world.trigger("other", **key) != first
    world.later(3600)
    assert await world.trigger("add", **key) != first


async def test_triggers_with_one_key_at_once_make_one_run(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    triggers = (world.trigger("add", idempotency_key="k") for _ in range(8))
    assert len(set(await asyncio.gather(*triggers))) == 1
    assert len(await world.dequeue()) == 1


async def test_a_request_that_is_sent_again_makes_no_second_run(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    request = triggering.TriggerRequest(
        task_id="add", body=TriggerBody(payload="1"), request_key=make_request_key(world.now)
    )
    made = [
        await triggering.trigger_run(db, world.environment, request, now=world.now)
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert len(await world.dequeue()) == 1


async def test_a_delayed_run_is_queued_when_its_time_has_come(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    run_id = await world.trigger("add", delay="1h30m")
    until = await world.trigger("add", delay=(world.now + timedelta(hours=2)).isoformat())
    assert (await world.get(run_id)).status is RunStatus.DELAYED
    world.later(90 * 60)
    assert (await timers.enqueue_due_runs(db, now=world.now))[0] == 1
    assert (await world.get(until)).status is RunStatus.DELAYED
    await world.connect()
    assert [run.run_id for run in await world.dequeue()] == [run_id]


async def test_a_run_that_does_not_start_within_its_ttl_expires(db: Database) -> None:
    world = await World.make(db, make_task("add"), slug="dev")
    default, short = await world.trigger("add"), await world.trigger("add", ttl=30)
    assert (await world.get(default)).ttl == "10m"
    world.later(30)
    assert await timers.expire_due_runs(db, now=world.now) == 1
    found = await world.get(short)
    assert (found.status, found.expired_at) == (RunStatus.EXPIRED, world.now)
    await world.connect()
    assert [run.run_id for run in await world.dequeue()] == [default]


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"delay": "soon"}, 400, "neither a duration"),
        ({"ttl": "-1"}, 400, "not a duration"),
        ({"tags": [f"t{n}" for n in range(11)]}, 422, "at most 10 tags"),
        ({"metadata": [1]}, 400, "JSON object"),
        ({"debounce": {"key": "k"}}, 422, "debounce"),
        ({"parent_batch": "batch_1"}, 422, "parentBatch"),
        ({"queue": {"name": "ü"}}, 422, "no queue name"),
        ({"concurrency_key": "a\x00"}, 400, "NUL"),
        ({"lock_to_version": "20200101.1"}, 422, "no version 20200101.1"),
    ],
)
async def test_what_can_not_be_is_refused_and_nothing_is_stored(
    db: Database, options: dict[str, Any], status: int, says: str
) -> None:
    world = await World.make(db, make_task("add"))
    with pytest.raises(RequestError, match=says) as caught:
        await world.trigger("add", **options)
    assert caught.value.status == status
    assert await world.fetch("SELECT 1 FROM runs") == []


@pytest.mark.parametrize("payload", ['{"a":', '"\ud800"'])
async def test_payloads_that_are_no_json_are_refused(db: Database, payload: str) -> None:
    world = await World.make(db, make_task("add"))
    body = TriggerBody.model_construct(payload=payload, options=TriggerOptions())
    request = triggering.TriggerRequest(task_id="add", body=body)
    with pytest.raises(RequestError):
        await triggering.trigger_run(db, world.environment, request, now=world.now)


async def test_lists_filter_and_page_in_both_directions(db: Database) -> None:
    world = await World.make(db, make_task("add"))
    ids: list[str] = []
    for n in range(5):
        ids.insert(0, await world.trigger("add", tags=["odd" if n % 2 else "even"]))
        world.later(1)
    async with db.transaction() as tx:
        first = await runs.list_runs(tx, world.environment, RunFilters(), Page(size=2))
        assert ([run.id for run in first.runs], first.previous) == (ids[:2], None)
        second = await runs.list_runs(
            tx, world.environment, RunFilters(), Page(size=2, after=first.next)
        )
        assert [run.id for run in second.runs] == ids[2:4]
        back = await runs.list_runs(
            tx, world.environment, RunFilters(), Page(size=2, before=second.previous)
        )
        assert ([run.id for run in back.runs], back.previous) == (ids[:2], None)
        odd = await runs.list_runs(tx, world.environment, RunFilters(tags=["odd"]), Page())
        assert [run.id for run in odd.runs] == [ids[1], ids[3]]
        none = RunFilters(statuses=[RunStatus.COMPLETED])
        assert (await runs.list_runs(tx, world.environment, none, Page())).runs == []

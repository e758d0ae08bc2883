"""Debounced triggers: one delayed run for a key, pushed until there are no more triggers."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.engine import maintenance, timers
from runwell.engine.batches import BatchRequest, trigger_batch
from runwell.engine.db import Database
from runwell.engine.triggering import Triggered
from tests.support.factories import (
    NOW,
    Scene,
    an_item,
    check_consistency,
    make_scene,
    make_task,
    one_transaction,
    read,
    wait_until_blocked,
)
from tests.support.rows import count_runs


async def push(
    scene: Scene,
    payload: str = "1",
    *,
    key: str = "k",
    task_id: str = "add",
    db: Database | None = None,
    request_key: str | None = None,
    **fields: Any,
) -> Triggered:
    """A debounced trigger; upper-case fields would be options, lower-case ones are of debounce."""
    options = fields.pop("options", {})
    debounce = {"key": key, "delay": "10s", **fields}
    return await scene.trigger(
        task_id, payload, db=db, request_key=request_key, debounce=debounce, **options
    )


async def enqueue_due(scene: Scene) -> int:
    count, _ = await timers.enqueue_due_runs(scene.db, now=scene.now)
    return count


async def test_each_trigger_pushes_the_one_run_further(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene)
    assert await scene.read_status(first.run_id) == "DELAYED/DELAYED"
    for _ in range(3):
        scene.later(9)
        assert await enqueue_due(scene) == 0
        assert await push(scene) == Triggered(first.run_id, is_cached=True)
    assert await count_runs(db) == 1
    run = await scene.get(first.run_id)
    assert run.delayed_until == NOW + timedelta(seconds=37)
    # A push is no event: a run that is pushed a thousand times has no history of it.
    assert await scene.read_events(first.run_id) == ["TRIGGER"]
    await check_consistency(db)
    scene.later(10)
    assert await enqueue_due(scene) == 1
    assert (await (await scene.connect()).dequeue_one()).run_id == first.run_id


async def test_leading_keeps_what_the_first_trigger_brought(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene, "1", options={"tags": ["a"], "metadata": {"n": 1}})
    await push(scene, "2", options={"tags": ["b"], "metadata": {"n": 2}, "maxAttempts": 7})
    run = await scene.get(first.run_id)
    assert (run.payload, run.tags, run.metadata) == ("1", ["a"], {"n": 1})


async def test_trailing_takes_what_the_last_trigger_brought(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene, "1", mode="trailing", options={"tags": ["a"], "metadata": {"n": 1}})
    await push(
        scene,
        "2",
        mode="trailing",
        options={"tags": ["b", "c"], "metadata": {"n": 2}, "machine": "micro", "maxAttempts": 7},
    )
    run = await scene.get(first.run_id)
    assert (run.payload, run.tags, run.metadata) == ("2", ["b", "c"], {"n": 2})
    (row,) = await read(db, "SELECT machine, max_attempts FROM runs")
    assert tuple(row) == ("micro", 7)
    await push(scene, json.dumps({"n": 3}), mode="trailing")
    run = await scene.get(first.run_id)
    assert (run.payload, run.tags, run.metadata) == ('{"n": 3}', [], None)


async def test_a_run_is_pushed_no_further_than_its_longest_delay(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene, maxDelay="25s")
    for _ in range(3):
        scene.later(8)
        await push(scene, maxDelay="1h")
    assert (await scene.get(first.run_id)).delayed_until == NOW + timedelta(seconds=25)
    scene.later(1)
    assert await enqueue_due(scene) == 1
    second = await push(scene, maxDelay="25s")
    assert second.run_id != first.run_id
    assert (await scene.get(second.run_id)).delayed_until == scene.now + timedelta(seconds=10)


async def test_a_delay_besides_holds_the_run_back_until_then(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene, maxDelay="20s", options={"delay": "1m"})
    scene.later(5)
    await push(scene, options={"delay": "1s"})
    run = await scene.get(first.run_id)
    assert run.delayed_until == NOW + timedelta(seconds=15)
    scene.later(1)
    await push(scene, options={"delay": "1h"})
    assert (await scene.get(first.run_id)).delayed_until == NOW + timedelta(minutes=1)


async def test_after_the_run_went_on_its_way_there_is_another_one(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene)
    scene.later(10)
    assert await enqueue_due(scene) == 1
    second = await push(scene)
    assert (second.run_id != first.run_id, second.is_cached) == (True, False)
    await scene.cancel(second.run_id)
    third = await push(scene)
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    await check_consistency(db)


async def test_keys_belong_to_a_task_and_an_environment(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other"))
    of_dev = await make_scene(db, make_task(), slug="dev")
    made = [
        await push(scene),
        await push(scene, key="l"),
        await push(scene, task_id="other"),
        await push(of_dev),
    ]
    assert len({one.run_id for one in made}) == 4


async def test_triggers_at_the_same_time_are_one_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    async with asyncio.timeout(60):
        made = await asyncio.gather(*(push(scene, str(n)) for n in range(30)))
    assert len({one.run_id for one in made}) == 1
    assert sorted(one.is_cached for one in made) == [False] + [True] * 29
    assert await count_runs(db) == 1
    await check_consistency(db)


async def test_a_push_that_comes_before_the_timer_keeps_the_run_delayed(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene)
    scene.later(10)
    async with one_transaction(db) as first_db:
        await push(scene, db=first_db)
        # The timer passes over what is locked, and sees the new instant afterwards.
        assert await enqueue_due(scene) == 0
    assert await enqueue_due(scene) == 0
    assert await scene.read_status(first.run_id) == "DELAYED/DELAYED"
    await check_consistency(db)


async def test_a_push_that_comes_after_the_timer_makes_another_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await push(scene)
    scene.later(10)
    async with one_transaction(db) as timer_db:
        assert (await timers.enqueue_due_runs(timer_db, now=scene.now))[0] == 1
        pushing = asyncio.create_task(push(scene))
        await wait_until_blocked(db)
    second = await pushing
    assert (second.run_id != first.run_id, second.is_cached) == (True, False)
    assert await scene.read_status(first.run_id) == "QUEUED/QUEUED"
    await check_consistency(db)


async def test_a_request_sent_again_pushes_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    keys = [make_request_key(scene.now) for _ in range(3)]
    first = await push(scene, "1", mode="trailing", request_key=keys[0])
    second = await push(scene, "2", mode="trailing", request_key=keys[1])
    await push(scene, "3", mode="trailing", request_key=keys[2])
    # The answers to these were lost.
    assert await push(scene, "1", mode="trailing", request_key=keys[0]) == first
    assert await push(scene, "2", mode="trailing", request_key=keys[1]) == second
    assert (await scene.get(first.run_id)).payload == "3"
    scene.later(10)
    assert await enqueue_due(scene) == 1
    assert await push(scene, "1", mode="trailing", request_key=keys[0]) == first
    assert await count_runs(db) == 1


async def test_a_trigger_that_died_before_its_commit_leaves_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())

    async def die_before_commit() -> None:
        async with one_transaction(db) as first_db:
            await push(scene, db=first_db)
            raise EOFError

    with pytest.raises(EOFError):
        await die_before_commit()
    assert not (await push(scene)).is_cached
    assert await count_runs(db) == 1


async def test_an_idempotency_key_that_has_a_run_goes_first(db: Database) -> None:
    scene = await make_scene(db, make_task())
    keyed = {"idempotencyKey": "i"}
    first = await push(scene, options=keyed)
    scene.later(5)
    assert await push(scene, options=keyed) == Triggered(first.run_id, is_cached=True)
    assert (await scene.get(first.run_id)).delayed_until == NOW + timedelta(seconds=10)
    # Another key pushes, and stands for the run from then on.
    other = await push(scene, options={"idempotencyKey": "j"})
    assert other.run_id == first.run_id
    assert await scene.trigger(idempotencyKey="j") == other


async def test_items_of_a_batch_are_debounced_too(db: Database) -> None:
    scene = await make_scene(db, make_task())

    def debounced(payload: str, key: str) -> Any:
        debounce = {"key": key, "delay": "10s", "mode": "trailing"}
        return an_item(payload=payload, debounce=debounce)

    request = BatchRequest(
        items=[debounced("1", "b"), an_item(), debounced("2", "a"), debounced("3", "b")]
    )
    batch = await trigger_batch(db, scene.environment, request, now=scene.now)
    first, plain, other, last = batch.items
    assert first.run_id == last.run_id
    assert len({first.run_id, plain.run_id, other.run_id}) == 3
    assert [item.is_cached for item in batch.items] == [False, False, False, True]
    assert (await scene.get(first.run_id)).payload == "3"
    assert (await scene.get(plain.run_id)).delayed_until is None
    await check_consistency(db)


@pytest.mark.parametrize(
    ("debounce", "options", "words"),
    [
        ({"delay": "soon"}, {}, r"options\.debounce\.delay: 'soon' is not a duration"),
        ({"delay": "0s"}, {}, r"options\.debounce\.delay: it must be longer than nothing"),
        ({"maxDelay": "5s"}, {}, r"options\.debounce\.maxDelay: 5s is shorter than the delay"),
        ({"maxDelay": "x"}, {}, r"options\.debounce\.maxDelay: 'x' is not a duration"),
        ({"key": "a\x00"}, {}, "NUL"),
        ({}, {"delay": "soon"}, r"options\.delay: 'soon'"),
    ],
)
async def test_a_debounce_that_can_not_be_is_refused(
    db: Database, debounce: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=words) as refused:
        await push(scene, options=options, **debounce)
    assert refused.value.status == 400
    assert await count_runs(db) == 0


async def test_idle_debounces_are_forgotten(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await push(scene, key="gone")
    scene.later(3000)
    await push(scene, key="kept", delay="10h")
    assert await enqueue_due(scene) == 1
    scene.later(3000)
    await maintenance.delete_idle_debounces(db, now=scene.now)
    rows = await read(db, "SELECT key FROM debounces")
    assert [row["key"] for row in rows] == ["kept"]

"""One run for an idempotency key while it lasts, and one for a request however often it is sent."""

import asyncio

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.core.statuses import RunStatus
from runwell.engine import timers
from runwell.engine.db import Database
from runwell.engine.idempotency import reset_key
from runwell.engine.triggering import Triggered
from tests.support.factories import (
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    one_transaction,
    wait_until_blocked,
)
from tests.support.rows import count_runs


async def test_an_idempotency_key_gives_its_run_until_it_expires(db: Database) -> None:
    scene = await make_scene(db, make_task())
    first = await scene.trigger(idempotencyKey="k", idempotencyKeyTTL="1m")
    scene.later(59)
    again = await scene.trigger(idempotencyKey="k")
    assert (again.run_id, again.is_cached) == (first.run_id, True)
    scene.later(2)
    other = await scene.trigger(idempotencyKey="k")
    assert (other.run_id != first.run_id, other.is_cached) == (True, False)
    scene.later(29 * 86400)
    assert (await scene.trigger(idempotencyKey="k")).run_id == other.run_id
    scene.later(2 * 86400)
    assert not (await scene.trigger(idempotencyKey="k")).is_cached


async def test_an_idempotency_key_belongs_to_a_task_and_an_environment(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other"))
    of_dev = await make_scene(db, make_task(), slug="dev")
    triggered = [
        await scene.trigger("add", idempotencyKey="k"),
        await scene.trigger("other", idempotencyKey="k"),
        await of_dev.trigger("add", idempotencyKey="k"),
    ]
    assert len({found.run_id for found in triggered}) == 3


async def test_an_idempotency_key_that_lives_no_duration_is_refused(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"options\.idempotencyKeyTTL") as refused:
        await scene.trigger(idempotencyKey="k", idempotencyKeyTTL="x")
    assert refused.value.status == 400


async def test_a_request_sent_again_gives_the_same_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    key = make_request_key(scene.now)
    first = await scene.trigger(request_key=key)
    scene.later(5)
    again = await scene.trigger(request_key=key)
    assert again == first
    assert not again.is_cached
    assert await count_runs(db) == 1


async def test_a_request_sent_again_when_its_run_has_ended_gives_that_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    key = make_request_key(scene.now)
    first = await scene.trigger(request_key=key)
    await scene.cancel(first.run_id)
    assert await scene.trigger(request_key=key) == first
    assert (await scene.get(first.run_id)).status is RunStatus.CANCELED
    await check_consistency(db)


async def test_a_request_with_an_idempotency_key_sent_again_is_no_cached_run(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    key = make_request_key(scene.now)
    first = await scene.trigger(request_key=key, idempotencyKey="k")
    assert await scene.trigger(request_key=key, idempotencyKey="k") == first
    cached = await scene.trigger(request_key=make_request_key(scene.now), idempotencyKey="k")
    assert (cached.run_id, cached.is_cached) == (first.run_id, True)


async def test_a_request_key_in_another_environment_is_another_request(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    key = make_request_key(scene.now)
    first, other = await scene.trigger(request_key=key), await of_dev.trigger(request_key=key)
    assert first.run_id != other.run_id


@pytest.mark.parametrize("end", ["FAILED", "EXPIRED"])
async def test_a_run_that_failed_gives_its_key_up(db: Database, end: str) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    first = await scene.trigger(idempotencyKey="k", ttl="1m")
    if end == "FAILED":
        worker = await scene.connect()
        await worker.report(fail(await worker.start_one()))
    else:
        assert await timers.expire_due_runs(db, now=scene.later(61)) == 1
    assert (await scene.get(first.run_id)).status == end
    second = await scene.trigger(idempotencyKey="k")
    assert (second.run_id != first.run_id, second.is_cached) == (True, False)
    assert (await scene.trigger(idempotencyKey="k")).run_id == second.run_id
    await check_consistency(db)


async def test_a_run_that_may_still_succeed_keeps_its_key(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 2}))
    first = await scene.trigger(idempotencyKey="k")
    worker = await scene.connect()
    await worker.report(fail(await worker.start_one()))
    assert await scene.read_status(first.run_id) == "WAITING_TO_RETRY/REATTEMPTING"
    assert await scene.trigger(idempotencyKey="k") == Triggered(first.run_id, is_cached=True)


@pytest.mark.parametrize("is_canceled", [True, False])
async def test_a_run_that_completed_or_was_canceled_keeps_its_key(
    db: Database, is_canceled: bool
) -> None:
    scene = await make_scene(db, make_task())
    first = await scene.trigger(idempotencyKey="k")
    if is_canceled:
        await scene.cancel(first.run_id)
    else:
        worker = await scene.connect()
        await worker.report(complete(await worker.start_one()))
    assert await scene.trigger(idempotencyKey="k") == Triggered(first.run_id, is_cached=True)


async def test_a_key_is_free_after_its_reset(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other"))
    first = await scene.trigger(idempotencyKey="k")
    other = await scene.trigger("other", idempotencyKey="k")
    assert await reset_key(db, scene.environment, "add", "k")
    assert not await reset_key(db, scene.environment, "add", "k")
    second = await scene.trigger(idempotencyKey="k")
    assert second.run_id != first.run_id
    assert (await scene.trigger("other", idempotencyKey="k")).run_id == other.run_id
    assert await scene.read_status(first.run_id) == "QUEUED/QUEUED"


async def test_triggers_with_one_key_at_the_same_time_are_one_run(db: Database) -> None:
    scene = await make_scene(db, make_task())
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(scene.trigger(idempotencyKey="k") for _ in range(40)))
    assert len({one.run_id for one in found}) == 1
    assert sorted(one.is_cached for one in found) == [False] + [True] * 39
    assert await count_runs(db) == 1
    await check_consistency(db)


async def test_a_trigger_waits_for_one_with_its_key_that_has_not_committed(db: Database) -> None:
    scene = await make_scene(db, make_task())
    async with one_transaction(db) as first_db:
        first = await scene.trigger(idempotencyKey="k", db=first_db)
        second = asyncio.create_task(scene.trigger(idempotencyKey="k"))
        await wait_until_blocked(db)
    assert await second == Triggered(first.run_id, is_cached=True)


async def test_a_trigger_that_died_before_its_commit_leaves_its_key_free(db: Database) -> None:
    scene = await make_scene(db, make_task())

    async def die_before_commit() -> None:
        async with one_transaction(db) as first_db:
            await scene.trigger(idempotencyKey="k", db=first_db)
            others.append(asyncio.create_task(scene.trigger(idempotencyKey="k")))
            await wait_until_blocked(db)
            raise EOFError

    others: list[asyncio.Task[Triggered]] = []
    with pytest.raises(EOFError):
        await die_before_commit()
    assert not (await others[0]).is_cached
    assert await count_runs(db) == 1

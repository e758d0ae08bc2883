"""One run for an idempotency key while it lasts, and one for a request however often it is sent."""

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.core.statuses import RunStatus
from runwell.engine.db import Database
from tests.support.factories import (
    check_consistency,
    make_scene,
    make_task,
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

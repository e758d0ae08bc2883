"""Races of runs that wait: with what they wait for, with cancels and with the end of their lease.

Which race is forced where: see `test_races.py`.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from itertools import product

import pytest

from runwell.core.token_schemas import CreateTokenBody, EventMatch
from runwell.core.waits import DateWait, TokenWait, WaitAnswer
from runwell.engine import tokens, waitpoints, workers
from runwell.engine.db import Database
from runwell.engine.tokens import CreatedToken, Token
from tests.support.factories import (
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    read,
)
from tests.support.races import in_order, in_order_of_death
from tests.support.waits import go_on

Way = Callable[[Scene, CreatedToken, str, Database], Awaitable[object]]


async def _by_api(scene: Scene, token: CreatedToken, data: str, db: Database) -> None:
    await tokens.complete_token(db, scene.environment, token.id, data, now=scene.now)


async def _by_url(scene: Scene, token: CreatedToken, data: str, db: Database) -> None:
    await tokens.complete_by_url(db, token.id, token.callback_secret, data, now=scene.now)


async def _by_event(scene: Scene, _: CreatedToken, data: str, db: Database) -> None:
    await tokens.send_event(db, scene.environment, "paid", data, now=scene.now)


WAYS: dict[str, Way] = {"api": _by_api, "url": _by_url, "event": _by_event}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


async def _create(
    scene: Scene, *, lifetime: str = "1h", key: str | None = None, db: Database | None = None
) -> CreatedToken:
    body = CreateTokenBody(timeout=lifetime, idempotency_key=key, event=EventMatch(name="paid"))
    return await tokens.create_token(db or scene.db, scene.environment, body, now=scene.now)


async def _get(scene: Scene, token: CreatedToken) -> Token:
    async with scene.db.connection() as tx:
        return await tokens.get_token(tx, scene.environment, token.id)


async def _time_out(scene: Scene, db: Database) -> int:
    return await waitpoints.complete_due_waitpoints(db, now=scene.now)


def _on(token: CreatedToken) -> TokenWait:
    return TokenWait(wait_id="w1", token_id=token.id)


@each_way
@pytest.mark.parametrize("when", ["before", "while first", "while second", "after"])
async def test_a_token_completed_around_the_wait_for_it_lets_the_run_have_it_once(
    db: Database, way: Way, when: str
) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()

    async def complete_it(at: Database) -> None:
        await way(scene, token, "yes", at)

    async def wait(at: Database) -> WaitAnswer:
        return await worker.wait(run, _on(token), db=at)

    match when:
        case "before":
            await complete_it(db)
            answer = await wait(db)
        case "while first":
            _, answer = await in_order(db, complete_it, wait)
        case "while second":
            answer, _ = await in_order(db, wait, complete_it)
        case _:
            answer = await wait(db)
            await complete_it(db)
    # Recorded before its completion, the wait blocks the run; after it, it doesn't.
    is_blocked = when in {"while second", "after"}
    assert (answer.is_blocked, answer.refused) == (is_blocked, [])
    assert await go_on(scene) == ({worker.id} if is_blocked else set())
    assert await go_on(scene) == set()
    (wait_found,) = await worker.resume()
    assert [(one.is_ok, one.output) for one in wait_found.results] == [(True, '"yes"')]
    assert await worker.resume(wait_found) == []
    assert (await scene.read_events(run.run_id)).count("CONTINUE") == int(is_blocked)
    await worker.report(complete(run))
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_wait_first", [True, False])
async def test_a_token_that_times_out_around_the_wait_for_it_ends_the_wait_with_an_error(
    db: Database, is_wait_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    token = await _create(scene, lifetime="10s")
    await scene.trigger()
    run = await worker.start_one()
    scene.later(11)

    async def wait(at: Database) -> WaitAnswer:
        return await worker.wait(run, _on(token), db=at)

    async def time_out(at: Database) -> int:
        return await _time_out(scene, at)

    if is_wait_first:
        answer, number = await in_order(db, wait, time_out, passes_over=True)
        assert (answer.is_blocked, number) == (True, 0)
        # The loop looks again as long as something is due.
        assert await waitpoints.find_next_due(db) is not None
        assert await _time_out(scene, db) == 1
    else:
        number, answer = await in_order(db, time_out, wait)
        assert (answer.is_blocked, number) == (False, 1)
    await go_on(scene)
    (found,) = await worker.resume()
    assert [one.is_ok for one in found.results] == [False]
    await worker.report(complete(run))
    await check_all_at_rest(db)


async def test_of_two_completions_of_a_token_the_first_to_commit_counts(db: Database) -> None:
    scene = await make_scene(db, make_task())
    for one, other in product(WAYS.values(), repeat=2):
        token = await _create(scene)
        await in_order(
            db, partial(one, scene, token, "first"), partial(other, scene, token, "second")
        )
        assert (await _get(scene, token)).output == '"first"'
        assert await read(db, "SELECT FROM run_wakes") == []


@each_way
async def test_a_completion_whose_server_dies_leaves_the_token_to_the_next_one(
    db: Database, way: Way
) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await in_order_of_death(
        db, partial(way, scene, token, "lost"), partial(way, scene, token, "second")
    )
    assert (await _get(scene, token)).output == '"second"'


@each_way
@pytest.mark.parametrize("is_completed_first", [True, False])
async def test_of_a_completion_and_the_timeout_of_a_token_the_first_to_commit_counts(
    db: Database, way: Way, is_completed_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene, lifetime="10s")
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    assert (await worker.wait(run, _on(token))).is_blocked
    scene.later(11)

    async def complete_it(at: Database) -> None:
        await way(scene, token, "yes", at)

    async def time_out(at: Database) -> int:
        return await _time_out(scene, at)

    if is_completed_first:
        _, number = await in_order(db, complete_it, time_out, passes_over=True)
    else:
        number, _ = await in_order(db, time_out, complete_it)
    assert number == (0 if is_completed_first else 1)
    assert await _time_out(scene, db) == 0
    found = await _get(scene, token)
    expected = ("COMPLETED", '"yes"') if is_completed_first else ("TIMED_OUT", None)
    assert (found.status, found.output) == expected
    await go_on(scene)
    (wait,) = await worker.resume()
    assert [(one.is_ok, one.output) for one in wait.results] == [
        (is_completed_first, '"yes"' if is_completed_first else None)
    ]
    assert (await scene.read_events(run.run_id)).count("CONTINUE") == 1


async def test_two_servers_time_a_token_out_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await _create(scene, lifetime="10s")
    scene.later(11)

    async def time_out(at: Database) -> int:
        return await _time_out(scene, at)

    assert await in_order(db, time_out, time_out, passes_over=True) == (1, 0)
    assert await _time_out(scene, db) == 0


async def test_two_tokens_created_at_once_with_one_key_are_one(db: Database) -> None:
    scene = await make_scene(db, make_task())

    async def create(at: Database) -> CreatedToken:
        return await _create(scene, key="k", db=at)

    first, second = await in_order(db, create, create)
    assert (first.is_cached, second.is_cached) == (False, True)
    assert (second.id, second.callback_secret) == (first.id, first.callback_secret)
    # The key has lived its time: whoever comes first takes it again.
    scene.later(timedelta(days=31).total_seconds())
    third, fourth = await in_order(db, create, create)
    assert (third.is_cached, fourth.is_cached) == (False, True)
    assert first.id != third.id == fourth.id
    scene.later(timedelta(days=31).total_seconds())
    fifth = await in_order_of_death(db, create, create)
    assert not fifth.is_cached
    assert len(await read(db, "SELECT FROM waitpoints")) == 3


async def test_a_wait_sent_again_while_it_is_recorded_is_one_wait(db: Database) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    date = DateWait(wait_id="w2", date=scene.now + timedelta(seconds=5))

    async def wait(at: Database) -> WaitAnswer:
        return await worker.wait(run, _on(token), date, db=at)

    first, second = await in_order(db, wait, wait)
    assert first.is_blocked
    assert second.is_blocked
    assert len(await read(db, "SELECT FROM run_waits")) == 2
    assert (await scene.read_events(run.run_id)).count("BLOCK") == 1
    assert await in_order_of_death(db, wait, wait) == second
    await check_consistency(db)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_run_is_canceled_while_it_begins_to_wait(db: Database, is_first: bool) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()

    async def wait(at: Database) -> WaitAnswer:
        return await worker.wait(run, _on(token), db=at)

    async def cancel(at: Database) -> str | None:
        return (await scene.cancel(run.run_id, db=at)).worker_id

    if is_first:
        told, answer = await in_order(db, cancel, wait)
    else:
        answer, told = await in_order(db, wait, cancel)
    assert told == worker.id
    assert (answer.is_blocked, answer.is_lost) == (not is_first, False)
    await _by_api(scene, token, "yes", db)
    await go_on(scene)
    assert await scene.read_status(run.run_id) == "PENDING_CANCEL/CANCELED"
    await worker.disconnect()
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_run_is_canceled_while_it_goes_on(db: Database, is_first: bool) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.wait(run, _on(token))
    await _by_url(scene, token, "yes", db)

    async def continue_(at: Database) -> set[str]:
        return (await waitpoints.continue_runs(at, now=scene.now)).worker_ids

    async def cancel(at: Database) -> str | None:
        return (await scene.cancel(run.run_id, db=at)).worker_id

    if is_first:
        told, going = await in_order(db, cancel, continue_)
        assert going == set()
    else:
        going, told = await in_order(db, continue_, cancel)
        assert going == {worker.id}
    assert told == worker.id
    assert await scene.read_status(run.run_id) == "PENDING_CANCEL/CANCELED"
    await worker.disconnect()
    await check_all_at_rest(db)


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_lease_of_a_run_ends_while_it_begins_to_wait(
    db: Database, is_first: bool
) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    scene.later(100)

    async def wait(at: Database) -> WaitAnswer:
        return await worker.wait(run, _on(token), db=at)

    async def take(at: Database) -> set[int]:
        return await workers.take_lost_runs(at, now=scene.now)

    if is_first:
        _, answer = await in_order(db, take, wait)
        assert answer.is_lost
    else:
        answer, _ = await in_order(db, wait, take)
        assert answer.is_blocked
    assert await scene.read_status(run.run_id) == "QUEUED/REATTEMPTING"
    assert await read(db, "SELECT FROM run_waits") == []
    await check_consistency(db)


@pytest.mark.parametrize("is_first", [True, False])
async def test_the_lease_of_a_run_ends_while_it_goes_on(db: Database, is_first: bool) -> None:
    scene = await make_scene(db, make_task())
    token = await _create(scene)
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.wait(run, _on(token))
    await _by_api(scene, token, "yes", db)
    scene.later(100)

    async def continue_(at: Database) -> set[str]:
        return (await waitpoints.continue_runs(at, now=scene.now)).worker_ids

    async def take(at: Database) -> set[int]:
        return await workers.take_lost_runs(at, now=scene.now)

    if is_first:
        _, going = await in_order(db, take, continue_)
        assert going == set()
    else:
        going, _ = await in_order(db, continue_, take)
        assert going == {worker.id}
    assert await scene.read_status(run.run_id) == "QUEUED/REATTEMPTING"
    assert await worker.resume() == []
    await check_consistency(db)
    other = await scene.connect()
    again = await other.start_one()
    # The token is complete for the next attempt too.
    assert not (await other.wait(again, _on(token))).is_blocked
    await other.report(complete(again))
    await check_all_at_rest(db)

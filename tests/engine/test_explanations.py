"""Why is this run not running? A sentence for each thing that may hold a run."""

from datetime import timedelta
from typing import Any

import pytest

from runwell.core.explanations import ExplanationReason
from runwell.core.protocol import HeartbeatBody, RateLimitManifest, TaskManifest
from runwell.engine import (
    environments,
    explanations,
    queue_settings,
    rate_limits,
    runs,
    workers,
)
from runwell.engine.db import Database
from runwell.engine.queries import Query, load_queries
from runwell.engine.queue_settings import QueueReference
from tests.support.explanations import explain_run, find_explanation
from tests.support.factories import (
    Scene,
    Supervisor,
    complete,
    fail,
    make_scene,
    make_task,
    read,
    start,
)
from tests.support.plans import explain

_sql = load_queries("explanations")
_R = ExplanationReason
MAIL = QueueReference(type="custom", value="mail")


async def _say(scene: Scene, worker: Supervisor, versions: list[str]) -> None:
    """A heartbeat that tells which versions the worker has."""
    body = HeartbeatBody(worker_id=worker.id, runs=[], background_worker_ids=versions)
    await workers.heartbeat(scene.db, scene.environment, body, now=scene.now)


def _rated(limit: int, seconds: int, per: str, **fields: Any) -> TaskManifest:
    task = make_task(queue="mail", **fields)
    assert task.queue is not None
    task.queue.rate_limits = [
        RateLimitManifest.model_validate({"limit": limit, "windowSeconds": seconds, "per": per})
    ]
    return task


async def test_a_run_that_executes_needs_no_explanation(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    assert await find_explanation(scene, run.run_id) is None


async def test_a_run_in_a_paused_queue_says_so_and_what_is_ahead(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    first, second, third = await scene.trigger_many(3)
    await queue_settings.set_paused(db, scene.environment, MAIL, is_paused=True)
    found = await explain_run(scene, first)
    assert (found.reason, found.message) == (_R.QUEUE_PAUSED, "the queue mail is paused")
    assert (found.ahead, found.run_ids) == (0, ())
    assert (await explain_run(scene, second)).message == (
        "the queue mail is paused; 1 run is ahead of it"
    )
    found = await explain_run(scene, third)
    assert (found.ahead, found.message) == (2, "the queue mail is paused; 2 runs are ahead of it")


async def test_a_paused_environment_comes_before_a_paused_queue(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    run_id = (await scene.trigger()).run_id
    await queue_settings.set_paused(db, scene.environment, MAIL, is_paused=True)
    await environments.set_paused(db, scene.environment, is_paused=True)
    found = await explain_run(scene, run_id)
    assert (found.reason, found.message) == (
        _R.ENVIRONMENT_PAUSED,
        "the environment prod is paused",
    )


async def test_no_worker_is_connected_or_all_leases_have_ended(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    await of_dev.connect()
    run_id = (await scene.trigger()).run_id
    message = "no worker is connected in the environment prod"
    found = await explain_run(scene, run_id)
    assert (found.reason, found.message) == (_R.NO_WORKER, message)
    await scene.connect()
    assert (await explain_run(scene, run_id)).reason is _R.NEXT
    scene.later(100)
    assert (await explain_run(scene, run_id)).message == message


async def test_no_worker_has_the_version_that_a_run_needs(db: Database) -> None:
    scene = await make_scene(db, make_task())
    old = scene.versions[0]
    new = await scene.register(make_task())
    locked = (await scene.trigger(lockToVersion=old.version)).run_id
    free = (await scene.trigger(concurrencyKey="free")).run_id
    worker = await scene.connect()
    # What a worker has is not known before it said so.
    assert (await explain_run(scene, locked)).reason is _R.NEXT
    await _say(scene, worker, [new.id])
    found = await explain_run(scene, locked)
    assert found.reason is _R.NO_WORKER_WITH_VERSION
    assert found.message == f"no worker that is connected has the version {old.version}"
    assert (await explain_run(scene, free)).reason is _R.NEXT
    await _say(scene, worker, [old.id])
    assert (await explain_run(scene, free)).message == (
        f"no worker that is connected has the version {new.version}"
    )
    # One that says nothing leaves it as it was.
    await worker.heartbeat()
    assert (await explain_run(scene, locked)).reason is _R.NEXT


async def test_the_limit_of_a_queue_is_held_by_runs_that_are_named(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=1))
    first, second = await scene.trigger_many(2)
    worker = await scene.connect()
    await worker.dequeue(1)
    found = await explain_run(scene, second)
    assert found.reason is _R.QUEUE_LIMIT
    assert found.message == f"the limit of the queue mail, 1, is held by {first}"
    assert (found.run_ids, found.run_count, found.ahead) == ([first], 1, 0)


async def test_the_limit_of_a_key_names_three_of_those_that_hold_it(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=5))
    await scene.trigger_many(2, concurrencyKey="other")
    ids = await scene.trigger_many(7, concurrencyKey="ada")
    worker = await scene.connect()
    held = [run.run_id for run in await worker.dequeue(100)]
    found = await explain_run(scene, ids[-1])
    assert found.reason is _R.QUEUE_LIMIT
    assert len(found.run_ids) == 3
    assert set(found.run_ids) < set(held) & set(ids)
    named = ", ".join(found.run_ids)
    assert found.message == (
        f"the limit of the queue mail for the key ada, 5, is held by {named} and 2 more; "
        "1 run is ahead of it"
    )
    assert found.run_count == 5


async def test_a_limit_of_zero_is_held_by_nobody(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail", limit=0))
    run_id = (await scene.trigger()).run_id
    await scene.connect()
    found = await explain_run(scene, run_id)
    assert (found.message, found.run_count) == ("the limit of the queue mail is 0", 0)


async def test_the_limit_of_the_environment_is_held_by_runs_of_other_queues(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task("a"), make_task("b"))
    await environments.set_concurrency_limit(db, scene.environment, 2)
    holders = await scene.trigger_many(2, "a")
    worker = await scene.connect()
    await worker.dequeue(2)
    run_id = (await scene.trigger("b")).run_id
    found = await explain_run(scene, run_id)
    assert found.reason is _R.ENVIRONMENT_LIMIT
    assert found.message == (
        f"the limit of the environment prod, 2, is held by {holders[0]} and {holders[1]}"
    )


@pytest.mark.parametrize(
    ("per", "what"), [("queue", "the queue mail"), ("key", "the queue mail for the key ada")]
)
async def test_a_rate_limit_says_until_when_it_is_used_up(
    db: Database, per: str, what: str
) -> None:
    scene = await make_scene(db, _rated(1, 90, per))
    first, second = await scene.trigger_many(2, concurrencyKey="ada")
    worker = await scene.connect()
    started_at = scene.now
    (run,) = await worker.dequeue()
    assert run.run_id == first
    found = await explain_run(scene, second)
    assert found.reason is _R.RATE_LIMIT
    assert found.until == started_at + timedelta(seconds=90)
    assert found.message == (
        f"the rate limit of {what}, 1 in 1m 30s, is used up until 2026-03-01T12:01:30Z"
    )
    scene.later(90)
    await rate_limits.open_due_subqueues(db, now=scene.now)
    await worker.heartbeat(run)
    assert (await explain_run(scene, second)).reason is _R.NEXT


async def test_runs_that_are_ahead_are_counted_up_to_a_number(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "MOST_COUNTED", 3)
    scene = await make_scene(db, make_task(queue="mail"))
    ids = await scene.trigger_many(6)
    await scene.connect()
    found = [await explain_run(scene, run_id) for run_id in ids]
    assert [each.reason for each in found] == [_R.NEXT, *[_R.RUNS_AHEAD] * 5]
    assert [each.message for each in found] == [
        "it is the next of the queue mail: a worker takes it in a moment",
        "1 run is ahead of it in the queue mail",
        "2 runs are ahead of it in the queue mail",
        "3 runs are ahead of it in the queue mail",
        "more than 3 runs are ahead of it in the queue mail",
        "more than 3 runs are ahead of it in the queue mail",
    ]
    first_of_all = (await scene.trigger(priority=60)).run_id
    assert (await explain_run(scene, first_of_all)).ahead == 0


async def test_every_worker_that_could_take_it_is_full(db: Database) -> None:
    scene = await make_scene(db, make_task(queue="mail"))
    await scene.trigger_many(2)
    worker = await scene.connect()
    await worker.dequeue(2)
    await read(db, "UPDATE workers SET capacity = 2 RETURNING id")
    run_id = (await scene.trigger()).run_id
    found = await explain_run(scene, run_id)
    assert found.reason is _R.WORKERS_FULL
    assert found.message == (
        "it is the next of the queue mail, and every worker that could take it is full: they "
        "hold 2 runs, and can hold 2"
    )


async def test_a_run_that_a_worker_has_just_taken(db: Database) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    worker = await scene.connect("machine-1")
    await worker.dequeue_one()
    found = await explain_run(scene, run_id)
    assert found.reason is _R.TAKEN
    assert found.message == (
        "the worker machine-1 took it at 2026-03-01T12:00:00Z and is starting it"
    )


async def test_a_delayed_run_and_one_that_waits_to_retry_say_until_when(db: Database) -> None:
    scene = await make_scene(db, make_task())
    delayed = (await scene.trigger(delay="1h")).run_id
    found = await explain_run(scene, delayed)
    assert (found.reason, found.until) == (_R.DELAYED, scene.now + timedelta(hours=1))
    assert found.message == "it is delayed until 2026-03-01T13:00:00Z"
    await scene.trigger()
    worker = await scene.connect()
    run = await worker.start_one()
    await worker.report(fail(run, at=scene.now, retry_at=scene.now + timedelta(seconds=30)))
    found = await explain_run(scene, run.run_id)
    assert (found.reason, found.until) == (_R.RETRYING, scene.now + timedelta(seconds=30))
    assert found.message == (
        "its attempt 1 failed, and the next one waits until 2026-03-01T12:00:30Z"
    )


async def test_no_version_has_the_task(db: Database) -> None:
    scene = await make_scene(db)
    run_id = (await scene.trigger("missing")).run_id
    found = await explain_run(scene, run_id)
    assert (found.reason, found.message) == (
        _R.NO_TASK,
        "no version of any task has been registered in the environment prod",
    )
    version = await scene.register(make_task())
    assert (await explain_run(scene, run_id)).message == (
        f"no version has its task: {version.version}, the current one, has no task missing"
    )


async def test_a_canceled_run_is_being_stopped_and_then_has_ended(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger()
    worker = await scene.connect("machine-1")
    run = await worker.start_one()
    await scene.cancel(run.run_id)
    found = await explain_run(scene, run.run_id)
    assert found.reason is _R.CANCELING
    assert found.message == "it was canceled, and the worker machine-1 has yet to stop it"
    await worker.disconnect()
    found = await explain_run(scene, run.run_id)
    assert (found.reason, found.message) == (
        _R.FINISHED,
        "it was canceled at 2026-03-01T12:00:00Z",
    )


async def test_a_run_that_has_ended_says_how(db: Database) -> None:
    scene = await make_scene(db, make_task(retry={"max_attempts": 1}))
    ids = await scene.trigger_many(2)
    worker = await scene.connect()
    for run in await worker.dequeue():
        ends = complete if run.run_id == ids[0] else fail
        await worker.report(start(run), ends(run, at=scene.now))
    assert (await explain_run(scene, ids[0])).message == "it completed at 2026-03-01T12:00:00Z"
    assert (await explain_run(scene, ids[1])).message == (
        "it failed at 2026-03-01T12:00:00Z: ValueError: no"
    )
    expired = (await scene.trigger(ttl="10s")).run_id
    scene.later(11)
    async with db.transaction() as tx:
        await runs.expire_runs(tx, [expired], now=scene.now)
    found = await explain_run(scene, expired)
    assert found.message.startswith("it expired before it started at 2026-03-01T12:00:11Z: Run exp")
    assert "(10s)" in found.message


async def test_an_explanation_reads_by_indexes(db: Database) -> None:
    scene = await make_scene(db, make_task())
    queries: list[tuple[Any, dict[str, Any]]] = [
        (
            _sql.find_obstacles,
            {"environment_id": scene.environment.id, "now": str(scene.now), "most_counted": 9},
        ),
        (
            _sql.list_slot_holders,
            {"environment_id": scene.environment.id, "subqueue_id": 1, "most": 3},
        ),
        (_sql.list_open_waits, {"most": 3}),
    ]
    for query, values in queries:
        async with db.transaction() as tx:
            nodes = await explain(tx, query, run_id="run_x", **values)
            await tx.execute(Query(name="forget", text="DEALLOCATE asked", parameters=()))
        assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []

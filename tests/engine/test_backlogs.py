"""How many runs may wait: counted by a loop, held at the door, never more than a count too many."""

from datetime import timedelta

import pytest

from runwell.core.ids import make_request_key
from runwell.core.schemas import TriggerBody
from runwell.engine.backlogs import Backlogs, QueueSizes, is_known_batch, is_known_run
from runwell.engine.batches import BatchRequest, trigger_batch
from runwell.engine.db import Database
from runwell.engine.queries import parse_queries
from runwell.engine.trigger_options import TriggerRequest
from tests.support.factories import Scene, make_scene, make_task

(LOCK,) = parse_queries("-- name: lock\nLOCK TABLE subqueues")


class Hands:
    """A clock that only the test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def backlogs(db: Database, clock: Hands) -> Backlogs:
    return Backlogs(db, QueueSizes(development=3, staging=3, production=3), clock=clock)


async def let_in(scene: Scene, backlogs: Backlogs, number: int) -> int:
    """Trigger so many runs, one by one; returns how many were let in."""
    admitted = 0
    for _ in range(number):
        if backlogs.has_room(scene.environment):
            await scene.trigger()
            admitted += 1
    return admitted


async def test_no_more_runs_are_let_in_than_may_wait(db: Database, backlogs: Backlogs) -> None:
    scene = await make_scene(db, make_task())
    assert await let_in(scene, backlogs, 3) == 3
    assert await backlogs.tick() == 1
    assert await let_in(scene, backlogs, 3) == 0
    message = str(backlogs.refusal(scene.environment))
    assert message == (
        "3 or more runs wait in the queues of the environment prod, and with another one it would "
        "be more than the 3 that may: let workers catch up, cancel what isn't needed, or raise "
        "RUNWELL_QUEUE_SIZE_PROD of the server"
    )


async def test_there_is_room_again_when_runs_have_left_the_queues(
    db: Database, backlogs: Backlogs
) -> None:
    scene = await make_scene(db, make_task())
    await let_in(scene, backlogs, 3)
    await backlogs.tick()
    worker = await scene.connect()
    await worker.dequeue(2)
    assert not backlogs.has_room(scene.environment)
    assert await backlogs.tick() == 1
    assert not backlogs.has_room(scene.environment, 3)
    assert await let_in(scene, backlogs, 2) == 2


async def test_runs_that_come_and_go_below_the_limit_are_never_refused(
    db: Database, backlogs: Backlogs
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    for _ in range(5):
        assert await let_in(scene, backlogs, 2) == 2
        assert len(await worker.dequeue(2)) == 2
        await backlogs.tick()


async def test_a_batch_is_let_in_whole_or_not_at_all(db: Database, backlogs: Backlogs) -> None:
    scene = await make_scene(db, make_task())
    await let_in(scene, backlogs, 2)
    await backlogs.tick()
    assert not backlogs.has_room(scene.environment, 2)
    assert "with another 2 it would be more" in str(backlogs.refusal(scene.environment, 2))
    assert backlogs.has_room(scene.environment)


async def test_environments_have_limits_of_their_own(db: Database, backlogs: Backlogs) -> None:
    prod = await make_scene(db, make_task())
    dev = await make_scene(db, make_task(), slug="dev")
    await let_in(prod, backlogs, 3)
    await backlogs.tick()
    assert not backlogs.has_room(prod.environment)
    assert await let_in(dev, backlogs, 3) == 3


async def test_what_other_servers_let_in_is_counted_after_a_while(
    db: Database, backlogs: Backlogs, clock: Hands
) -> None:
    scene = await make_scene(db, make_task())
    assert await let_in(scene, backlogs, 1) == 1
    await backlogs.tick()
    await scene.trigger_many(2)
    assert backlogs.has_room(scene.environment)
    clock.now += 4.9
    assert await backlogs.tick() == 0
    clock.now += 0.2
    assert await backlogs.tick() == 1
    assert not backlogs.has_room(scene.environment)


async def test_nothing_is_counted_while_nothing_is_triggered(
    db: Database, backlogs: Backlogs, clock: Hands
) -> None:
    scene = await make_scene(db, make_task())
    await let_in(scene, backlogs, 1)
    assert await backlogs.tick() == 1
    clock.now += 3600
    assert await backlogs.tick() == 0


async def test_delayed_and_executing_runs_do_not_count(db: Database, backlogs: Backlogs) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    await worker.start_one()
    await scene.trigger(delay="1h")
    await let_in(scene, backlogs, 2)
    await backlogs.tick()
    assert backlogs.has_room(scene.environment)


async def test_far_from_the_limit_no_run_is_counted(db: Database) -> None:
    scene = await make_scene(db, make_task())
    backlogs = Backlogs(db)
    await let_in(scene, backlogs, 3)
    async with db.transaction() as tx:
        # Counting the runs would wait for this; looking at the table's size doesn't.
        await tx.fetch(LOCK)
        assert await backlogs.tick() == 1
    assert backlogs.has_room(scene.environment, 1_000)


async def test_a_run_that_is_there_is_known_by_its_request_and_by_its_key(db: Database) -> None:
    scene = await make_scene(db, make_task())
    request_key = make_request_key(scene.now)
    await scene.trigger(request_key=request_key, idempotencyKey="key", idempotencyKeyTTL="1h")

    async def is_known(request_key: str | None, key: str | None, task_id: str = "add") -> bool:
        return await is_known_run(
            db,
            scene.environment,
            task_id,
            request_key=request_key,
            idempotency_key=key,
            now=scene.now,
        )

    assert await is_known(request_key, None)
    assert await is_known(None, "key")
    assert not await is_known(None, None)
    assert not await is_known(make_request_key(scene.now), "another key")
    assert not await is_known(None, "key", "another task")
    scene.later(3600)
    assert not await is_known(None, "key")


async def test_a_batch_that_is_there_is_known_by_its_request_and_by_its_key(db: Database) -> None:
    scene = await make_scene(db, make_task())
    request = BatchRequest(
        items=[TriggerRequest(task_id="add", body=TriggerBody())],
        request_key="request",
        idempotency_key="key",
        key_lifetime=timedelta(hours=1),
    )
    await trigger_batch(db, scene.environment, request, now=scene.now)

    async def is_known(request_key: str | None, key: str | None) -> bool:
        return await is_known_batch(
            db, scene.environment, request_key=request_key, idempotency_key=key, now=scene.now
        )

    assert await is_known("request", None)
    assert await is_known(None, "key")
    assert not await is_known(None, None)
    assert not await is_known("another", "another")

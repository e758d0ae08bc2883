"""Versions: their numbers, what they are made of, and the runs that waited for them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from runwell.core.errors import RequestError
from runwell.core.protocol import MachineManifest, MachineName, QueueManifest
from runwell.engine import deployments
from runwell.engine.db import Database
from runwell.engine.queues import enqueue_runs
from tests.support.factories import Scene, check_consistency, make_scene, make_task, read


async def _read_tasks(db: Database) -> list[dict[str, object]]:
    rows = await read(db, "SELECT * FROM background_worker_tasks ORDER BY task_id")
    return [dict(row) for row in rows]


async def _release(scene: Scene) -> int:
    return await scene.db.run(
        lambda tx: deployments.release_waiting_runs(tx, scene.environment.id, now=scene.now)
    )


async def test_versions_are_numbered_by_day(db: Database) -> None:
    scene = await make_scene(db)
    versions = [(await scene.register(make_task())).version for _ in range(3)]
    assert versions == ["20260301.1", "20260301.2", "20260301.3"]
    scene.now = datetime(2026, 3, 2, 0, 0, 1, tzinfo=UTC)
    assert (await scene.register(make_task())).version == "20260302.1"
    of_dev = await make_scene(db, slug="dev")
    assert (await of_dev.register(make_task())).version == "20260301.1"


async def test_the_tenth_version_of_a_day_is_numbered_ten(db: Database) -> None:
    scene = await make_scene(db)
    versions = [(await scene.register()).version for _ in range(11)]
    assert versions[-2:] == ["20260301.10", "20260301.11"]


async def test_contents_that_are_there_are_the_version_that_has_them(db: Database) -> None:
    scene = await make_scene(db)
    first = await scene.register(make_task(), content="contents-1")
    other = await scene.register(make_task(), content="contents-2")
    again = await scene.register(make_task(), content="contents-1")
    assert again == first != other
    # It is current again: that is what went back means.
    assert (await (await scene.connect()).dequeue()) == []
    await scene.trigger()
    (run,) = await (await scene.connect()).dequeue()
    assert run.version == first.version


async def test_contents_of_another_environment_are_another_version(db: Database) -> None:
    prod, dev = await make_scene(db), await make_scene(db, slug="dev")
    of_prod = await prod.register(make_task(), content="contents-1")
    of_dev = await dev.register(make_task(), content="contents-1")
    assert of_prod.id != of_dev.id
    assert of_prod.version == of_dev.version


async def test_servers_that_register_at_once_number_one_after_the_other(database_url: str) -> None:
    async with await Database.open(database_url, min_size=4) as db:
        scene = await make_scene(db)
        made = await asyncio.gather(*(scene.register(make_task(str(n))) for n in range(6)))
        assert sorted(answer.version for answer in made) == [f"20260301.{n}" for n in range(1, 7)]
        same = await asyncio.gather(*(scene.register(content="the-same") for _ in range(4)))
        assert len({answer.id for answer in same}) == 1
        await check_consistency(db)


async def test_a_task_keeps_what_its_manifest_says(db: Database) -> None:
    scene = await make_scene(db)
    await scene.register(
        make_task(
            "a",
            queue="mail",
            limit=3,
            description="Sends",
            machine=MachineManifest(preset=MachineName.LARGE_1X),
            max_duration=60,
            ttl="1h",
            keep_process=True,
            payload_schema={"type": "string"},
        ),
        make_task("b c", ttl=90),
    )
    first, second = await _read_tasks(db)
    assert (
        first
        | {
            "queue_name": "mail",
            "description": "Sends",
            "machine": "large-1x",
            "max_duration": 60,
            "ttl_seconds": 3600,
            "keep_process": True,
            "payload_schema": '{"type": "string"}',
            "file_path": "trigger/tasks.py",
            "export_name": "run",
        }
        == first
    )
    assert (second["queue_name"], second["ttl_seconds"]) == ("task/bc", 90)
    assert second["payload_schema"] is None


async def test_a_version_makes_its_queues_and_sets_their_limits(db: Database) -> None:
    scene = await make_scene(db)
    await scene.register(
        make_task("a", queue="mail", limit=3),
        make_task("b"),
        queues=[QueueManifest(name="spare", concurrency_limit=7)],
    )
    limits = "SELECT name, concurrency_limit FROM queues ORDER BY name"
    assert [tuple(row) for row in await read(db, limits)] == [
        ("mail", 3),
        ("spare", 7),
        ("task/b", None),
    ]
    await scene.register(make_task("a", queue="mail"))
    assert ("mail", None) in [tuple(row) for row in await read(db, limits)]
    await check_consistency(db)


async def test_a_task_that_is_there_twice_is_refused_and_nothing_is_stored(db: Database) -> None:
    scene = await make_scene(db)
    with pytest.raises(RequestError, match="unique: a are there twice") as refused:
        await scene.register(make_task("a"), make_task("b"), make_task("a"))
    assert refused.value.status == 422
    with pytest.raises(RequestError, match="the ttl of task b: 'soon'") as refused:
        await scene.register(make_task("a"), make_task("b", ttl="soon"))
    assert refused.value.status == 422
    assert await read(db, "SELECT id FROM background_workers") == []
    assert await read(db, "SELECT id FROM queues") == []


async def test_a_version_lets_the_runs_go_that_waited_for_its_tasks(db: Database) -> None:
    scene = await make_scene(db, make_task("other"))
    run_id, other_id = (await scene.trigger("add")).run_id, (await scene.trigger("later")).run_id
    assert await scene.read_status(run_id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    scene.later(60)
    await scene.register(make_task("add"))
    assert await scene.read_status(run_id) == "QUEUED/QUEUED"
    assert await scene.read_status(other_id) == "RUN_CREATED/WAITING_FOR_DEPLOY"
    assert (await (await scene.connect()).dequeue_one()).run_id == run_id
    await check_consistency(db)


async def test_runs_that_waited_are_let_go_some_at_a_time_the_oldest_first(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployments, "_RELEASED_AT_ONCE", 2)
    scene = await make_scene(db)
    ids = await scene.trigger_many(5)
    await scene.register(make_task())
    assert [await scene.read_status(run_id) for run_id in ids[:3]] == [
        "QUEUED/QUEUED",
        "QUEUED/QUEUED",
        "RUN_CREATED/WAITING_FOR_DEPLOY",
    ]
    assert [await _release(scene) for _ in range(3)] == [2, 1, 0]
    taken = await (await scene.connect()).dequeue()
    assert [run.run_id for run in taken] == ids
    await check_consistency(db)


async def test_a_run_that_waited_has_its_time_to_live_from_then_on(db: Database) -> None:
    scene = await make_scene(db)
    run_id = (await scene.trigger(ttl="10m")).run_id
    scene.later(3600)
    await scene.register(make_task())
    (row,) = await read(db, "SELECT expires_at FROM queued_runs WHERE run_id = :id", id=run_id)
    assert row["expires_at"] == scene.now + timedelta(minutes=10)


async def test_environments_in_which_nothing_waits_are_not_looked_at(db: Database) -> None:
    prod, dev = await make_scene(db), await make_scene(db, make_task(), slug="dev")
    await dev.trigger()
    waiting_id = (await prod.trigger()).run_id
    async with db.connection() as tx:
        found = await deployments.list_environments_with_waiting_runs(tx)
    assert found == [prod.environment.id]
    await db.run(lambda tx: enqueue_runs(tx, [waiting_id], pin_versions=False, now=prod.now))
    async with db.connection() as tx:
        assert await deployments.list_environments_with_waiting_runs(tx) == []

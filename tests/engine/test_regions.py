"""Regions: a run that is for one goes to a worker there, once there is or was one."""

from runwell.core.explanations import ExplanationReason
from runwell.core.protocol import ConnectBody
from runwell.engine import explanations, replays, timers, workers
from runwell.engine.db import Database
from tests.support.factories import (
    Scene,
    Supervisor,
    check_consistency,
    fail,
    make_scene,
    make_task,
    start,
)


async def connect(scene: Scene, region: str | None = None) -> Supervisor:
    body = ConnectBody(name="w", capacity=100, package_version="1", region=region)
    answer = await workers.connect(scene.db, scene.environment, body, now=scene.now)
    versions = [version.id for version in scene.versions]
    return Supervisor(scene=scene, db=scene.db, id=answer.worker_id, versions=versions)


async def trigger(scene: Scene, *regions: str | None) -> list[str]:
    run_ids: list[str] = []
    for region in regions:
        triggered = await scene.trigger(region=region) if region else await scene.trigger()
        run_ids.append(triggered.run_id)
        scene.later(0.001)
    return run_ids


async def take(worker: Supervisor) -> list[str]:
    return [run.run_id for run in await worker.dequeue()]


async def test_a_run_for_a_region_is_taken_by_a_worker_there_and_the_others_by_any(
    db: Database,
) -> None:
    scene = await make_scene(db, make_task())
    anywhere, here, there = (
        await connect(scene),
        await connect(scene, "eu-1"),
        await connect(scene, "us-1"),
    )
    plain, eu, us, later = await trigger(scene, None, "eu-1", "us-1", None)
    assert await take(there) == [plain, us, later]
    assert await take(anywhere) == []
    assert await take(here) == [eu]
    assert (await scene.get(eu)).region == "eu-1"
    await check_consistency(db)


async def test_a_region_that_no_worker_ever_was_in_means_any_worker(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await connect(scene, "eu-1")
    (run_id,) = await trigger(scene, "mars")
    assert await take(await connect(scene)) == [run_id]
    assert (await scene.get(run_id)).region == "mars"
    assert await take(worker) == []


async def test_a_run_waits_for_a_region_whose_worker_is_away_and_says_so(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await (await connect(scene, "eu-1")).disconnect()
    anywhere = await connect(scene)
    (run_id,) = await trigger(scene, "eu-1")
    assert await take(anywhere) == []
    run = await scene.get(run_id)
    async with db.transaction() as tx:
        why = await explanations.explain_run(tx, scene.environment, run, now=scene.now)
    assert why is not None
    assert why.reason is ExplanationReason.NO_WORKER_IN_REGION
    assert why.message == "no worker that is connected is in the region eu-1"
    assert await take(await connect(scene, "eu-1")) == [run_id]


async def test_a_delayed_or_retried_run_and_a_replay_stay_in_their_region(db: Database) -> None:
    scene = await make_scene(db, make_task())
    here, anywhere = await connect(scene, "eu-1"), await connect(scene)
    delayed = (await scene.trigger(region="eu-1", delay="10s")).run_id
    (retried,) = await trigger(scene, "eu-1")
    (run,) = await here.dequeue()
    await here.report(start(run), fail(run, retry_at=scene.now))
    replay = await replays.replay_run(db, scene.environment, retried, now=scene.now)
    scene.later(11)
    await here.heartbeat()
    await anywhere.heartbeat()
    await timers.enqueue_due_runs(db, now=scene.now)
    assert await take(anywhere) == []
    assert sorted(await take(here)) == sorted([delayed, retried, replay.run_id])
    await check_consistency(db)


async def test_runs_for_other_regions_cost_a_dequeue_nothing(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await connect(scene, "far")
    anywhere = await connect(scene)
    await trigger(scene, *["far"] * 50)
    (run_id,) = await trigger(scene, None)
    assert [run.run_id for run in await anywhere.dequeue(1)] == [run_id]

"""Bulk actions: all runs that were there, each once, in steps that may be interrupted."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError
from runwell.core.ids import make_request_key
from runwell.core.statuses import RunStatus
from runwell.engine import bulk_actions, bulk_steps, replays, runs
from runwell.engine.bulk_actions import BulkAct, BulkAction, Selection
from runwell.engine.bulk_steps import Step
from runwell.engine.db import Database
from runwell.engine.runs import Page, RunFilters
from tests.support.factories import (
    NOW,
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    make_scene,
    make_task,
    one_transaction,
    read,
)


async def _create(
    scene: Scene,
    action: BulkAct,
    *,
    run_ids: Sequence[str] | None = None,
    key: str | None = None,
    **filters: Any,
) -> BulkAction:
    selection = Selection(filters=RunFilters(**filters), run_ids=run_ids)
    return await bulk_actions.create_bulk_action(
        scene.db, scene.environment, action, selection, request_key=key, now=scene.now
    )


async def _work(scene: Scene) -> list[Step]:
    """Step until nothing is left to do."""
    steps: list[Step] = []
    while (step := await bulk_steps.take_step(scene.db, now=scene.now)) is not None:
        steps.append(step)
        assert len(steps) < 100
    return steps


async def _get(scene: Scene, made: BulkAction) -> BulkAction:
    async with scene.db.transaction() as tx:
        return await bulk_actions.get_bulk_action(tx, scene.environment, made.id)


async def _list_ids(scene: Scene, **filters: Any) -> list[str]:
    async with scene.db.transaction() as tx:
        found = await runs.list_runs(tx, scene.environment, RunFilters(**filters), Page(size=100))
    return [run.id for run in found.runs]


async def test_all_runs_that_pass_the_filters_are_canceled_and_no_others(db: Database) -> None:
    scene = await make_scene(db, make_task(), make_task("other"))
    of_dev = await make_scene(db, make_task(), slug="dev")
    worker = await scene.connect()
    await scene.trigger()
    ended = await worker.start_one()
    await worker.report(complete(ended))
    await scene.trigger()
    running = await worker.start_one()
    queued = await scene.trigger_many(3)
    delayed = (await scene.trigger(delay="1h")).run_id
    kept = [(await scene.trigger("other")).run_id, (await of_dev.trigger()).run_id]
    made = await _create(scene, BulkAct.CANCEL, task_ids=["add"])
    assert (made.status, made.total) == ("PENDING", 5)
    scene.later(1)
    late = (await scene.trigger()).run_id
    steps = await _work(scene)
    assert {run.worker_id for step in steps for run in step.canceled} == {None, worker.id}
    found = await _get(scene, made)
    assert (found.status, found.succeeded, found.skipped) == ("COMPLETED", 5, 0)
    for run_id in (running.run_id, delayed, *queued):
        assert (await scene.get(run_id)).status is RunStatus.CANCELED
    assert (await scene.get(ended.run_id)).status is RunStatus.COMPLETED
    for run_id in (late, kept[0]):
        assert (await scene.get(run_id)).status is RunStatus.QUEUED
    assert (await of_dev.get(kept[1])).status is RunStatus.QUEUED
    await check_consistency(db)


async def test_runs_are_replayed_once_each_and_their_replays_not(db: Database) -> None:
    scene = await make_scene(db, make_task())
    originals = await scene.trigger_many(120)
    made = await _create(scene, BulkAct.REPLAY)
    await _work(scene)
    found = await _get(scene, made)
    assert (found.status, found.total, found.succeeded) == ("COMPLETED", 120, 120)
    rows = await read(db, "SELECT replay_of FROM runs WHERE replay_of IS NOT NULL")
    assert sorted(row["replay_of"] for row in rows) == sorted(originals)
    assert len(await _list_ids(scene, bulk_action_id=made.id)) == 100
    assert await _list_ids(scene, bulk_action_id="bulk_unknown") == []
    await check_consistency(db)


async def test_runs_are_named_by_their_ids_too(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    ids = await scene.trigger_many(4)
    made = await _create(scene, BulkAct.CANCEL, run_ids=ids[1:3])
    await _work(scene)
    assert (await _get(scene, made)).succeeded == 2
    statuses = [(await scene.get(run_id)).status for run_id in ids]
    assert statuses == ["QUEUED", "CANCELED", "CANCELED", "QUEUED"]
    for unknown in ("run_unknown", (await of_dev.trigger()).run_id):
        with pytest.raises(RequestError, match=f"no such runs .*: {unknown}") as refused:
            await _create(scene, BulkAct.CANCEL, run_ids=[ids[0], unknown])
        assert refused.value.status == 404


async def test_a_request_sent_twice_is_one_bulk_action(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(2)
    key = make_request_key(NOW)
    made = [await _create(scene, BulkAct.REPLAY, key=key) for _ in range(2)]
    assert made[0].id == made[1].id
    await _work(scene)
    assert len(await read(db, "SELECT id FROM runs")) == 4


async def test_a_replay_that_can_not_be_is_told_with_its_reason(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(2)
    # As when it was deleted after it had been chosen.
    made = await _create(scene, BulkAct.REPLAY)
    async with one_transaction(db) as held:
        await bulk_steps.take_step(held, now=scene.now)
    await read(db, "UPDATE runs SET payload = '{' WHERE id = :id RETURNING id", id=ids[0])
    again = await _create(scene, BulkAct.REPLAY)
    await _work(scene)
    assert (await _get(scene, made)).succeeded == 2
    found = await _get(scene, again)
    assert (found.status, found.failed) == ("COMPLETED", 1)
    ((run_id, error),) = found.failures
    assert run_id == ids[0]
    assert "not valid JSON" in error


async def test_a_server_that_dies_within_a_step_leaves_it_to_another_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(3)
    made = await _create(scene, BulkAct.REPLAY)
    real = replays.replay_run
    done: list[str] = []

    async def die_after_two(*args: Any, **options: Any) -> Any:
        if len(done) == 2:
            raise KeyError
        done.append(args[2])
        return await real(*args, **options)

    monkeypatch.setattr(bulk_steps, "replay_run", die_after_two)
    with pytest.raises(KeyError):
        await bulk_steps.take_step(db, now=scene.now)
    monkeypatch.undo()
    assert len(await read(db, "SELECT id FROM runs WHERE replay_of IS NOT NULL")) == 2
    # For a while the step is still the other one's.
    assert await bulk_steps.take_step(db, now=scene.now) is None
    scene.later(11)
    await _work(scene)
    found = await _get(scene, made)
    assert (found.status, found.succeeded, found.failed) == ("COMPLETED", 3, 0)
    rows = await read(db, "SELECT replay_of FROM runs WHERE replay_of IS NOT NULL")
    assert len({row["replay_of"] for row in rows}) == len(rows) == 3


async def test_a_cancel_that_is_rolled_back_is_done_again(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(3)
    made = await _create(scene, BulkAct.CANCEL)

    async def interrupted() -> None:
        async with one_transaction(db) as held:
            assert await bulk_steps.take_step(held, now=scene.now) is not None
            # Meanwhile another server finds nothing to do.
            assert await bulk_steps.take_step(db, now=scene.now) is None
            raise KeyError

    with pytest.raises(KeyError):
        await interrupted()
    assert (await scene.get(ids[0])).status is RunStatus.QUEUED
    await _work(scene)
    assert (await _get(scene, made)).succeeded == 3
    await check_all_at_rest(db)


async def test_several_servers_share_the_work_and_count_it_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(120)
    made = [await _create(scene, BulkAct.REPLAY) for _ in range(2)]
    # What one of them makes is younger than the other.
    scene.later(0.001)
    await asyncio.gather(*(_work(scene) for _ in range(4)))
    await _work(scene)
    for one in made:
        found = await _get(scene, one)
        assert (found.status, found.succeeded) == ("COMPLETED", 120)
    assert len(await read(db, "SELECT id FROM runs")) == 360


async def test_an_aborted_bulk_action_leaves_the_rest_alone(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(120)
    made = await _create(scene, BulkAct.CANCEL)
    await bulk_steps.take_step(db, now=scene.now)
    aborted = await bulk_actions.abort_bulk_action(db, scene.environment, made.id, now=scene.now)
    assert (aborted.status, aborted.succeeded) == ("ABORTED", 50)
    assert await _work(scene) == []
    assert len(await read(db, "SELECT id FROM runs WHERE status = 'QUEUED'")) == 70
    again = await bulk_actions.abort_bulk_action(db, scene.environment, made.id, now=NOW)
    assert again == aborted
    with pytest.raises(RequestError, match="no bulk action"):
        await bulk_actions.abort_bulk_action(db, scene.environment, "bulk_x", now=NOW)


async def test_a_bulk_action_of_nothing_is_done_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(1)
    made = await _create(scene, BulkAct.CANCEL, statuses=[RunStatus.COMPLETED])
    await _work(scene)
    found = await _get(scene, made)
    assert (found.status, found.total, found.succeeded) == ("COMPLETED", 0, 0)
    assert (await scene.get(ids[0])).status is RunStatus.QUEUED
    async with db.transaction() as tx:
        assert [one.id for one in await bulk_actions.list_bulk_actions(tx, scene.environment)] == [
            made.id
        ]


async def test_a_run_that_ends_before_it_is_canceled_is_skipped(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = await scene.trigger_many(2)
    made = await _create(scene, BulkAct.CANCEL, run_ids=ids)
    await scene.cancel(ids[0])
    await _work(scene)
    found = await _get(scene, made)
    assert (found.total, found.succeeded) == (2, 1)


async def test_old_bulk_actions_are_forgotten_with_their_items(db: Database) -> None:
    scene = await make_scene(db, make_task())
    await scene.trigger_many(2)
    await _create(scene, BulkAct.CANCEL)
    await _work(scene)
    await bulk_steps.delete_old_bulk_actions(db, now=NOW + timedelta(days=29))
    assert len(await read(db, "SELECT run_id FROM bulk_action_items")) == 2
    await bulk_steps.delete_old_bulk_actions(db, now=NOW + timedelta(days=31))
    assert await read(db, "SELECT run_id FROM bulk_action_items") == []
    assert await read(db, "SELECT id FROM bulk_actions") == []

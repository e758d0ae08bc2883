"""Reading, listing and canceling runs, and paging through their lines."""

from datetime import timedelta
from typing import Any

import pytest

from runwell.core.errors import RequestError, StringError
from runwell.core.statuses import RunStatus
from runwell.engine import runs
from runwell.engine.db import Database, allow_any_plan
from runwell.engine.queries import load_queries
from runwell.engine.runs import Page, RunFilters, RunPage
from tests.support.factories import (
    NOW,
    Scene,
    check_all_at_rest,
    check_consistency,
    complete,
    fail,
    make_scene,
    make_task,
    write_lines,
)
from tests.support.plans import explain


async def _list(scene: Scene, page: Page | None = None, **filters: Any) -> RunPage:
    async with scene.db.transaction() as tx:
        return await runs.list_runs(
            tx,
            scene.environment,
            RunFilters(**filters),
            page or Page(size=100),
        )


async def _list_ids(scene: Scene, **filters: Any) -> list[str]:
    return [run.id for run in (await _list(scene, **filters)).runs]


async def test_a_run_that_is_unknown_is_not_found(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    for run_id in ("run_unknown", "", "x" * 10_000, (await of_dev.trigger()).run_id):
        with pytest.raises(RequestError, match=r"no run .* in the environment prod") as refused:
            await scene.get(run_id)
        assert refused.value.status == 404
        assert len(str(refused.value)) < 300
        with pytest.raises(RequestError, match=r"no run") as refused:
            await scene.cancel(run_id)
        assert refused.value.status == 404
    assert (await _list(of_dev)).runs[0].status is RunStatus.QUEUED


@pytest.mark.parametrize(
    ("held_by", "status_before"),
    [
        ("version", "RUN_CREATED/WAITING_FOR_DEPLOY"),
        ("delay", "DELAYED/DELAYED"),
        ("queue", "QUEUED/QUEUED"),
        ("backoff", "WAITING_TO_RETRY/REATTEMPTING"),
    ],
)
async def test_a_run_that_no_worker_holds_is_canceled_at_once(
    db: Database, held_by: str, status_before: str
) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    task_id = "unknown" if held_by == "version" else "add"
    delay = "1h" if held_by == "delay" else None
    run_id = (await scene.trigger(task_id, delay=delay)).run_id
    if held_by == "backoff":
        await worker.report(fail(await worker.start_one()))
    assert await scene.read_status(run_id) == status_before
    scene.later(1)
    assert (await scene.cancel(run_id)).worker_id is None
    found = await scene.get(run_id)
    assert (found.status, found.finished_at) == (RunStatus.CANCELED, scene.now)
    assert found.error == StringError(raw="Run was canceled by a user")
    await check_all_at_rest(db)
    assert await worker.dequeue() == []


async def test_a_run_that_a_worker_holds_is_canceled_for_its_user_at_once(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    for _ in range(2):
        await scene.cancel(run.run_id)
        assert await scene.read_status(run.run_id) == "PENDING_CANCEL/CANCELED"
    assert (await scene.read_events(run.run_id)).count("CANCEL") == 1
    await check_consistency(db)


async def test_a_run_that_has_ended_stays_as_it_is(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(complete(run))
    before = await scene.get(run.run_id)
    scene.later(1)
    assert (await scene.cancel(run.run_id)).worker_id is None
    assert await scene.get(run.run_id) == before


async def test_a_list_pages_in_both_directions(db: Database) -> None:
    scene = await make_scene(db, make_task())
    ids = (await scene.trigger_many(5))[::-1]
    first = await _list(scene, Page(size=2))
    assert ([run.id for run in first.runs], first.previous) == (ids[:2], None)
    second = await _list(scene, Page(size=2, after=first.next))
    assert [run.id for run in second.runs] == ids[2:4]
    last = await _list(scene, Page(size=2, after=second.next))
    assert ([run.id for run in last.runs], last.next) == (ids[4:], None)
    back = await _list(scene, Page(size=2, before=last.previous))
    assert [run.id for run in back.runs] == ids[2:4]
    assert back.next == second.next
    front = await _list(scene, Page(size=2, before=back.previous))
    assert ([run.id for run in front.runs], front.previous) == (ids[:2], None)
    assert front.next == first.next


async def test_a_page_of_exactly_what_is_left_has_no_next(db: Database) -> None:
    scene = await make_scene(db, make_task())
    assert await _list(scene, Page(size=2)) == RunPage(runs=[], next=None, previous=None)
    ids = await scene.trigger_many(2)
    page = await _list(scene, Page(size=2))
    assert (page.next, page.previous) == (None, None)
    assert (await _list(scene, Page(size=2, after=ids[0]))).runs == []
    assert (await _list(scene, Page(size=2, before=ids[1]))).runs == []


async def test_a_list_has_what_passes_every_filter(db: Database) -> None:
    scene = await make_scene(db, make_task("a"), make_task("b"))
    first, second = await scene.trigger_many(2, "a", tags=["x", "y"])
    third = (await scene.trigger("b", tags="y", test=True)).run_id
    scene.later(3600)
    late = (await scene.trigger("a")).run_id
    worker = await scene.connect()
    await worker.heartbeat()
    run = await worker.start_one()
    await worker.report(complete(run))
    done = run.run_id
    everything = [late, third, second, first]

    def but(*ids: str) -> list[str]:
        return [run_id for run_id in everything if run_id not in ids]

    assert await _list_ids(scene) == everything
    assert await _list_ids(scene, statuses=[RunStatus.COMPLETED]) == [done]
    assert await _list_ids(scene, statuses=[RunStatus.QUEUED]) == but(done)
    assert await _list_ids(scene, statuses=[]) == []
    assert await _list_ids(scene, task_ids=["a"]) == but(third)
    assert await _list_ids(scene, task_ids=["a", "b"]) == everything
    assert await _list_ids(scene, tags=["x"]) == [second, first]
    assert await _list_ids(scene, tags=["x", "y"]) == [third, second, first]
    assert await _list_ids(scene, is_test=True) == [third]
    assert await _list_ids(scene, is_test=False) == but(third)
    assert await _list_ids(scene, created_from=NOW + timedelta(hours=1)) == [late]
    assert await _list_ids(scene, created_to=NOW + timedelta(minutes=1)) == but(late)
    assert await _list_ids(scene, versions=[scene.versions[0].version]) == [done]
    assert await _list_ids(scene, batch_id="batch_x") == []
    assert await _list_ids(scene, task_ids=["a"], tags=["y"], is_test=False) == [second, first]


async def test_a_list_shows_its_own_environment_only(db: Database) -> None:
    scene = await make_scene(db, make_task())
    of_dev = await make_scene(db, make_task(), slug="dev")
    run_id = (await scene.trigger()).run_id
    await of_dev.trigger()
    assert await _list_ids(scene) == [run_id]


async def test_lines_are_read_page_by_page_over_all_attempts(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    first = await worker.start_one()
    await worker.report(write_lines(first, "a", "b", "c"), fail(first, retry_at=scene.now))
    second = await worker.start_one()
    await worker.report(write_lines(second, "d", "e"))
    seen: list[tuple[int, int, str]] = []
    after: str | None = None
    while True:
        async with db.connection() as tx:
            page = await runs.read_logs(tx, scene.environment, first.run_id, after=after, limit=2)
        seen += [(line.attempt, line.seq, line.message) for line in page.data]
        if not page.data:
            break
        assert len(page.data) <= 2
        after = page.next
    assert seen == [(1, 1, "a"), (1, 2, "b"), (1, 3, "c"), (2, 1, "d"), (2, 2, "e")]
    # The end of a page is where one reads on later.
    assert page.next == after
    await worker.report(write_lines(second, "f", first=3))
    async with db.connection() as tx:
        page = await runs.read_logs(tx, scene.environment, first.run_id, after=after, limit=2)
    assert [line.message for line in page.data] == ["f"]


@pytest.mark.parametrize("after", ["", "1", "a.b", "1.-1", "9999999999.1", "1.9999999999", "1.2.3"])
async def test_a_cursor_that_no_page_of_lines_gave_is_refused(db: Database, after: str) -> None:
    scene = await make_scene(db, make_task())
    run_id = (await scene.trigger()).run_id
    with pytest.raises(RequestError, match=r"after: .* is not the `next`") as refused:
        async with db.connection() as tx:
            await runs.read_logs(tx, scene.environment, run_id, after=after, limit=1)
    assert refused.value.status == 400


async def test_lines_of_a_run_that_is_unknown_are_not_found(db: Database) -> None:
    scene = await make_scene(db, make_task())
    with pytest.raises(RequestError, match=r"no run") as refused:
        async with db.connection() as tx:
            await runs.read_logs(tx, scene.environment, "run_x", after=None, limit=1)
    assert refused.value.status == 404


async def test_a_page_of_lines_has_between_one_and_a_thousand(db: Database) -> None:
    scene = await make_scene(db, make_task())
    worker = await scene.connect()
    await scene.trigger()
    run = await worker.start_one()
    await worker.report(write_lines(run, *("x" for _ in range(1200))))
    for limit, number in ((0, 1), (-5, 1), (7, 7), (99_999, 1000)):
        async with db.connection() as tx:
            page = await runs.read_logs(tx, scene.environment, run.run_id, after=None, limit=limit)
        assert len(page.data) == number


@pytest.mark.parametrize("name", ["list_older_runs", "list_newer_runs"])
async def test_filters_are_planned_as_a_part_of_their_query(db: Database, name: str) -> None:
    query = getattr(load_queries("runs"), name)
    values = dict.fromkeys(query.parameters) | {"environment_id": 1, "most": 26}
    if "before" in values:
        values["before"] = "run_1"
    async with db.transaction() as tx:
        await allow_any_plan(tx)
        nodes = await explain(tx, query, **values)
    assert not [node for node in nodes if node["Node Type"] == "Function Scan"]
    (scan,) = [node for node in nodes if node.get("Relation Name") == "runs"]
    assert "environment_id" in scan["Index Cond"]
